/**
 * Turns a raw message (RFC 5322, MIME) into the fields that stand in a record.
 *
 * `parseMessage` never rejects and never loses a mail: what the MIME parser refuses (see `limits`) is
 * described by its own header and carried whole as one attachment of type `message/rfc822`, with empty text.
 * - Everything it gives is well-formed Unicode; header-like fields are on one line and hold no controls.
 * - `headers` are undecoded, so that an address can still be told from a display name that looks like one;
 *   `decodeHeaderValue` decodes what is shown to a person.
 * - `from` is there only if the message has exactly one From field with exactly one address: of several
 *   authors none may be picked, or an allow-list would check one and the reply go to another.
 * - An attached message is an attachment; its text is not this mail's text.
 * The choice of the parser is docs/adr/0004-mime-parser.md; what it reads differently is docs/parsing.md.
 */
import PostalMime, { addressParser, decodeWords } from 'postal-mime';
import type { Attachment, Email, Header } from 'postal-mime';
import { MillraceError } from '../platform/errors.ts';
import type { Mailbox, ParsedEmail } from './email.ts';
import { decodeHeaderValue, oneLine, parseDate, parseMessageId, parseReferences } from './header-field.ts';
import { newTextOf } from './new-text.ts';
import { htmlToText } from './text.ts';

const limits = {
  /** Line ends in a message: the parser keeps an object a line, and 25 MB of them would be gigabytes. */
  lines: 1_000_000,
  /** Lines that begin with two hyphens, which bound the number of parts. */
  delimiterLines: 20_000,
  nestingDepth: 100,
  /** Bytes of header in all parts together, for the parser. */
  parsedHeaderBytes: 4 * 1024 * 1024,
  headers: 1000,
  /** Characters of one header value, and of all together. */
  headerChars: 64 * 1024,
  allHeaderChars: 256 * 1024,
  addresses: 1000,
  attachments: 200,
  filenameChars: 255,
  /** Of a body that is not MIME after all. */
  strayTextChars: 1024 * 1024,
} as const;

/** Fields that decide whether and whom we answer: kept, up to the limits once more, where others are dropped. */
const DECISIVE =
  /^(?:from|sender|reply-to|return-path|auto-submitted|precedence|list-[a-z]+|x-auto-response-suppress|x-millrace.*|message-id|in-reply-to|references|subject|date|to|cc|content-type)$/;

/** @param raw the message as it came, with CRLF or LF. */
export async function parseMessage(raw: Uint8Array): Promise<ParsedEmail> {
  const { email, parts } = await parseMime(raw);
  const fields = keptHeaders(email.headers);
  const first = (key: string): string | undefined => fields.find((field) => field.key === key)?.value;
  const mailboxes = (key: string): Mailbox[] =>
    fields
      .filter((field) => field.key === key)
      .flatMap((field) => parseMailboxes(field.value))
      .slice(0, limits.addresses);

  const froms = mailboxes('from');
  const references = parseReferences(first('references'));
  const inReplyTo = parseReferences(first('in-reply-to'));
  const html = email.html === undefined ? null : cleanBody(email.html);
  const text = cleanBody(email.text ?? (html === null ? '' : htmlToText(html)));
  return {
    from: froms.length === 1 ? (froms[0] ?? null) : null,
    replyTo: mailboxes('reply-to'),
    to: mailboxes('to'),
    cc: mailboxes('cc'),
    subject: decodeHeaderValue(first('subject') ?? ''),
    text,
    html,
    newText: newTextOf(text),
    headers: fields.map((field) => [field.originalKey, oneLine(field.value.slice(0, limits.headerChars))]),
    attachments: parts.map((part, index) => describeAttachment(part, index)),
    messageId: parseMessageId(first('message-id')),
    // RFC 5322 §3.6.4: without References, an In-Reply-To that names one message stands in for it.
    references: references.length === 0 && inReplyTo.length === 1 ? inReplyTo : references,
    date: parseDate(first('date')),
  };
}

/**
 * The decoded bytes of the attachment that `parseMessage` lists at `index`. Line ends of an attachment that
 * was sent without a transfer encoding come as LF.
 * @throws MillraceError `mail.no_such_attachment` (permanent).
 */
export async function attachmentBytes(raw: Uint8Array, index: number): Promise<Uint8Array> {
  const { parts } = await parseMime(raw);
  const part = parts[index];
  if (!part) {
    throw new MillraceError('permanent', 'mail.no_such_attachment', `the email has no attachment ${index}`);
  }
  return contentOf(part);
}

/** The parser's view, with the attachments that are listed. Never rejects. */
async function parseMime(raw: Uint8Array): Promise<{ email: Email; parts: Attachment[] }> {
  if (isWithinLimits(raw)) {
    try {
      const email = await parseWithin(raw);
      if (!isEmpty(email)) return { email, parts: email.attachments.slice(0, limits.attachments) };
      const text = strayText(raw);
      return { email: text === '' ? email : { ...email, text }, parts: [] };
    } catch {
      // The parser refuses deep nesting and excessive headers by throwing; below is what remains of the mail.
    }
  }
  return { email: await parseHeadOnly(raw), parts: [wholeMessage(raw)] };
}

