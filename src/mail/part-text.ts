/**
 * How the bytes of a text part become text, where its sender says it wrongly, not at all, or in a way of its own.
 *
 * - The charset (`charsetOf`): a byte order mark decides. Where none is named, or none that says anything, it is UTF-8 if
 *   the bytes are, else windows-1252, which is what browsers take such bytes for.
 * - `format=flowed` (RFC 3676, `unflowed`): lines that were broken to fit are joined again, and never a line of an answer
 *   with one of the quotation above it.
 *
 * Decoding a charset that is known is the parser's.
 */
import { isAscii, isUtf8 } from 'node:buffer';

/** Nothing, or what has none of the bytes that matter here. */
const SAYS_NOTHING = new Set(['', 'us-ascii', 'ascii', 'ansi_x3.4-1968']);

/** The name to decode these bytes by, of what stands in the Content-Type. */
export function charsetOf(bytes: Uint8Array, named: string | undefined): string | undefined {
  const marked = byteOrderMark(bytes);
  if (marked !== null) return marked;
  const charset = named?.trim().toLowerCase() ?? '';
  const isVague = SAYS_NOTHING.has(charset);
  if (!isVague && isKnown(charset)) return charset;
  // Without such bytes it may be one of the charsets that are made of ASCII, which the parser knows by more names.
  if (!isAscii(bytes) && isUtf8(bytes)) return 'utf-8';
  return isVague ? 'windows-1252' : charset;
}

function byteOrderMark(bytes: Uint8Array): string | null {
  const [first, second, third] = bytes;
  if (first === 0xef && second === 0xbb && third === 0xbf) return 'utf-8';
  if (first === 0xfe && second === 0xff) return 'utf-16be';
  return first === 0xff && second === 0xfe ? 'utf-16le' : null;
}

function isKnown(charset: string): boolean {
  try {
    return new TextDecoder(charset).encoding !== '';
  } catch {
    return false;
  }
}

/** Ends the text above a signature, with its space: no soft break (RFC 3676 §4.3). */
const SIGNATURE = '-- ';

/** @param isSpaceDropped `DelSp=yes`: the space at a soft break is none of the text's. */
export function unflowed(text: string, { isSpaceDropped }: { isSpaceDropped: boolean }): string {
  const paragraphs: string[] = [];
  let openDepth: number | null = null;
  for (const line of text.split(/\r?\n/)) {
    const depth = quoteDepth(line);
    // One space there is stuffing (§4.4), behind the quote marks too.
    const content = line.slice(line[depth] === ' ' ? depth + 1 : depth);
    const isSoft = content.endsWith(' ') && content !== SIGNATURE;
    const kept = isSoft && isSpaceDropped ? content.slice(0, -1) : content;
    if (openDepth === depth && content !== SIGNATURE) paragraphs.push(paragraphs.pop()! + kept);
    else paragraphs.push('>'.repeat(depth) + (depth > 0 && kept !== '' ? ' ' : '') + kept);
    openDepth = isSoft ? depth : null;
  }
  return paragraphs.join('\n');
}

function quoteDepth(line: string): number {
  let depth = 0;
  while (line[depth] === '>') depth += 1;
  return depth;
}
