/**
 * Whether an email may be answered at all: no machine is (RFC 3834 §2), nor is anything of our own.
 *
 * The guard looks at one email and knows no history: caps per sender, thread and day, which stop a responder
 * that hides what it is, are somebody else's. When in doubt it is silent, because a reply that is missing
 * is noticed by one person and a loop by everybody.
 */
import { isOwnAddress, normaliseAddress } from './address.ts';
import { headerValues } from './email.ts';
import type { ParsedEmail } from './email.ts';
import { addressesOf, authorsOf, hasSeveralAuthors, replyRecipient } from './recipient.ts';

/** Every reply of ours carries it; its value is the inbox, percent-encoded. */
export const MARKER_HEADER = 'X-Millrace';

/**
 * Why there is no reply. Stable: it stands in records and in the documentation.
 *
 * - `own-marker`: a reply of ours, or of another Millrace, came back
 * - `own-address`: the author, sender or return path is on one of our domains
 * - `delivery-report`: a bounce, a read receipt, or a feedback report
 * - `auto-submitted`: it says itself that no person sent it
 * - `auto-response-suppress`: its sender wants no automatic response
 * - `mailing-list`: it came over a list, or names one as its return path
 * - `bulk-precedence`: bulk, list or junk mail
 * - `null-return-path`: the envelope names nobody to answer
 * - `system-sender`: the address of a mail system, or one that nobody reads
 * - `several-authors`: it is not clear who would get the reply
 * - `no-sender`: there is no author, or not exactly one valid address of one
 */
export type NoReplyReason =
  | 'own-marker'
  | 'own-address'
  | 'delivery-report'
  | 'auto-submitted'
  | 'auto-response-suppress'
  | 'mailing-list'
  | 'bulk-precedence'
  | 'null-return-path'
  | 'system-sender'
  | 'several-authors'
  | 'no-sender';

interface Own {
  domains: readonly string[];
  /** The address of the inbox that got the email. */
  address: string;
}

/** An email with what more than one check asks of it. */
interface Seen {
  email: ParsedEmail;
  own: Own;
  /** Null where there is no such field. */
  returnPath: string | null;
  /** The author, and every address in From; as written. */
  authors: readonly string[];
  /** Whom a reply would go to. */
  recipient: string | null;
}

type Check = (seen: Seen) => boolean;

/** In the order of what they tell: the first that applies is the reason. */
const checks: readonly (readonly [NoReplyReason, Check])[] = [
  ['own-marker', ({ email }) => headerValues(email, MARKER_HEADER.toLowerCase()).length > 0],
  ['own-address', isOurOwn],
  ['delivery-report', isReport],
  ['auto-submitted', isAutoSubmitted],
  ['auto-response-suppress', suppressesResponses],
  ['mailing-list', isListMail],
  ['bulk-precedence', ({ email }) => headerValues(email, 'precedence').some((value) => BULK.test(value))],
  ['null-return-path', ({ returnPath }) => returnPath === ''],
  ['system-sender', isFromSystem],
  ['several-authors', ({ email }) => hasSeveralAuthors(email)],
  ['no-sender', ({ recipient }) => recipient === null],
];

/** Why this email gets no reply, or null if it may get one. */
export function noReplyReason(email: ParsedEmail, own: Own): NoReplyReason | null {
  const seen: Seen = {
    email,
    own,
    returnPath: returnPathOf(email),
    authors: [email.from?.address ?? '', ...authorsOf(email).map(({ address }) => address)],
    recipient: replyRecipient(email, own.domains),
  };
  return checks.find(([, applies]) => applies(seen))?.[0] ?? null;
}

function isOurOwn({ email, own, authors, returnPath }: Seen): boolean {
  const senders = [...authors, returnPath ?? '', ...headerValues(email, 'sender').flatMap(addressesOf)];
  const ownAddress = normaliseAddress(own.address);
  return senders.some((sender) => {
    const address = normaliseAddress(sender);
    return isOwnAddress(sender, own.domains) || (address !== null && address === ownAddress);
  });
}

/** RFC 6522 (all kinds of report), and the field with which Exim and Google name who was not reached. */
function isReport({ email }: Seen): boolean {
  const isReportType = headerValues(email, 'content-type').some((value) => REPORT_TYPE.test(value));
  return isReportType || headerValues(email, 'x-failed-recipients').length > 0;
}

