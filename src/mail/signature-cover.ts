/**
 * What a DKIM signature covers of what is read. A signature holds for the fields that it names, the last of each name,
 * and for the bytes behind the header; anybody may add, change and take away the rest, and whoever reads the mail
 * with another parser may see another header. So of a mail that is proven
 * - the header is one that everybody reads alike: `headerFault`;
 * - Subject, Reply-To, In-Reply-To and References, where there are any, are signed: `coverFault`. They decide what is said,
 *   who is answered, and to which question the mail is the answer;
 * - Content-Type and Content-Transfer-Encoding, where they are not signed, are those that the signed body itself bears
 *   out: `coverFault`. Gmail, Yahoo and Proton do not sign the one; Microsoft, Apple, Yahoo and Proton not the other.
 *
 * What else may be missing is harmless: to whom a mail is addressed (Microsoft does not sign To, Apple not Cc) says not
 * who gets it, Date and Message-ID decide nothing, MIME-Version is not looked at. Microsoft and Apple never sign
 * In-Reply-To and References: every reply of theirs would be unproven, so theirs prove no conversation.
 * docs/adr/0047 has the table of what the large providers sign.
 */
import { headerValues } from './email.ts';
import type { ParsedEmail } from './email.ts';

type Fields = Pick<ParsedEmail, 'headers'>;

/** The header as the verifier has read it. */
export interface VerifiedHeader {
  readonly parsed: readonly { readonly key: string; readonly line: Buffer }[];
  readonly original: Uint8Array;
}

export interface RawParts {
  /** With the line end of its last field. */
  readonly head: Buffer;
  readonly body: Buffer;
}

/** Fields that may stand once (RFC 5322 3.6, RFC 2045). */
const SINGLE_FIELDS = [
  'from',
  'sender',
  'reply-to',
  'to',
  'cc',
  'subject',
  'date',
  'message-id',
  'in-reply-to',
  'references',
  'mime-version',
  'content-type',
  'content-transfer-encoding',
];
const THREAD_FIELDS = ['in-reply-to', 'references'];
const SIGNED_FIELDS = ['from', 'subject', 'reply-to', ...THREAD_FIELDS];
/** In `h=` of Microsoft's and Apple's signatures, where nobody else can put them: what names them is signed. */
const SIGNS_NO_THREAD = ['x-ms-exchange-senderadcheck', 'x-icloud-hme'];

/** Of the beginning and the end of a body, to see how it is divided. */
const EDGE_BYTES = 4096;
/** One grammar that all parsers share: no comments, no continuations. */
const PARAMETER = /;\s*([a-z-]+)\s*=\s*(?:"([^"\\]*)"|([^\s;"()\\]+))\s*/gi;
const PLAIN_TYPE = /^\s*(?!multipart\/)[a-z]+\/[\w.+-]+\s*(?:;|$)/i;
const HTML_TYPE = /^\s*text\/html\b/i;
const IDENTITY = ['', '7bit', '8bit', 'binary'];
/** `=0A` in a text is no line end that an encoder writes, but one that somebody got quoted. */
const NO_QUOTED_PRINTABLE = /=(?!\r?\n|[0-9A-F]{2})|=0[AD]/i;
const BASE64_BODY = /^[A-Za-z0-9+/=\r\n]*$/;

/** Where a message is divided: behind its first empty line. */
export function partsOf(raw: Uint8Array): RawParts {
  const bytes = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength);
  const ends = ['\n\n', '\n\r\n'].map((end) => ({ at: bytes.indexOf(end), length: end.length }));
  const [first] = ends.filter(({ at }) => at >= 0).toSorted((a, b) => a.at - b.at);
  if (!first) return { head: bytes, body: bytes.subarray(bytes.length) };
  return { head: bytes.subarray(0, first.at + 1), body: bytes.subarray(first.at + first.length) };
}

/** Why this header may be read in another way than it was verified; null where it cannot. */
export function headerFault({ parsed, original }: VerifiedHeader, fields: Fields): string | null {
  // Other parsers take such a line for the end of the header, or for two.
  if (/\r(?!\n)/.test(Buffer.from(original).toString('latin1'))) return 'its header has a CR without LF';
  for (const name of SINGLE_FIELDS) {
    const verified = parsed.filter(({ key }) => key === name).length;
    const read = headerValues(fields, name).length;
    if (verified > 1 || read > 1) return `it has several ${name} fields`;
    if (read > verified) return `its ${name} field can be read in two ways`;
  }
  return null;
}

