/**
 * Whether the author of an email proved to be who it says: computed from the raw message by `mailauth`, never read from
 * a header of it, which anyone can write.
 *
 * Proof is a DKIM signature that verifies, covers the whole body and what is read of the header (`signature-cover.ts`),
 * and is of a domain that DMARC (RFC 9989) aligns with that of From. SPF proves nothing here: the sender's connection was
 * the provider's, and is gone. A message with two fields of a name that may stand once is not proven, because a
 * signature covers one of them and a reader may show the other: they are counted where the verifier reads them.
 *
 * No I/O: which DNS records it takes, `recordNames` says; whoever asks for them hands in what there was.
 */
import { MillraceError } from '../platform/errors.ts';
import { mailboxesOf } from './address-field.ts';
import { normaliseDomain } from './address.ts';
import { headerValues } from './email.ts';
import type { ParsedEmail } from './email.ts';
import { coverFault, headerFault, partsOf } from './signature-cover.ts';
import type { RawParts } from './signature-cover.ts';

export interface Authentication {
  /** `none`: nobody signed it. */
  readonly result: 'pass' | 'fail' | 'none';
  /** Of the author, in lower-case ASCII; null where there is not exactly one. */
  readonly domain: string | null;
  /** For a person: which signature counts, or why none does. */
  readonly reason: string;
}

/** The TXT records of a name; `failed` where nobody could tell. */
export type TextRecords = readonly string[] | 'failed';

export interface SignedMessage {
  readonly raw: Uint8Array;
  /** What `parseMessage` made of it. */
  readonly fields: Pick<ParsedEmail, 'headers'>;
  /** By name; what is missing does not exist. */
  readonly records: Readonly<Record<string, TextRecords>>;
  /** When it came: a signature may expire. */
  readonly receivedMs: number;
}

