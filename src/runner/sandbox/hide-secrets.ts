/**
 * Takes the values of granted secrets out of what a run leaves on record: its log and its error, also where that is
 * about an effect that it stated. A tool may spell a value in ways that nobody foresees; this is for slips (a URL in an
 * error, a request in a log), not for a tool that means to tell: that one has its granted hosts and its replies anyway.
 */
import { MillraceError } from '../../platform/errors.ts';

/** What is shorter is part of too many words. */
const MIN_SECRET_CHARS = 4;

/** A function that puts `[secret NAME]` where a value stands: as it is, in a URL, in JSON, in base64 or in hexadecimal. */
export function secretHider(secrets: Readonly<Record<string, string | null>>): (text: string) => string {
  const spellings = Object.entries(secrets)
    .flatMap(([name, value]) =>
      value === null || value.length < MIN_SECRET_CHARS
        ? []
        : spellingsOf(value).map((spelling) => ({ name, spelling })),
    )
    // One may be a part of another.
    .sort((a, b) => b.spelling.length - a.spelling.length);
  return (text) =>
    spellings.reduce((seen, { name, spelling }) => seen.replaceAll(spelling, () => `[secret ${name}]`), text);
}

/** Does the work. An error that it throws comes out without what is hidden: also not as its cause. */
export async function hidingInErrors<T>(hide: (text: string) => string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof MillraceError)) throw error;
    const { kind, code, retryAfterMs } = error;
    const message = hide(error.message);
    const hint = error.hint === undefined ? undefined : hide(error.hint);
    if (message === error.message && hint === error.hint) throw error;
    const details = {
      ...(hint !== undefined && { hint }),
      ...(retryAfterMs !== undefined && { retryAfterMs }),
    };
    throw new MillraceError(kind, code, message, details);
  }
}

function spellingsOf(value: string): string[] {
  const bytes = Buffer.from(value);
  const hex = bytes.toString('hex');
  // A host and an address are named in lower case.
  const all = [
    value,
    value.toLowerCase(),
    encodeURIComponent(value.toWellFormed()),
    JSON.stringify(value).slice(1, -1),
    hex,
    hex.toUpperCase(),
  ];
  return [...new Set([...all, ...base64SpellingsOf(bytes)])];
}

/** By itself, and behind other bytes, as in `Basic` of a user and a password: each byte before it shifts all letters. */
function base64SpellingsOf(bytes: Buffer): string[] {
  const whole = bytes.toString('base64').replace(/=+$/, '');
  const inside = [0, 1, 2].map((before) => {
    const letters = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64');
    // The letters at both ends are partly of what stands beside it.
    const rest = (before + bytes.length) % 3;
    const end = letters.length - (rest === 0 ? 0 : 4 - rest);
    return letters.slice(before === 0 ? 0 : before + 1, end);
  });
  const all = [whole, ...inside.filter((letters) => letters.length >= MIN_SECRET_CHARS)];
  return all.flatMap((letters) => [letters, letters.replaceAll('+', '-').replaceAll('/', '_')]);
}
