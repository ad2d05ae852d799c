/**
 * Turns a raw message (RFC 5322, MIME) into the fields that stand in a record.
 *
 * `parseMessage` never rejects, whatever the bytes; what it does with a message beyond the limits is told in
 * `mime.ts`, and what it reads differently from other parsers in docs/parsing.md.
 * - Everything it gives is well-formed Unicode; header-like fields are on one line and hold no controls.
 * - `headers` are undecoded, so that an address can still be told from a display name that looks like one;
 *   `decodeHeaderValue` decodes what is shown to a person.
 * - `from` is there only if the message has exactly one From field with exactly one address (`address-field.ts`): of several
 *   authors none may be picked, or an allow-list would check one and the reply go to another.
 * - An attached message is an attachment; its text is not this mail's text.
 */
import type { Attachment, Header } from 'postal-mime';
import { MillraceError } from '../platform/errors.ts';
import { mailboxesOf } from './address-field.ts';
import type { Mailbox, ParsedEmail } from './email.ts';
import { decodeHeaderValue, oneLine, parseDate, parseMessageId, parseReferences } from './header-field.ts';
import { contentOf, parseMime } from './mime.ts';
import { newTextOf } from './new-text.ts';
import { htmlToText } from './text.ts';

const limits = {
  headers: 1000,
  /** Characters of one header value, and of all together. */
  headerChars: 64 * 1024,
  allHeaderChars: 256 * 1024,
  /** Of one address field. */
  addresses: 1000,
  /** RFC 5321 §4.5.3.1 allows 254; whatever is longer is not an address. */
  addressChars: 320,
  nameChars: 1000,
  subjectChars: 16 * 1024,
  filenameChars: 255,
} as const;

/** Fields that decide whether and whom we answer: kept, up to the limits once more, where others are dropped. */
const DECISIVE =
  /^(?:from|sender|reply-to|return-path|precedence|(?:x-)?auto.*|list-.*|(?:x-)?mailing-list|x-failed-recipients|x-mail-autoreply|x-fc-machinegenerated|x-post-messageclass|delivered-to|preference|x-millrace.*|message-id|in-reply-to|references|subject|date|to|cc|content-type)$/;

/** @param raw the message as it came, with CRLF or LF. */
export async function parseMessage(raw: Uint8Array): Promise<ParsedEmail> {
  const mime = await parseMime(raw);
  const fields = keptHeaders(mime.headers);
  const first = (key: string): string | undefined => fields.find((field) => field.key === key)?.value;
  const mailboxes = (key: string): Mailbox[] =>
    fields
      .filter((field) => field.key === key)
      .flatMap((field) => parseMailboxes(field.value))
      .slice(0, limits.addresses);

  const authors = mailboxes('from');
  const references = parseReferences(first('references'));
  const inReplyTo = parseReferences(first('in-reply-to'));
  const html = mime.html === undefined ? null : cleanBody(mime.html);
  const plain = cleanBody(mime.text ?? '');
  const text = plain === '' && html !== null ? cleanBody(htmlToText(html)) : plain;
  return {
    from: authors.length === 1 ? (authors.filter(isPlausible)[0] ?? null) : null,
    replyTo: mailboxes('reply-to').filter(isPlausible),
    to: mailboxes('to').filter(isPlausible),
    cc: mailboxes('cc').filter(isPlausible),
    subject: decodeHeaderValue(first('subject') ?? '')
      .slice(0, limits.subjectChars)
      .toWellFormed(),
    text,
    html,
    newText: newTextOf(text),
    headers: fields.map((field) => [field.originalKey, oneLine(field.value.slice(0, limits.headerChars))]),
    attachments: mime.attachments.map((part, index) => describeAttachment(part, index)),
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
  return attachmentAt(await allAttachmentBytes(raw), index);
}

/** The same for all attachments, in their order. */
export async function allAttachmentBytes(raw: Uint8Array): Promise<Uint8Array[]> {
  return (await parseMime(raw)).attachments.map(contentOf);
}

/** One of what `allAttachmentBytes` gave; throws as `attachmentBytes` does. */
export function attachmentAt(contents: readonly Uint8Array[], index: number): Uint8Array {
  const bytes = contents[index];
  if (bytes) return bytes;
  throw new MillraceError('permanent', 'mail.no_such_attachment', `the email has no attachment ${index}`);
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

/** The mailboxes of an address field, with those that do not say exactly one address. */
function parseMailboxes(value: string): Mailbox[] {
  return mailboxesOf(value)
    .slice(0, limits.addresses)
    .map(({ name, address }) => ({
      name: decodeHeaderValue(name).slice(0, limits.nameChars).toWellFormed(),
      address,
    }));
}

/** What could be an address at all; whether one may be written to is for `address.ts`. */
function isPlausible({ address }: Mailbox): boolean {
  return (
    address !== '' &&
    address.length <= limits.addressChars &&
    !/\s/.test(address) &&
    oneLine(address) === address
  );
}

/** With LF line ends, without blank lines at either end. */
function cleanBody(body: string): string {
  const clean = body.replaceAll('\0', '').replace(/\r\n?/g, '\n');
  // By index: an expression for any number of blank lines keeps each of them in mind, and millions are too many.
  const firstText = clean.search(/[^ \t\n]/);
  if (firstText < 0) return '';
  return clean.slice(clean.lastIndexOf('\n', firstText) + 1).trimEnd();
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
