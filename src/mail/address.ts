/**
 * Addresses, and which inbox of ours one names.
 *
 * An address that leaves this file is normalised: NFC, lower case, its domain in ASCII (punycode), so that
 * twins are equal as strings. What is not exactly one plain address gives null; it is never repaired.
 * An inbox name is what may stand in a stream's name: letters, digits, `.`, `_` and `-`, beginning with a
 * letter or digit. So `../outbox`, `a/b`, `%2e%2e` and `__proto__` name no inbox; `constructor` does, as any
 * other word, and whoever looks a name up must do so among its own properties only.
 * The grammar of address lists is `address-field.ts`'s.
 */
import { domainToASCII } from 'node:url';
import { mailboxesOf } from './address-field.ts';

/** RFC 5321 §4.5.3.1.3: a path is at most 256 octets with its angle brackets. */
const MAX_ADDRESS_OCTETS = 254;
/** RFC 5321 §4.5.3.1.1 */
const MAX_INBOX_OCTETS = 64;
/** Inboxes of ours that one email is for. */
const MAX_RECIPIENTS = 1000;
/** Of all that are named, whoever they are; as many take a fifth of a second. */
const MAX_NAMED = 20_000;
/** Of one entry that is not a bare address. */
const MAX_LIST_CHARS = 4096;