/** Why the signature (a line of the header) leaves open what is read; null where it does not. */
export function coverFault(
  signature: Buffer | undefined,
  header: VerifiedHeader,
  { body }: RawParts,
): string | null {
  const names = signedNames(signature);
  const valueOf = (name: string): string | undefined =>
    valueIn(header.parsed.find(({ key }) => key === name)?.line);
  const isOpen = (name: string): boolean => valueOf(name) !== undefined && !names.includes(name);
  const signsNoThread = SIGNS_NO_THREAD.some((name) => names.includes(name));
  const open = SIGNED_FIELDS.find((name) => isOpen(name) && !(signsNoThread && THREAD_FIELDS.includes(name)));
  if (open !== undefined) return `its signature does not cover its ${open} field`;

  const type = valueOf('content-type') ?? 'text/plain';
  const encoding = (valueOf('content-transfer-encoding') ?? '').toLowerCase();
  const isTypeSigned = names.includes('content-type');
  const isMultipart = boundaryIn(type) !== null;
  const isEncodingSigned = names.includes('content-transfer-encoding') || isMultipart;
  if (!isEncodingSigned && !isEncodedAs(encoding, { body, isTypeSigned }))
    return 'its signature does not cover its content-transfer-encoding field';
  if (!isTypeSigned && !isOfType(type, { body, encoding }))
    return 'its signature does not cover its content-type field';
  return null;
}

/** What is behind the name, on one line. */
function valueIn(line: Buffer | undefined): string | undefined {
  const text = line?.toString('latin1');
  return text
    ?.slice(text.indexOf(':') + 1)
    .replace(/\r?\n/g, '')
    .trim();
}

/** The names in `h=`, in lower case. */
function signedNames(signature: Buffer | undefined): string[] {
  const [, list = ''] = /(?:^|;)\s*h\s*=([^;]*)/.exec(valueIn(signature) ?? '') ?? [];
  return list.split(':').map((name) => name.trim().toLowerCase());
}

/** Of a multipart type; null for another, and for one that parsers may read differently. */
function boundaryIn(type: string): string | null {
  const [, parameters] = /^\s*multipart\/[a-z]+\s*(;.*)$/i.exec(type) ?? [];
  if (parameters === undefined || parameters.replace(PARAMETER, '').trim() !== '') return null;
  const found = Array.from(parameters.matchAll(PARAMETER)).filter(
    ([, name]) => name?.toLowerCase() === 'boundary',
  );
  return found.length === 1 ? (found[0]![2] ?? found[0]![3] ?? null) : null;
}

/** A body that begins with a delimiter and ends with its end has one boundary, and is nothing else. */
function boundaryOfBody(body: Buffer): string | null {
  const start = body.subarray(0, EDGE_BYTES).toString('latin1').split('\n');
  // What mail programs write before it: `This is a multi-part message in MIME format.`
  const first = start.find((line) => line.trim() !== '' && !/\bMIME\b/.test(line))?.trimEnd() ?? '';
  const end = body.subarray(-EDGE_BYTES).toString('latin1').trimEnd();
  return first.length > 2 && first.startsWith('--') && end.endsWith(`\n${first}--`) ? first.slice(2) : null;
}

function isOfType(type: string, { body, encoding }: { body: Buffer; encoding: string }): boolean {
  const boundary = boundaryOfBody(body);
  if (boundary !== null) return boundaryIn(type) === boundary;
  if (!PLAIN_TYPE.test(type)) return false;
  if (!HTML_TYPE.test(type)) return true;
  const start = body.subarray(0, EDGE_BYTES).toString('latin1');
  return /^\s*</.test(encoding === 'base64' ? Buffer.from(start, 'base64').toString('latin1') : start);
}

function isEncodedAs(
  encoding: string,
  { body, isTypeSigned }: { body: Buffer; isTypeSigned: boolean },
): boolean {
  if (IDENTITY.includes(encoding)) return true;
  if (encoding === 'quoted-printable') return !NO_QUOTED_PRINTABLE.test(body.toString('latin1'));
  // The text could be anything: that the mail was sent as one, at least the type has to say.
  return encoding === 'base64' && isTypeSigned && BASE64_BODY.test(body.toString('latin1'));
}