/** Each costs a hash of the whole body, and a look at the DNS; honest mail has one to three. */
const MAX_SIGNATURES = 8;
/** As much as is parsed of any header. */
const MAX_HEAD_BYTES = 1024 * 1024;
const SIGNATURE_FIELD = /^dkim-signature[ \t\r\n]*:/gim;
/** RFC 9989 4.10: a walk begins at seven labels when there are more than that. */
const WALK_LABELS = 7;
const HOST_NAME = /^[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?$/i;

/** The names whose TXT records tell: of keys, and of DMARC policies up the tree. At most some hundred. */
export function recordNames(email: Pick<ParsedEmail, 'headers'>): string[] {
  const signatures = headerValues(email, 'dkim-signature');
  if (signatures.length === 0 || signatures.length > MAX_SIGNATURES) return [];
  const tags = signatures.map((value) => ({
    domain: normaliseDomain(tagIn(value, 'd')),
    selector: tagIn(value, 's'),
  }));
  const author = authorDomain(email);
  const domains = [author, ...tags.map(({ domain }) => domain)].filter((domain) => domain !== null);
  const keys = tags.map(({ domain, selector }) => `${selector}._domainkey.${domain}`);
  const policies = domains.flatMap(walkOf).map((domain) => `_dmarc.${domain}`);
  return [...new Set([...keys, ...policies])].map((name) => name.toLowerCase()).filter(isName);
}

/** @throws MillraceError `authentication.dns_failed` (transient) where it depends on a record that nobody could get */
export async function authenticate(message: SignedMessage): Promise<Authentication> {
  const parts = partsOf(message.raw);
  if (parts.head.length > MAX_HEAD_BYTES) return failed(null, 'its header is too large');
  // Counted here, because `fields` has only as many as are kept.
  const signatures = parts.head.toString('latin1').match(SIGNATURE_FIELD)?.length ?? 0;
  if (signatures === 0) return { result: 'none', domain: null, reason: 'it is not signed' };
  if (signatures > MAX_SIGNATURES) return failed(null, `it has more than ${MAX_SIGNATURES} signatures`);
  return verified(message, parts);
}

/** What counts of an email whose signature the DNS did not say enough of, for as long as anybody waits. */
export function undecided(email: Pick<ParsedEmail, 'headers'>): Authentication {
  const domain = authorDomain(email);
  return failed(domain, `temperror: the DNS does not say whether ${domain ?? 'its author'} signed it`);
}

async function verified(
  { raw, fields, records, receivedMs }: SignedMessage,
  parts: RawParts,
): Promise<Authentication> {
  const { dkimVerify, evaluateDmarc } = await verifier();
  const resolver = resolverOf(records);
  const common = { resolver: resolver.resolve, strict: true };
  const { results, headerFrom, fromFields, headers } = await dkimVerify(Buffer.from(raw), {
    ...common,
    curTime: new Date(receivedMs),
  });
  if (!headers) return failed(null, 'its header cannot be read');
  const unclear = headerFault(headers, fields);
  if (unclear !== null) return failed(null, unclear);
  // In strict mode there is one result a signature, in their order.
  const signatures = headers.parsed.filter(({ key }) => key === 'dkim-signature');
  const judged = results.map((result, index) => ({
    result,
    fault: faultOf(result) ?? coverFault(signatures[index]?.line, headers, parts),
  }));
  const sound = judged.flatMap(({ result, fault }) => (fault === null ? [result] : []));
  const { response, dkimAligned, reason } = await evaluateDmarc({
    ...common,
    headerFrom,
    fromFields,
    spfDomains: [],
    dkimDomains: sound.map(({ id, signingDomain, status }) => ({
      ...(id !== undefined && { id }),
      domain: signingDomain ?? '',
      aligned: status.aligned ?? false,
    })),
  });
  const domain = normaliseDomain(headerFrom[0]?.split('@').at(-1) ?? '');
  if (response === false) return failed(domain, `its author is not clear (${reason})`);
  // `mailauth` reads addresses in a way of its own: its author must be the one whom everybody else sees.
  if (domain === null || domain !== authorDomain(fields)) return failed(domain, 'its author is not clear');
  // Without a policy nobody says how to align: then the public suffix list does.
  const aligned = dkimAligned
    ? [...dkimAligned][0]
    : sound.find(({ status }) => status.aligned)?.signingDomain;
  if (aligned !== undefined) return { result: 'pass', domain, reason: `signed by ${aligned}` };
  if (resolver.isInDoubt()) throw dnsFailed(domain);
  return failed(
    domain,
    sound.length > 0 ? 'it is signed by another domain' : (judged[0]?.fault ?? 'it is not signed'),
  );
}

/**
 * Loaded by the first mail that is asked about: it would be 25 MB of every daemon. Where it cannot be, the mail waits:
 * nothing is wrong with that.
 */
async function verifier() {
  try {
    const [{ dkimVerify }, { evaluateDmarc }] = await Promise.all([
      import('mailauth/lib/dkim/verify.js'),
      import('mailauth/lib/dmarc/index.js'),
    ]);
    return { dkimVerify, evaluateDmarc };
  } catch (cause) {
    const message = 'what verifies signatures (the package mailauth) cannot be loaded';
    throw new MillraceError('transient', 'authentication.unavailable', message, {
      cause,
      hint: 'The installation is not complete: install it again and restart the daemon.',
    });
  }
}

/** What `mailauth` asks the DNS, out of what was found before. */
function resolverOf(records: SignedMessage['records']): {
  readonly resolve: (name: string) => Promise<string[][]>;
  readonly isInDoubt: () => boolean;
} {
  let isInDoubt = false;
  return {
    isInDoubt: () => isInDoubt,
    resolve: async (name) => {
      const found = Object.hasOwn(records, name.toLowerCase()) ? records[name.toLowerCase()]! : [];
      if (found === 'failed') isInDoubt = true;
      if (found !== 'failed' && found.length > 0) return found.map((text) => [text]);
      throw Object.assign(new Error(`no TXT record ${name}`), {
        code: found === 'failed' ? 'ESERVFAIL' : 'ENOTFOUND',
      });
    },
  };
}

/** Why a signature does not hold for the whole body; null where it does. */
function faultOf({
  status,
}: {
  status: { result: string; comment?: string | false; underSized?: number };
}): string | null {
  if (status.result !== 'pass') return `its signature does not hold: ${status.comment || status.result}`;
  return status.underSized ? 'its signature does not cover all of it' : null;
}

function failed(domain: string | null, reason: string): Authentication {
  return { result: 'fail', domain, reason };
}

function dnsFailed(domain: string | null): MillraceError {
  const message = `whether ${domain ?? 'the author'} signed this email cannot be looked up in the DNS just now`;
  return new MillraceError('transient', 'authentication.dns_failed', message, {
    hint: 'It is tried again. If it stays so, look at this machine’s DNS, or set DNS_SERVERS.',
  });
}

/** Null where there is not exactly one author, as in `parseMessage`. */
function authorDomain(fields: Pick<ParsedEmail, 'headers'>): string | null {
  const [author, ...others] = headerValues(fields, 'from').flatMap(mailboxesOf);
  if (author === undefined || others.length > 0) return null;
  return normaliseDomain(author.address.slice(author.address.lastIndexOf('@') + 1));
}

/** A tag of a DKIM-Signature (RFC 6376 3.2). */
function tagIn(signature: string, tag: string): string {
  return new RegExp(`(?:^|;)\\s*${tag}\\s*=\\s*([^;\\s]{1,253})`).exec(signature)?.[1] ?? '';
}

/** Where a policy for the domain may stand: itself, its last seven labels, and each of those with one less. */
function walkOf(domain: string): string[] {
  const labels = domain.split('.');
  const ends = Array.from({ length: WALK_LABELS }, (_, index) => labels.slice(-(index + 1)).join('.'));
  return [...new Set([domain, ...ends])];
}

function isName(name: string): boolean {
  return HOST_NAME.test(name) && name.split('.').every((label) => label.length > 0 && label.length <= 63);
}
