/**
 * Who may write to a tool: its settings `from` and `unauthenticated`, held against what the raw message proves.
 *
 * Proof is looked for when somebody asks, the settings or the tool, and not for every mail: it takes the DNS. While that
 * does not say, the run is tried again later (`authentication.dns_failed`); an email is never refused, and never let
 * in, for what nobody could look up.
 */
import { Resolver } from 'node:dns/promises';
import { normaliseAddress, normaliseDomain } from '../mail/address.ts';
import { recordNames } from '../mail/authentication.ts';
import type { Authentication, TextRecords } from '../mail/authentication.ts';
import type { ParsedEmail } from '../mail/email.ts';
import type { MailWork } from '../mail/mail-work.ts';

/** The TXT records of a name, none where there are none. Rejects where nobody could tell. */
export type LookUpText = (name: string) => Promise<string[]>;

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

const NO_RECORDS = new Set(['ENOTFOUND', 'ENODATA', 'EBADNAME']);
const LOOK_UP_TIMEOUT_MS = 2_000;
const LOOK_UP_TRIES = 2;

/** @param servers addresses of DNS servers; none: the system's */
export function createTextLookup(servers: readonly string[]): LookUpText {
  const resolver = new Resolver({ timeout: LOOK_UP_TIMEOUT_MS, tries: LOOK_UP_TRIES });
  if (servers.length > 0) resolver.setServers(servers);
  return async (name) => {
    try {
      const records = await resolver.resolveTxt(name);
      return records.map((parts) => parts.join(''));
    } catch (error) {
      if (NO_RECORDS.has((error as NodeJS.ErrnoException).code ?? '')) return [];
      throw error;
    }
  };
}

export function createSenderAuthentication(deps: {
  mailWork: MailWork;
  lookUp: LookUpText;
}): AuthenticateSender {
  const found = async (name: string): Promise<[string, TextRecords]> => {
    try {
      return [name, await deps.lookUp(name)];
    } catch {
      return [name, 'failed'];
    }
  };
  return async (email, { raw, receivedMs, inbox }) => {
    const records = Object.fromEntries(await Promise.all(recordNames(email).map(found)));
    const fields = { headers: email.headers };
    return deps.mailWork.authenticate({ raw, fields, records, receivedMs }, inbox);
  };
}

/** Null where the tool may run. @throws what `authenticate` throws */
export async function senderRefusal(
  { from, unauthenticated }: SenderRule,
  email: ParsedEmail,
  authenticate: () => Promise<Authentication>,
): Promise<SenderRefusal | null> {
  if (from !== null && !isAmong(from, email)) return { kind: 'skip', reason: 'sender-not-allowed' };
  if (unauthenticated === 'run') return null;
  const authentication = await authenticate();
  if (authentication.result === 'pass') return null;
  if (unauthenticated === 'park') return { kind: 'park', authentication };
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
