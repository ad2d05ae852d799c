/**
 * Lines for a person at a terminal. Much of what commands say comes out of mail or from a tool: it must not move the
 * cursor of who reads it, nor turn the line around. All output of commands goes through here, errors too.
 */
const CONTROL_CHARACTERS = /(?![\n\t])[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** With escapes in place of what could move the cursor: in JSON they mean the same. */
export function printable(text: string): string {
  return text.replaceAll(
    CONTROL_CHARACTERS,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** One line, or several, on standard output. */
export function printLine(text: string): void {
  process.stdout.write(`${printable(text)}\n`);
}

/** One line, or several, on standard error. */
export function warnLine(text: string): void {
  process.stderr.write(`${printable(text)}\n`);
}
