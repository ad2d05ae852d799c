/**
 * `millrace setup resend`: does at Resend what a person would click. It checks the key, finds the domain and
 * shows the DNS records that are missing, and sees to it that exactly one webhook posts to this server, whose
 * signing secret it gives back. Run again it changes nothing that is right already.
 *
 * What it says goes to a person (`tell`); the secret goes nowhere but into the answer. Where the key does not
 * allow a step, it says what to click and goes on: whoever called decides whether that is enough.
 */
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import type { AccountDomain, ResendAccount, WebhookEvents } from './resend-account.ts';

export interface ResendSetupOptions {
  readonly domains: readonly string[];
  /** Where webhooks reach the server, without a slash at its end. */
  readonly publicUrl: string;
  /** Wait until Resend has seen all DNS records. */
  readonly waitForDns: boolean;
}

export interface ResendSetupDeps {
  readonly account: ResendAccount;
  readonly clock: Clock;
  readonly tell: (text: string) => void;
}

/** What is read (`email.received`), what stops mail to an address, and what a trace shows of deliveries; opens and clicks nobody asks for. */
const EVENTS: WebhookEvents = [
  'email.received',
  'email.sent',
  'email.delivered',
  'email.delivery_delayed',
  'email.bounced',
  'email.complained',
  'email.failed',
  'email.suppressed',
];

const DNS_POLL_MS = 10_000;
/** An hour: whoever changes DNS by hand is done by then, or comes back and runs setup again. */
const MAX_DNS_POLLS = 360;

/**
 * @returns the webhook's signing secret, or null where this key may not make or read a webhook.
 * @throws MillraceError `setup.key_refused` (invalid); what `ResendAccount` throws.
 */
export async function setUpResend(
  deps: ResendSetupDeps,
  options: ResendSetupOptions,
): Promise<string | null> {
  const { account, tell } = deps;
  const endpoint = `${options.publicUrl}/webhooks/resend`;
  const scope = await account.keyScope();
  if (scope === 'refused')
    throw new MillraceError('invalid', 'setup.key_refused', 'Resend does not accept RESEND_API_KEY.', {
      hint: 'Make a key with full access at https://resend.com/api-keys and set it as RESEND_API_KEY.',
    });
  if (scope === 'sending') {
    tell(byHandText(options.domains, endpoint));
    return null;
  }
  tell('RESEND_API_KEY has full access.');
  for (const name of options.domains) await setUpDomain(deps, name, options.waitForDns);
  return setUpWebhook(deps, endpoint);
}

function byHandText(domains: readonly string[], endpoint: string): string {
  return [
    'RESEND_API_KEY has sending access only: it cannot read inbound mail. Make one with full access at',
    'https://resend.com/api-keys and run this again. With the key as it is, do by hand:',
    ...domains.map((name) => `- https://resend.com/domains: ${name} is there, verified, and receives mail`),
    `- https://resend.com/webhooks: add ${endpoint}`,
    `  with the events ${EVENTS.join(', ')}; copy its signing secret (whsec_…)`,
  ].join('\n');
}

async function setUpDomain(deps: ResendSetupDeps, name: string, waitForDns: boolean): Promise<void> {
  const { account, tell } = deps;
  let domain = await account.findDomain(name);
  if (!domain) {
    tell(
      `${name} is not among the domains of this account: add it at https://resend.com/domains, then run this again.`,
    );
    return;
  }
  if (!domain.receives) {
    await account.enableReceiving(domain.id);
    tell(`${name}: receiving is now enabled.`);
    domain = (await account.findDomain(name)) ?? domain;
  }
  if (waitForDns && !isReady(domain)) domain = await waitUntilReady(deps, domain);
  if (isReady(domain)) tell(`${name} is verified and receives mail.`);
  else
    tell(
      `${name} is not verified yet. Set these DNS records where the domain is managed:\n\n${recordTable(domain)}\n`,
    );
}

/** Until Resend has seen every record, or for an hour. */
async function waitUntilReady(
  { account, clock, tell }: ResendSetupDeps,
  first: AccountDomain,
): Promise<AccountDomain> {
  tell(
    `Set these DNS records where ${first.name} is managed:\n\n${recordTable(first)}\n\nWaiting until Resend has seen them…`,
  );
  await account.verifyDomain(first.id);
  let domain = first;
  for (let poll = 0; poll < MAX_DNS_POLLS && !isReady(domain); poll += 1) {
    await clock.sleep(DNS_POLL_MS);
    domain = (await account.findDomain(first.name)) ?? domain;
  }
  return domain;
}

function isReady(domain: AccountDomain): boolean {
  return (
    domain.receives && domain.records.every((record) => isOptional(record) || record.status === 'verified')
  );
}

/** Mail works without the records that count opens and clicks. */
function isOptional({ record }: AccountDomain['records'][number]): boolean {
  return record === 'Tracking' || record === 'TrackingCAA';
}

/** The records that are missing, as columns. */
function recordTable({ name, records }: AccountDomain): string {
  const rows = records
    .filter((record) => !isOptional(record) && record.status !== 'verified')
    .map((record) => [
      record.type,
      fullName(record.name, name),
      'priority' in record && record.priority !== undefined ? String(record.priority) : '',
      record.value,
      record.status,
    ]);
  return table([['TYPE', 'NAME', 'PRIORITY', 'VALUE', 'STATUS'], ...rows]);
}

/**
 * Resend names a record from the zone that it takes the domain to lie in: `send.agents` for
 * `agents.example.com`. Where the end of that name is the beginning of the domain's, the rest is the zone.
 */
function fullName(record: string, domain: string): string {
  const labels = domain.split('.');
  for (let count = labels.length; count > 0; count -= 1) {
    const start = labels.slice(0, count).join('.');
    if (record === start || record.endsWith(`.${start}`)) return [record, ...labels.slice(count)].join('.');
  }
  return record === '' || record === '@' ? domain : `${record}.${domain}`;
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map(
      (row) =>
        `  ${row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}`,
    )
    .join('\n');
}

async function setUpWebhook({ account, tell }: ResendSetupDeps, endpoint: string): Promise<string | null> {
  const existing = await account.findWebhook(endpoint);
  if (!existing) {
    const created = await account.createWebhook(endpoint, EVENTS);
    tell(`Made the webhook to ${endpoint}.`);
    return created.signingSecret;
  }
  const wanted = [...new Set([...existing.events, ...EVENTS])] as WebhookEvents;
  if (existing.isEnabled && wanted.length === existing.events.length) {
    tell(`The webhook to ${endpoint} is there.`);
  } else {
    await account.updateWebhook(existing.id, wanted);
    tell(`The webhook to ${endpoint} was there; it is enabled now and posts the events that are needed.`);
  }
  return existing.signingSecret;
}