/** RFC 5322 dot-atom with RFC 6532's letters. Quoted local parts are refused: nothing real needs them. */
const LOCAL_PART =
  /^(?:[\w!#$%&'*+/=?^`{|}~-]|[^\p{ASCII}\p{C}\p{Z}])+(?:\.(?:[\w!#$%&'*+/=?^`{|}~-]|[^\p{ASCII}\p{C}\p{Z}])+)*$/u;
/** What `domainToASCII` may see: it would cut at `/`, `?` and `#`, drop tabs and decode `%41`. */
const DOMAIN_INPUT = /^(?:[a-z0-9.-]|[^\p{ASCII}\p{C}\p{Z}])+$/iu;
/** Labels of letters, digits and inner hyphens, the last of which is no number (that would be an IP address). */
const DOMAIN =
  /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*(?!\d+$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
/** What `domainToASCII` would leave as it is: no capital, no punycode label to check, no number that could be an IP address. */
const PLAIN_DOMAIN = /^(?!(?:.*\.)?xn--)[a-z0-9.-]+\.[a-z]+$/;
const INBOX = /^[\p{L}\p{N}][\p{L}\p{M}\p{N}._-]*$/u;
/** `inbox/unrouted` is where mail for no tool lies; an inbox of that name would be mixed up with it. */
const RESERVED_INBOX = 'unrouted';

/** An address of ours. */
export interface Recipient {
  /** The local part without its tag; null where it can name no inbox: that mail belongs to `inbox/unrouted`. */
  inbox: string | null;
  /** `news` of `inbox+news@…`. */
  tag: string | null;
  /** Normalised; of an unroutable one, as much of it as is fit to be shown. */
  address: string;
}

/** A domain in lower-case ASCII, or null where it is none. `MÜNCHEN.de` and `xn--mnchen-3ya.de` are equal. */
export function normaliseDomain(input: string): string | null {
  if (input.length > MAX_ADDRESS_OCTETS || !DOMAIN_INPUT.test(input)) return null;
  const domain = PLAIN_DOMAIN.test(input) ? input : domainToASCII(input);
  return DOMAIN.test(domain) ? domain : null;
}

/** A bare address (`local@domain`), normalised; null where the input is not exactly one. */
export function normaliseAddress(input: string): string | null {
  const address = sendableAddress(input);
  if (address === null) return null;
  const at = address.lastIndexOf('@');
  return `${foldCase(address.slice(0, at))}${address.slice(at)}`;
}

/**
 * The same address as one to write to: the local part keeps its case, which is its owner's to interpret
 * (RFC 5321 §2.4). Null where the input is not exactly one address.
 */
export function sendableAddress(input: string): string | null {
  const at = input.lastIndexOf('@');
  const domain = normaliseDomain(input.slice(at + 1));
  if (at < 1 || domain === null || input.length > MAX_ADDRESS_OCTETS) return null;
  // Normalised first: the Greek question mark becomes a semicolon.
  const local = input.slice(0, at).normalize('NFC');
  if (!local.isWellFormed() || !LOCAL_PART.test(local)) return null;
  const address = `${local}@${domain}`;
  return Buffer.byteLength(address) <= MAX_ADDRESS_OCTETS ? address : null;
}

/** The inbox that a bare address names; null where its domain is not one of ours. */
export function inboxOf(address: string, domains: readonly string[]): Recipient | null {
  const at = address.lastIndexOf('@');
  const domain = normaliseDomain(address.slice(at + 1).trim());
  if (at < 0 || domain === null || !isAmong(domain, domains)) return null;
  const normalised = normaliseAddress(address.trim());
  const local = normalised?.slice(0, normalised.lastIndexOf('@')) ?? '';
  const [name = '', ...tag] = local.split('+');
  if (normalised === null || !isInboxName(name)) {
    return { inbox: null, tag: null, address: showable(address) };
  }
  return { inbox: name, tag: tag.join('+') || null, address: normalised };
}

/** The inbox names that a tool of this name serves: `dailyReport` serves `daily-report` and `dailyreport`. */
export function toolInboxNames(exportName: string): string[] {
  if (exportName.length > MAX_INBOX_OCTETS) return [];
  const hyphenated = exportName.replace(/(?<=\p{Lu})(?=\p{Lu}\p{Ll})|(?<=[\p{Ll}\p{N}])(?=\p{Lu})/gu, '-');
  return [...new Set([hyphenated, exportName].map(foldCase))].filter(isInboxName);
}

/**
 * The inboxes of ours that an email is for, in order and each once, at the first of its addresses. The
 * envelope (`receivedFor`) decides; only without one do To, Cc and Bcc. Entries are bare addresses or,
 * with angle brackets, anything that an address field may hold. At most 1000 are given, of the first 20,000 that are named.
 */
export function routeRecipients(
  lists: {
    receivedFor?: readonly string[] | undefined;
    to?: readonly string[] | undefined;
    cc?: readonly string[] | undefined;
    bcc?: readonly string[] | undefined;
  },
  domains: readonly string[],
): Recipient[] {
  const envelope = (lists.receivedFor ?? []).filter((entry) => entry.trim() !== '');
  const entries =
    envelope.length > 0 ? envelope : [lists.to, lists.cc, lists.bcc].flatMap((list) => list ?? []);
  const found = new Map<string, Recipient>();
  for (const address of entries.slice(0, MAX_NAMED).flatMap(addressesIn).slice(0, MAX_NAMED)) {
    if (found.size >= MAX_RECIPIENTS) break;
    const recipient = inboxOf(address, domains);
    // No inbox name holds an `@`, so the two kinds of key cannot meet.
    const key = recipient?.inbox ?? `@${recipient?.address}`;
    if (recipient && !found.has(key)) found.set(key, recipient);
  }
  return [...found.values()];
}

/** True for an address whose domain is one of ours. */
export function isOwnAddress(address: string, domains: readonly string[]): boolean {
  return inboxOf(address, domains) !== null;
}

/** Providers name one address an entry: only brackets show that it is more, and no local part may pass for a list. */
const BRACKETED = /<[^<>]*>/;

function addressesIn(entry: string): string[] {
  if (!BRACKETED.test(entry)) return [entry];
  return mailboxesOf(entry.slice(0, MAX_LIST_CHARS)).map(({ address }) => address);
}

function isAmong(domain: string, domains: readonly string[]): boolean {
  return domains.some((own) => normaliseDomain(own) === domain);
}

function isInboxName(name: string): boolean {
  const isSafe = INBOX.test(name) && !name.includes('..') && !name.endsWith('.');
  return isSafe && Buffer.byteLength(name) <= MAX_INBOX_OCTETS && name !== RESERVED_INBOX;
}

/** NFC comes last, because lowering can take a letter apart: `İ` becomes a letter and a mark. */
function foldCase(text: string): string {
  return text.toLowerCase().normalize('NFC');
}

function showable(address: string): string {
  return address
    .replace(/[\p{C}\p{Z}]+/gu, ' ')
    .slice(0, MAX_ADDRESS_OCTETS)
    .toWellFormed();
}
