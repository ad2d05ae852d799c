/**
 * Whom a reply goes to: one address or nobody; and whom else a tool may write to.
 *
 * The rule: the first valid address of Reply-To that is not ours, otherwise the one author in From. No From,
 * several authors, or an author that is one of us: nobody. To, Cc and Sender never get a reply, and neither
 * does whoever forwarded the mail. An address whose domain is a single label (`root@localhost`) names nobody
 * outside of the sender's own network, and no provider takes it.
 */
import { mailboxesOf } from './address-field.ts';
import { isOwnAddress, sendableAddress } from './address.ts';
import { headerValues } from './email.ts';
import type { Mailbox, ParsedEmail } from './email.ts';
import { oneLine } from './header-field.ts';
import { onceForEach } from '../platform/once-for-each.ts';

/** Reply-To addresses that are looked at; who lists more does not mean a person. */
const MAX_REPLY_TO = 50;
/** Of a name and an address together. */
const MAX_NAMED_CHARS = 1000;

/** The bare address that a reply goes to, with its domain in ASCII; null for nobody. */
export function replyRecipient(email: ParsedEmail, domains: readonly string[]): string | null {
  const author = email.from === null ? null : reachableAddress(email.from.address);
  if (author === null || hasSeveralAuthors(email) || isOwnAddress(author, domains)) return null;
  const wanted = email.replyTo.slice(0, MAX_REPLY_TO).map(({ address }) => reachableAddress(address));
  return wanted.find((address) => address !== null && !isOwnAddress(address, domains)) ?? author;
}

function reachableAddress(address: string): string | null {
  const sendable = sendableAddress(address);
  return sendable !== null && /@[^@]+\.[^@]+$/.test(sendable) ? sendable : null;
}

/** The bare address in `ann@example.net` or `Ann <ann@example.net>`; null where it is not exactly one that can be reached. */
export function namedRecipient(input: string): string | null {
  if (input.length > MAX_NAMED_CHARS || oneLine(input) !== input.trim()) return null;
  const bare = reachableAddress(input.trim());
  if (bare !== null) return bare;
  const [mailbox, ...others] = mailboxesOf(input);
  return mailbox === undefined || others.length > 0 ? null : reachableAddress(mailbox.address);
}

/** True for several From fields (RFC 5322 §3.6 allows one), and for one that names several authors or not exactly one. */
export function hasSeveralAuthors(email: ParsedEmail): boolean {
  const authors = authorsOf(email);
  const isOneField = headerValues(email, 'from').length <= 1;
  return !isOneField || authors.length > 1 || authors.some(({ address }) => address === '');
}

/** Everybody in From. */
export const authorsOf = onceForEach((email: ParsedEmail): readonly Mailbox[] =>
  headerValues(email, 'from').flatMap(mailboxesOf),
);

/** The addresses in the undecoded value of an address field, as written. */
export function addressesOf(field: string): string[] {
  return mailboxesOf(field).flatMap(({ address }) => (address ? [address] : []));
}
