/**
 * The MIME parser behind limits: the one adapter of `postal-mime`.
 *
 * `parseMime` never rejects, takes bounded time and memory, and never loses a mail. A message beyond `limits`
 * is read as far as they go (its header, its text) and carried whole as its only attachment, of type
 * `message/rfc822`. The choice of the library is docs/adr/0004-mime-parser.md.
 */
import PostalMime from 'postal-mime';
import type { Attachment, Email, Header } from 'postal-mime';
import { BodyParser } from './body-parser.ts';
import { withUtf8Head } from './head-charset.ts';
import { decodePartsWithoutBlob } from './part-decoding.ts';
import { charsetOf } from './part-text.ts';

decodePartsWithoutBlob(new PostalMime());

const limits = {
  /**
   * Lines that are no base64. The parser keeps two objects for each, near 2 kB: a million took 9.5 s and
   * 1.9 GB, while 25 MB of base64 take 0.5 s.
   */
  textLines: 50_000,
  /** Lines that begin with two hyphens, which bound the number of parts: 10,000 take a second. */
  delimiterLines: 10_000,
  nestingDepth: 100,
  /** Bytes of header in all parts together. */
  headerBytes: 1024 * 1024,
  attachments: 200,
  /** Bytes of a body that is not MIME after all. */
  strayTextBytes: 1024 * 1024,
} as const;

export interface MimeMessage {
  /** Of the message itself, in order. */
  readonly headers: readonly Header[];
  /** The plain parts, undefined where there is none or where they are empty. */
  readonly text: string | undefined;
  readonly html: string | undefined;
  /** Everything else, attached messages included; at most 200. */
  readonly attachments: readonly Attachment[];
}

export async function parseMime(raw: Uint8Array): Promise<MimeMessage> {
  const readable = raw.subarray(0, readableLength(raw));
  const isWhole = readable.length === raw.length;
  const headBytes = Math.min(headLength(readable), limits.headerBytes);
  for (const part of [readable, readable.subarray(0, headBytes)]) {
    const email = await parseUnlessRefused(withUtf8Head(part, headBytes));
    if (!email) continue;
    const isRead = isWhole && part === readable;
    const attachments = isRead ? email.attachments.slice(0, limits.attachments) : [wholeMessage(raw)];
    const hasBody = email.text !== undefined || email.html !== undefined || attachments.length > 0;
    return {
      headers: email.headers,
      text: hasBody ? email.text : strayText(raw),
      html: email.html,
      attachments,
    };
  }
  return { headers: [], text: undefined, html: undefined, attachments: [wholeMessage(raw)] };
}

/** The decoded bytes of a part. */
export function contentOf(part: Attachment): Uint8Array {
  if (typeof part.content === 'string') return Buffer.from(part.content);
  return part.content instanceof Uint8Array ? part.content : new Uint8Array(part.content);
}

async function parseUnlessRefused(raw: Uint8Array): Promise<Email | null> {
  try {
    const parser = new BodyParser({
      forceRfc822Attachments: true,
      maxNestingDepth: limits.nestingDepth,
      maxHeadersSize: limits.headerBytes,
    });
    return await parser.parse(raw);
  } catch {
    // It refuses by throwing, mostly for nesting and headers beyond the limits: less of the mail may do.
    return null;
  }
}

function wholeMessage(raw: Uint8Array): Attachment {
  return { filename: null, mimeType: 'message/rfc822', disposition: 'attachment', content: raw };
}

const LF = 10;
const SPACE = 32;
const HYPHEN = 45;
/** Lines of base64 are longer than this (76, or 60 to 72 from some senders), but for the last. */
const BASE64_LINE = 56;

/** How much of the message lies within the limits on lines. */
function readableLength(raw: Uint8Array): number {
  let textLines = 0;
  let delimiterLines = 0;
  for (let start = 0, end = raw.indexOf(LF); end >= 0; start = end + 1, end = raw.indexOf(LF, start)) {
    if (raw[start] === HYPHEN && raw[start + 1] === HYPHEN) delimiterLines += 1;
    if (end - start < BASE64_LINE || raw.subarray(start, start + BASE64_LINE).includes(SPACE)) textLines += 1;
    if (textLines > limits.textLines || delimiterLines > limits.delimiterLines) return start;
  }
  return raw.length;
}

/** Where the header ends: behind the first empty line, or at the end. */
function headLength(raw: Uint8Array): number {
  const bytes = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength);
  const ends = ['\n\n', '\n\r\n'].map((end) => bytes.indexOf(end)).filter((at) => at >= 0);
  return ends.length === 0 ? bytes.length : Math.min(...ends) + 1;
}

/** A multipart message without a boundary, or without a single part, still has a body that a person can read. */
function strayText(raw: Uint8Array): string {
  const start = headLength(raw);
  const body = raw.subarray(start, start + limits.strayTextBytes);
  return new TextDecoder(charsetOf(body, undefined)).decode(body).trim();
}
