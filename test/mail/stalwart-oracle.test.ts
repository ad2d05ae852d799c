/**
 * An independent oracle: 33 messages with the parse that Stalwart's mail-parser gives (Rust, of other authors).
 * Every field that both describe is compared. Where we differ on purpose stands in `ACCEPTED` with the reason;
 * an unlisted difference fails, and so does a listed one that is gone.
 */
import { expect, test } from 'vitest';
import { attachmentBytes, parseMessage } from '../../src/mail/message.ts';
import { corpusFiles, MISSING_CORPUS } from './corpus.ts';

const LATER_TEXT =
  'the only text of a multipart message that is never closed is its text for us, an attachment for Stalwart';
const EMPTY_PART = 'the parts hold nothing: we then show the body as it stands, Stalwart lists an empty part';
const PREFIX_BOUNDARY =
  'one boundary begins with another, and is left open: we go on with the inner one, Stalwart with the outer one';
const OPEN_MULTIPART =
  'nested in an open multipart: we split at every delimiter, Stalwart only at the outermost';
const NO_SEPARATOR =
  'no semicolon before `boundary`: RFC 2045 gives no boundary then; we show the body as text';
const REPEATED_TYPE =
  'two Content-Type fields: the first counts for us (as in any mail filter), for Stalwart the last';
const EMPTY_TEXT = 'the plain part is empty: we make the text from the HTML';
const NOT_BASE64 =
  'the part says base64 and is not: we decode what can be read as such, Stalwart gives it undecoded';
const DAMAGED_DATE = 'a date that breaks off in its time: none for us, as if it ended there for Stalwart';
const NO_PATH = 'a file name keeps no path';

/** File → field → why ours differs. */
const ACCEPTED: Record<string, Record<string, string>> = {
  'malformed/001': { text: EMPTY_PART, attachments: EMPTY_PART },
  'malformed/002': { attachments: LATER_TEXT },
  'malformed/003': { attachments: LATER_TEXT },
  'malformed/004': { attachments: LATER_TEXT },
  'malformed/006': { attachments: LATER_TEXT },
  'malformed/007': { text: EMPTY_PART, attachments: EMPTY_PART },
  'malformed/008': { text: LATER_TEXT, attachments: LATER_TEXT },
  'malformed/009': { text: OPEN_MULTIPART, attachments: OPEN_MULTIPART },
  'malformed/011': { text: OPEN_MULTIPART, attachments: OPEN_MULTIPART },
  'malformed/012': { attachments: OPEN_MULTIPART },
  'malformed/016': { text: PREFIX_BOUNDARY, attachments: PREFIX_BOUNDARY },
  'malformed/017': { attachments: NO_SEPARATOR },
  'malformed/019': { text: EMPTY_TEXT, date: DAMAGED_DATE },
  'malformed/020': { text: REPEATED_TYPE },
  'malformed/021': { text: REPEATED_TYPE },
  'rfc/000': { attachments: NOT_BASE64 },
  'rfc/001': { attachments: NO_PATH },
};

/** The parts of Stalwart's JSON that are compared. */
interface Oracle {
  html_body: number[];
  text_body: number[];
  attachments: number[];
  parts: OraclePart[];
}
interface OraclePart {
  headers: { name: string | { other: string }; value: unknown }[];
  body: { Text?: string; Html?: string; Binary?: number[]; InlineBinary?: number[]; Message?: unknown };
  offset_body: number;
  offset_end: number;
}

type Fields = Record<string, unknown>;

test('our parse agrees with Stalwart’s but for the listed differences', async (context) => {
  const files = corpusFiles('stalwart-mail-parser/*/*.eml');
  context.skip(files.length === 0, MISSING_CORPUS);
  const found: Record<string, Record<string, { ours: unknown; theirs: unknown }>> = {};
  const counts = { messages: 0, fields: 0, differences: 0 };
  for (const file of files) {
    const raw = file.bytes();
    const name = file.name.replace(/^stalwart-mail-parser\/|\.eml$/g, '');
    const [json] = corpusFiles(file.name.replace('.eml', '.json'));
    const theirs = describeTheirs(JSON.parse((json?.bytes() ?? '').toString()) as Oracle, raw);
    const ours = await describeOurs(raw);
    counts.messages += 1;
    for (const [field, expected] of Object.entries(theirs)) {
      counts.fields += 1;
      if (JSON.stringify(ours[field]) === JSON.stringify(expected)) continue;
      counts.differences += 1;
      (found[name] ??= {})[field] = { ours: ours[field], theirs: expected };
    }
  }
  await context.annotate(JSON.stringify(counts));
  const unlisted = Object.entries(found).flatMap(([name, fields]) =>
    Object.entries(fields)
      .filter(([field]) => ACCEPTED[name]?.[field] === undefined)
      .map(([field, values]) => ({ name, field, ...values })),
  );
  const vanished = Object.entries(ACCEPTED).flatMap(([name, fields]) =>
    Object.keys(fields)
      .filter((field) => found[name]?.[field] === undefined)
      .map((field) => `${name} ${field}`),
  );
  expect({ unlisted, vanished }).toEqual({ unlisted: [], vanished: [] });
});

