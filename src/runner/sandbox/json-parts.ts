/**
 * How many values JSON text has, before it is parsed: megabytes of `[],[],[]` take seconds to parse, and a hundred times
 * their size in memory, where a text of that length costs next to nothing. What a tool hands over is therefore measured first.
 */

const COMMA = 0x2c;
const LIST = 0x5b;
const OBJECT = 0x7b;
const QUOTE = '"';
const BACKSLASH = 0x5c;

/** Whether there are at most so many commas and opening brackets outside of strings. Of what is no JSON it may say either. */
export function hasAtMostParts(json: string, most: number): boolean {
  let parts = 0;
  for (let at = 0; at < json.length;) {
    const quote = json.indexOf(QUOTE, at);
    const end = quote < 0 ? json.length : quote;
    for (; at < end; at++) {
      const char = json.charCodeAt(at);
      const isPart = char === COMMA || char === LIST || char === OBJECT;
      if (isPart && ++parts > most) return false;
    }
    at = afterString(json, end + 1);
  }
  return true;
}

/** @param start behind its first quote */
function afterString(json: string, start: number): number {
  for (let from = start; ;) {
    const quote = json.indexOf(QUOTE, from);
    if (quote < 0) return json.length;
    let backslashes = 0;
    while (json.charCodeAt(quote - 1 - backslashes) === BACKSLASH) backslashes += 1;
    if (backslashes % 2 === 0) return quote + 1;
    from = quote + 1;
  }
}
