/**
 * The header of a message whose bytes are no UTF-8: old programs write names and subjects as they stand, in whatever
 * charset their text has. The parser would read each such byte as U+FFFD.
 *
 * Lines are looked at one by one, because servers on the way add theirs in UTF-8. Every ASCII character stays where it
 * is, or the line stays as it came: a charset that its sender names must not move the `@` or the bracket of an address.
 */
import { isUtf8 } from 'node:buffer';

const LF = 10;
const CONTENT_TYPE = /^content-type:.*(?:\r?\n[ \t].*)*/im;
const CHARSET = /;\s*charset\s*=\s*"?([\w.:+-]{1,40})/i;
const NOT_ASCII = /[^\p{ASCII}]+/gu;

type Decoder = InstanceType<typeof TextDecoder>;

/**
 * The message with a header in UTF-8; the same bytes where it is one. Lines are read by the charset of the message's own
 * Content-Type, without one as windows-1252.
 * @param end where the header ends, or how much of it is read.
 */
export function withUtf8Head(raw: Uint8Array, end: number): Uint8Array {
  const head = Buffer.from(raw.buffer, raw.byteOffset, end);
  if (isUtf8(head)) return raw;
  const decoder = decoderOf(head.toString('latin1'));
  const lines: Uint8Array[] = [];
  for (let start = 0; start < end;) {
    const lineEnd = head.indexOf(LF, start);
    const next = lineEnd < 0 ? end : lineEnd + 1;
    lines.push(utf8Line(head.subarray(start, next), decoder));
    start = next;
  }
  return Buffer.concat([...lines, raw.subarray(end)]);
}

function utf8Line(line: Buffer, decoder: Decoder): Uint8Array {
  if (isUtf8(line)) return line;
  const text = decoder.decode(line);
  const isKept = text.replace(NOT_ASCII, '') === line.toString('latin1').replace(NOT_ASCII, '');
  return isKept ? Buffer.from(text) : line;
}

function decoderOf(head: string): Decoder {
  const named = CHARSET.exec(CONTENT_TYPE.exec(head)?.[0] ?? '')?.[1] ?? '';
  try {
    const decoder = new TextDecoder(named);
    if (decoder.encoding !== 'utf-8') return decoder;
  } catch {
    // No charset that anybody knows: as if there were none.
  }
  return new TextDecoder('windows-1252');
}