async function describeOurs(raw: Uint8Array): Promise<Fields> {
  const email = await parseMessage(raw);
  const attachments = [];
  for (const { index, filename, contentType } of email.attachments) {
    attachments.push({ filename, contentType, bytes: bodyText(await attachmentBytes(raw, index)) });
  }
  return {
    from: email.from === null ? [] : [email.from],
    to: email.to,
    cc: email.cc,
    'reply-to': email.replyTo,
    subject: email.subject,
    'message-id': email.messageId,
    references: email.references,
    date: email.date,
    text: trimmed(email.text),
    html: email.html === null ? null : trimmed(email.html),
    attachments,
  };
}

function describeTheirs(oracle: Oracle, raw: Buffer): Fields {
  const header = (name: string): unknown =>
    oracle.parts[0]?.headers.find((field) => field.name === name)?.value ?? 'Empty';
  const fields: Fields = {
    from: addressesOf(header('from')),
    to: addressesOf(header('to')),
    cc: addressesOf(header('cc')),
    'reply-to': addressesOf(header('reply_to')),
    subject: textOf(header('subject')) ?? '',
    'message-id': textOf(header('message_id')) === null ? null : `<${textOf(header('message_id'))}>`,
    date: dateOf(header('date')),
    attachments: oracle.attachments.map((index) => attachmentOf(oracle.parts[index], raw)),
  };
  const texts = oracle.text_body.map((index) => oracle.parts[index]?.body.Text);
  // Where one of them is HTML or an image, its text is the work of an HTML converter, not of a parser.
  if (texts.length > 0 && texts.every((text) => text !== undefined))
    fields['text'] = trimmed(texts.join('\n'));
  const htmls = oracle.html_body.map((index) => oracle.parts[index]?.body.Html);
  if (htmls.length > 0 && htmls.every((html) => html !== undefined))
    fields['html'] = trimmed(htmls.join('\n'));
  return fields;
}

function attachmentOf(part: OraclePart | undefined, raw: Buffer): Fields {
  if (!part) throw new Error('the oracle lists an attachment that is no part of it');
  const value = (
    name: string,
  ): { c_type?: string; c_subtype?: string; attributes?: { name: string; value: string }[] | null } => {
    const header = part.headers.find((field) => field.name === name)?.value;
    return (header as { ContentType?: object } | undefined)?.ContentType ?? {};
  };
  const attribute = (header: string, name: string): string | undefined =>
    value(header).attributes?.find((attr) => attr.name === name)?.value;
  const { c_type, c_subtype } = value('content_type');
  const isMessage = part.body.Message !== undefined;
  return {
    filename: attribute('content_disposition', 'filename') ?? attribute('content_type', 'name') ?? null,
    contentType:
      c_type === undefined ? (isMessage ? 'message/rfc822' : 'text/plain') : `${c_type}/${c_subtype}`,
    bytes: bodyText(isMessage ? messageBytes(part, raw) : bytesOf(part)),
  };
}

function bytesOf({ body }: OraclePart): Uint8Array {
  return Uint8Array.from(body.Binary ?? body.InlineBinary ?? Buffer.from(body.Text ?? body.Html ?? ''));
}

/** Of an attached message Stalwart gives the parse and where it lies, which is encoded where the part is. */
function messageBytes(part: OraclePart, raw: Buffer): Buffer {
  const bytes = raw.subarray(part.offset_body, part.offset_end);
  const encoding = part.headers.find((field) => field.name === 'content_transfer_encoding')?.value ?? 'Empty';
  return textOf(encoding) === 'base64' ? Buffer.from(bytes.toString(), 'base64') : bytes;
}

function addressesOf(value: unknown): { name: string; address: string }[] {
  const { List = [], Group = [] } =
    (value as { Address?: { List?: Addr[]; Group?: { addresses: Addr[] }[] } }).Address ?? {};
  return [...List, ...Group.flatMap((group) => group.addresses)]
    .filter((addr) => addr.address !== null)
    .map((addr) => ({ name: addr.name ?? '', address: addr.address ?? '' }));
}
interface Addr {
  name: string | null;
  address: string | null;
}

function textOf(value: unknown): string | null {
  return (value as { Text?: string }).Text ?? null;
}

function dateOf(value: unknown): string | null {
  const date = (value as { DateTime?: Record<string, number> & { tz_before_gmt: boolean } }).DateTime;
  if (!date) return null;
  const { year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, tz_hour = 0, tz_minute = 0 } = date;
  const offset = (tz_hour * 60 + tz_minute) * (date.tz_before_gmt ? -1 : 1);
  return new Date(Date.UTC(year, month - 1, day, hour, minute - offset, second)).toISOString();
}

/** Without line ends' differences and blank lines, which the two keep differently between and around parts. */
function trimmed(text: string): string {
  return text
    .split(/\r?\n/)
    .filter((line) => line.trim() !== '')
    .join('\n');
}

/** Bytes as text in which each byte is a character, without the differences of `trimmed`. */
function bodyText(bytes: Uint8Array): string {
  return trimmed(Buffer.from(bytes).toString('latin1'));
}