function parseWithin(raw: Uint8Array): Promise<Email> {
  return PostalMime.parse(raw, {
    forceRfc822Attachments: true,
    maxNestingDepth: limits.nestingDepth,
    maxHeadersSize: limits.parsedHeaderBytes,
  });
}

function isEmpty(email: Email): boolean {
  return email.text === undefined && email.html === undefined && email.attachments.length === 0;
}

/** A multipart message without a boundary, or without a single part, still has a body that a person can read. */
function strayText(raw: Uint8Array): string {
  const body = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).subarray(headLength(raw));
  return new TextDecoder().decode(body.subarray(0, limits.strayTextChars)).trim();
}

async function parseHeadOnly(raw: Uint8Array): Promise<Email> {
  const head = raw.subarray(0, Math.min(headLength(raw), limits.parsedHeaderBytes));
  const email = await parseWithin(head);
  return { headers: email.headers, headerLines: email.headerLines, attachments: [] };
}

function wholeMessage(raw: Uint8Array): Attachment {
  return { filename: null, mimeType: 'message/rfc822', disposition: 'attachment', content: raw };
}

const LF = 10;
const HYPHEN = 45;

function isWithinLimits(raw: Uint8Array): boolean {
  let lines = 0;
  let delimiterLines = 0;
  for (let at = raw.indexOf(LF); at >= 0; at = raw.indexOf(LF, at + 1)) {
    lines += 1;
    if (raw[at + 1] === HYPHEN && raw[at + 2] === HYPHEN) delimiterLines += 1;
    if (lines > limits.lines || delimiterLines > limits.delimiterLines) return false;
  }
  return true;
}

/** Where the header ends: behind the first empty line, or at the end. */
function headLength(raw: Uint8Array): number {
  const bytes = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength);
  const ends = ['\n\n', '\n\r\n'].map((end) => bytes.indexOf(end)).filter((at) => at >= 0);
  return ends.length === 0 ? bytes.length : Math.min(...ends) + 1;
}

/** Field names are printable ASCII (RFC 5322 §2.2); a line with any other name is no field. */
const FIELD_NAME = /^[\x21-\x39\x3b-\x7e]{1,200}$/;

function keptHeaders(headers: readonly Header[]): Header[] {
  const kept: Header[] = [];
  const budget: { headers: number; chars: number } = {
    headers: limits.headers,
    chars: limits.allHeaderChars,
  };
  const reserve = { ...budget };
  for (const header of headers) {
    if (!FIELD_NAME.test(header.originalKey)) continue;
    const chars = header.originalKey.length + Math.min(header.value.length, limits.headerChars);
    const from = [budget, ...(DECISIVE.test(header.key) ? [reserve] : [])].find(
      (left) => left.headers > 0 && left.chars >= chars,
    );
    if (!from) continue;
    from.headers -= 1;
    from.chars -= chars;
    kept.push(header);
  }
  return kept;
}

/** The mailboxes of an address field; members of groups stand for themselves, names without an address are dropped. */
function parseMailboxes(value: string): Mailbox[] {
  return addressParser(value, { flatten: true })
    .slice(0, limits.addresses)
    .map(({ name, address }) => ({ name: oneLine(decodeWords(name)), address: oneLine(address ?? '') }))
    .filter(({ address }) => address !== '');
}

function cleanBody(body: string): string {
  return body
    .replaceAll('\0', '')
    .replace(/\r\n?/g, '\n')
    .replace(/^(?:[ \t]*\n)+/, '')
    .trimEnd()
    .toWellFormed();
}

function describeAttachment(part: Attachment, index: number): ParsedEmail['attachments'][number] {
  const contentType = part.mimeType.toLowerCase();
  const { disposition } = part;
  return {
    index,
    filename: part.filename === null ? null : cleanFilename(part.filename),
    contentType: /^[\w!#$&^.+-]{1,127}\/[\w!#$&^.+-]{1,127}$/.test(contentType)
      ? contentType
      : 'application/octet-stream',
    // RFC 2183 §2.8: an unknown disposition is an attachment.
    disposition: disposition === null ? null : disposition === 'inline' ? 'inline' : 'attachment',
    contentId:
      oneLine(part.contentId ?? '')
        .replace(/^<|>$/g, '')
        .slice(0, limits.filenameChars) || null,
    size: contentOf(part).byteLength,
  };
}

/** Marks that reorder text, with which `exe.txt` can be made of `txt.exe`. */
const BIDI_CONTROLS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

function cleanFilename(filename: string): string | null {
  const name = oneLine(filename.replace(BIDI_CONTROLS, '').split(/[/\\]/).at(-1) ?? '');
  if (/^\.*$/.test(name)) return null;
  if (name.length <= limits.filenameChars) return name;
  const extension = /\.[^.]{1,16}$/.exec(name)?.[0] ?? '';
  return (name.slice(0, limits.filenameChars - extension.length) + extension).toWellFormed();
}

function contentOf(part: Attachment): Uint8Array {
  if (typeof part.content === 'string') return Buffer.from(part.content);
  return part.content instanceof Uint8Array ? part.content : new Uint8Array(part.content);
}
