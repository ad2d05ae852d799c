/**
 * Who may write to a tool: its settings `from` and `unauthenticated`, held against what the raw message proves.
 *
 * Proof is looked for when somebody asks, the settings or the tool, and not for every mail: it takes the DNS. While that
 * does not say, the run is tried again (`authentication.dns_failed`), for about a minute, because it holds the
 * conversation that its sender named. Then it counts as not proven: a tool that asks is told so, and where the settings ask,
 * the mail is parked. None is skipped, and none let in, for what nobody could look up.
 */
import { normaliseAddress, normaliseDomain } from '../mail/address.ts';
import { recordNames } from '../mail/authentication.ts';
import type { Authentication, TextRecords } from '../mail/authentication.ts';
import type { ParsedEmail } from '../mail/email.ts';
import type { MailWork } from '../mail/mail-work.ts';
import type { Clock } from '../platform/clock.ts';
import { createSparingLookup } from './sender-lookups.ts';
import type { LookUpText } from './sender-lookups.ts';
import type { Proof } from './sender-proofs.ts';

export type AuthenticateSender = (
  email: ParsedEmail,
  message: { raw: Uint8Array; receivedMs: number; inbox: string },
) => Promise<Authentication>;

export interface SenderRule {
  /** Addresses and `@domains` that may write, as `senderEntry` gives them; null: everybody. */
  readonly from: readonly string[] | null;
  readonly unauthenticated: 'run' | 'skip' | 'park';
}

/** What becomes of a mail that its tool is not to see; stable, it stands in records. */
export type SenderRefusal =
  | { readonly kind: 'skip'; readonly reason: 'sender-not-allowed' | 'sender-unauthenticated' }
  | { readonly kind: 'park'; readonly authentication: Authentication };

export function createSenderAuthentication(deps: {
  mailWork: MailWork;
  lookUp: LookUpText;
  clock: Clock;
}): AuthenticateSender {
  const lookUp = createSparingLookup(deps);
  const found = async (name: string): Promise<[string, TextRecords]> => [name, await lookUp(name)];
  return async (email, { raw, receivedMs, inbox }) => {
    const records = Object.fromEntries(await Promise.all(recordNames(email).map(found)));
    const fields = { headers: email.headers };
    return deps.mailWork.authenticate({ raw, fields, records, receivedMs }, inbox);
  };
}

/** Null where the tool may run. @throws what `prove` throws */
export async function senderRefusal(
  { from, unauthenticated }: SenderRule,
  email: ParsedEmail,
  prove: () => Promise<Proof>,
): Promise<SenderRefusal | null> {
  if (from !== null && !isAmong(from, email)) return { kind: 'skip', reason: 'sender-not-allowed' };
  if (unauthenticated === 'run') return null;
  const { authentication, isDecided } = await prove();
  if (authentication.result === 'pass') return null;
  if (unauthenticated === 'park' || !isDecided) return { kind: 'park', authentication };
  return { kind: 'skip', reason: 'sender-unauthenticated' };
}

/** An address, or a domain with its `@`, normalised; null where it is neither. */
export function senderEntry(entry: string): string | null {
  if (!entry.startsWith('@')) return normaliseAddress(entry);
  const domain = normaliseDomain(entry.slice(1));
  return domain === null ? null : `@${domain}`;
}

function isAmong(from: readonly string[], email: ParsedEmail): boolean {
  const author = normaliseAddress(email.from?.address ?? '');
  if (author === null) return false;
  const domain = author.slice(author.lastIndexOf('@'));
  return from.some((entry) => entry === author || entry === domain);
}