const REPORT_TYPE =
  /^\s*(?:multipart\/report|message\/(?:global-)?(?:delivery-status|disposition-notification)|message\/feedback-report)\b/i;

/**
 * RFC 3834 §5: a keyword, perhaps with comments and parameters; only `no` means a person, and what is empty
 * or cannot be read does not. The other fields are what responders sent before there was that one.
 */
function isAutoSubmitted({ email }: Seen): boolean {
  const isDeclared = headerValues(email, 'auto-submitted').some((value) => !NOT_AUTOMATIC.test(value));
  const isMarked = RESPONDER_VALUES.some(([name, says]) =>
    headerValues(email, name).some((value) => says.test(value)),
  );
  return isDeclared || isMarked || RESPONDER_FIELDS.some((name) => headerValues(email, name).length > 0);
}

const NOT_AUTOMATIC = /^\s*(?:\([^()]*\)\s*)?no\s*(?:[;(]|$)/i;
const RESPONDER_FIELDS = [
  'x-autoreply',
  'x-autorespond',
  'x-autoresponder',
  'x-autogenerated',
  'x-mail-autoreply',
  'x-autoreply-from',
  'x-auto-reply-from',
];
/** Fields that people have, too, with what only responders write there. */
const RESPONDER_VALUES: readonly (readonly [string, RegExp])[] = [
  ['x-fc-machinegenerated', /^\s*true\b/i],
  ['x-post-messageclass', /\bautoresponder\b/i],
  ['delivered-to', /^\s*autoresponder\s*$/i],
  ['preference', /^\s*auto[-_]reply\b/i],
];

/** [MS-OXCMAIL] 2.2.3.2.14; the other values (`DR`, `RN`, `NRN`) are about reports, not responses. */
function suppressesResponses({ email }: Seen): boolean {
  return headerValues(email, 'x-auto-response-suppress').some((value) =>
    /(?:^|[\s,;])(?:all|autoreply|oof)(?:$|[\s,;])/i.test(value),
  );
}

function isListMail({ email, returnPath }: Seen): boolean {
  const hasListField = email.headers.some(([name]) => /^(?:list-.+|(?:x-)?mailing-list)$/i.test(name));
  return hasListField || LIST_ADDRESS.test(returnPath ?? '');
}

/** RFC 3834 §2: a responder must not answer these. */
const LIST_ADDRESS = /^owner-|-request@/i;
const BULK = /^\s*(?:bulk|list|junk|auto[-_]reply)\b/i;

/**
 * The address of the topmost Return-Path field: the last server wrote it, what stands below was there before.
 * Empty for `<>` (RFC 5321 §4.5.5); null where there is no such field, which is no reason to be silent: a bounce says `<>`,
 * the local mailbox has no envelope, and whether a provider writes the field at all is its own affair. To take its lack
 * for a machine's mail would be to answer nobody there.
 */
function returnPathOf(email: ParsedEmail): string | null {
  const field = headerValues(email, 'return-path')[0];
  return field?.replace(/\([^()]*\)/g, '').replace(/[<>\s]/g, '') ?? null;
}

/** The author or whoever would get the reply; of the return path only what can be nothing but a mail system. */
function isFromSystem({ authors, recipient, returnPath }: Seen): boolean {
  // Normalised ones are short, which bounds the time that these expressions can take.
  const addresses = [...authors, recipient ?? ''].map((address) => normaliseAddress(address) ?? '');
  const isSystem = addresses.some((address) => SYSTEM.test(address) || NOT_READ.test(address));
  return isSystem || /^(?:mailer-daemon|postmaster)(?:@|$)/i.test(returnPath ?? '');
}

/** `bounce-` is a bounce's address where a number or somebody's address follows: a `bounce-house` is rented by people. */
const SYSTEM =
  /^(?:mailer-?daemon|postmaster|owner-[^@]*|[^@]*-request|(?:[^@]*-)?(?:bounces?(?:[_+=\d][^@]*|[-.][^@]*[\d+=][^@]*)?|bounces[-.][^@]*))(?:\+[^@]*)?@/i;
const NOT_READ = /^(?:[^@]*[-_.+])?(?:no|not|dont|do[-_.]?not)[-_.]?reply(?![a-z])[^@]*@/i;
