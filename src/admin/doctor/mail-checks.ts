/** The way of mail: keys and what they may do, DNS, the webhook at Resend, and whether it reaches us. */
import { Resolver } from 'node:dns/promises';
import { connect } from 'node:tls';
import type { AccountDomain } from '../resend-account.ts';
import { fault, ok, skipped, warning } from './check.ts';
import type { Check, DoctorContext, Finding } from './check.ts';

const CERTIFICATE_WARNING_DAYS = 14;
const DNS_TRIES = 2;
const DNS_TIMEOUT_MS = 3_000;
const NO_RESEND = 'no RESEND_API_KEY: the local mailbox stands in for Resend';
const KEYS_PAGE = 'https://resend.com/api-keys';
const WEBHOOKS_PAGE = 'https://resend.com/webhooks';

export const mailChecks: readonly Check[] = [
  { part: 'keys', look: lookAtKeys },
  { part: 'DNS', look: lookAtDns },
  { part: 'webhook', look: lookAtWebhook },
  { part: 'public URL', look: lookAtPublicUrl },
];

async function lookAtKeys({ account, sendingAccount }: DoctorContext): Promise<Finding[]> {
  if (!account) return [skipped('keys', NO_RESEND)];
  const [scope, sendingScope] = await Promise.all([account.keyScope(), sendingAccount?.keyScope()]);
  const findings: Finding[] = [];
  if (scope === 'full') findings.push(ok('keys', 'RESEND_API_KEY has full access'));
  else if (scope === 'sending')
    findings.push(
      fault(
        'keys',
        'RESEND_API_KEY may only send: received mail cannot be read',
        `Make a key with full access (${KEYS_PAGE}): millrace secrets set RESEND_API_KEY`,
      ),
    );
  else
    findings.push(
      fault(
        'keys',
        'Resend does not accept RESEND_API_KEY',
        `Make a new one (${KEYS_PAGE}): millrace secrets set RESEND_API_KEY`,
      ),
    );
  if (sendingScope === 'sending') findings.push(ok('keys', 'RESEND_SENDING_KEY may send'));
  if (sendingScope === 'full')
    findings.push(
      warning(
        'keys',
        'RESEND_SENDING_KEY has full access, more than sending needs',
        `Make one with sending access (${KEYS_PAGE}): millrace secrets set RESEND_SENDING_KEY`,
      ),
    );
  if (sendingScope === 'refused')
    findings.push(
      fault(
        'keys',
        'Resend does not accept RESEND_SENDING_KEY: nothing is sent',
        `Make a new one (${KEYS_PAGE}): millrace secrets set RESEND_SENDING_KEY`,
      ),
    );
  return findings;
}

async function lookAtDns(context: DoctorContext): Promise<Finding[]> {
  if (!context.account) return [skipped('DNS', NO_RESEND)];
  const resolver = new Resolver({ timeout: DNS_TIMEOUT_MS, tries: DNS_TRIES });
  if (context.dnsServers.length > 0) resolver.setServers(context.dnsServers);
  const perDomain = context.config.domains.map(async (name) => {
    // A key that may not ask leaves the records of the DNS itself.
    const domain = await context.account!.findDomain(name).catch(() => undefined);
    return [...(await lookAtRecords(resolver, name, domain)), await lookAtDmarc(resolver, name)];
  });
  return (await Promise.all(perDomain)).flat();
}

async function lookAtRecords(
  resolver: Resolver,
  name: string,
  domain: AccountDomain | null | undefined,
): Promise<Finding[]> {
  if (domain === null)
    return [
      fault(
        'DNS',
        `Resend knows no domain ${name}`,
        'Add it at https://resend.com/domains with receiving on, or correct MAIL_DOMAIN.',
      ),
    ];
  const findings: Finding[] = [];
  if (domain && !domain.receives)
    findings.push(
      fault(
        'DNS',
        `receiving is off for ${name} at Resend`,
        `Switch it on at https://resend.com/domains/${domain.id}`,
      ),
    );
  let isOwnMxSaid = false;
  for (const { record, type, name: host, value } of domain?.records ?? []) {
    const fullName = recordName(host, name);
    isOwnMxSaid ||= type === 'MX' && fullName === name;
    const there = await values(resolver, type, fullName);
    if (there === null) continue;
    if (there.some((one) => same(one, value))) findings.push(ok('DNS', `${record} (${type} ${fullName})`));
    else {
      const found = there.length === 0 ? 'is missing' : 'has another value';
      findings.push(
        fault('DNS', `${record}: ${type} ${fullName} ${found}`, `Set ${type} ${fullName} to ${value}`),
      );
    }
  }
  if (isOwnMxSaid) return findings;
  const mx = await values(resolver, 'MX', name);
  if (mx?.length === 0)
    findings.push(
      fault(
        'DNS',
        `${name} has no MX record: no mail arrives`,
        'Set the MX record that https://resend.com/domains shows.',
      ),
    );
  else findings.push(ok('DNS', `MX ${name} → ${(mx ?? []).join(', ')}`));
  return findings;
}

/**
 * Resend names records from the zone that the domain lies in, and does not say which that is: `send.mail` for
 * mail.example.com. So the part that the two have in common is looked for.
 */
export function recordName(host: string, domain: string): string {
  const labels = host.split('.').filter((label) => label !== '' && label !== '@');
  const own = domain.split('.');
  for (let common = Math.min(labels.length, own.length); common >= 0; common--) {
    const isCommon = labels.slice(labels.length - common).join('.') === own.slice(0, common).join('.');
    if (isCommon) return [...labels.slice(0, labels.length - common), ...own].join('.');
  }
  return domain;
}

/** As texts; null for a type that is not looked up. Names that are not there have none. */
async function values(resolver: Resolver, type: string, name: string): Promise<string[] | null> {
  try {
    if (type === 'MX') return (await resolver.resolveMx(name)).map(({ exchange }) => exchange);
    if (type === 'TXT') return (await resolver.resolveTxt(name)).map((parts) => parts.join(''));
    if (type === 'CNAME') return await resolver.resolveCname(name);
    return null;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : '';
    if (code === 'ENOTFOUND' || code === 'ENODATA') return [];
    throw error;
  }
}

const same = (one: string, other: string): boolean => plain(one) === plain(other);
const plain = (value: string): string => value.replaceAll(/["\s]/g, '').replace(/\.$/, '').toLowerCase();

async function lookAtDmarc(resolver: Resolver, name: string): Promise<Finding> {
  const host = `_dmarc.${name}`;
  const policies = ((await values(resolver, 'TXT', host)) ?? []).filter((text) => /^v=DMARC1\b/i.test(text));
  if (policies.length === 1) return ok('DNS', `DMARC (TXT ${host})`);
  return warning(
    'DNS',
    policies.length === 0
      ? `DMARC: TXT ${host} is missing`
      : `DMARC: ${host} has several policies, so none counts`,
    `Set TXT ${host} to v=DMARC1; p=none; (once), and tighten it later.`,
  );
}

/** What stops mail to an address: `outbox/suppressing-event.ts`. */
const SUPPRESSING_EVENTS = ['email.bounced', 'email.complained', 'email.suppressed'] as const;

async function lookAtWebhook({ account, config, secrets }: DoctorContext): Promise<Finding[]> {
  if (!account) return [skipped('webhook', NO_RESEND)];
  if (config.publicUrl === null)
    return [
      warning(
        'webhook',
        'PUBLIC_URL is not set: nobody can tell which webhook is ours',
        'Set PUBLIC_URL to where webhooks reach this server.',
      ),
    ];
  if ((await account.keyScope()) !== 'full') return [skipped('webhook', 'the key may not look at webhooks')];
  const endpoint = `${config.publicUrl}/webhooks/resend`;
  const webhook = await account.findWebhook(endpoint);
  const again = `millrace setup resend --domain ${config.domains[0]} --public-url ${config.publicUrl}`;
  if (!webhook)
    return [
      fault(
        'webhook',
        `Resend posts to no ${endpoint}`,
        `Make it: ${again}, or by hand at ${WEBHOOKS_PAGE}.`,
      ),
    ];
  const findings: Finding[] = [];
  if (!webhook.isEnabled)
    findings.push(
      fault(
        'webhook',
        `${endpoint} is disabled at Resend: no mail arrives`,
        `Enable it: ${again}, or at ${WEBHOOKS_PAGE}. What it missed can be replayed there.`,
      ),
    );
  if (!webhook.events.includes('email.received'))
    findings.push(
      fault(
        'webhook',
        `${endpoint} is not told of email.received`,
        `Mend it: ${again}, or at ${WEBHOOKS_PAGE}.`,
      ),
    );
  const untold = SUPPRESSING_EVENTS.filter((event) => !webhook.events.includes(event));
  if (untold.length > 0)
    findings.push(
      warning(
        'webhook',
        `${endpoint} is not told of ${untold.join(', ')}: mail goes on to addresses that bounce or complain`,
        `Mend it: ${again}, or at ${WEBHOOKS_PAGE}.`,
      ),
    );
  const isKnown = secrets.resendWebhookSecrets.some((secret) => secret.reveal() === webhook.signingSecret);
  if (!isKnown)
    findings.push(
      fault(
        'webhook',
        'its signing secret is not among RESEND_WEBHOOK_SECRET: every event is refused',
        'millrace secrets set RESEND_WEBHOOK_SECRET, with the secret that Resend shows',
      ),
    );
  return findings.length > 0 ? findings : [ok('webhook', `${endpoint} is enabled, with our secret`)];
}

async function lookAtPublicUrl({ config, clock }: DoctorContext, signal: AbortSignal): Promise<Finding[]> {
  if (config.publicUrl === null) return [skipped('public URL', 'PUBLIC_URL is not set')];
  const url = `${config.publicUrl}/healthz`;
  const findings: Finding[] = [];
  try {
    const { status } = await fetch(url, { signal, redirect: 'manual' });
    findings.push(
      status === 200
        ? ok('public URL', `${url} answers 200`)
        : fault(
            'public URL',
            `${url} answers ${status}`,
            status === 502 || status === 503
              ? 'The daemon is down or unwell: see units and daemon above.'
              : 'Let the web server in front pass /webhooks/* and /healthz on to HOST:PORT.',
          ),
    );
  } catch (error) {
    signal.throwIfAborted();
    const cause = error instanceof Error ? error.cause : undefined;
    const reason = cause instanceof Error ? cause.message : String(error);
    findings.push(
      fault(
        'public URL',
        `${url}: ${reason}`,
        'Does the name lead to this server (A, AAAA), are ports 80 and 443 open, does Caddy run (systemctl status caddy)? From some networks a server cannot reach its own public address: try it from elsewhere.',
      ),
    );
  }
  if (config.publicUrl.startsWith('https:'))
    findings.push(await lookAtCertificate(new URL(config.publicUrl), clock.nowMs(), signal));
  else
    findings.push(
      warning(
        'certificate',
        'PUBLIC_URL is not https: mail and events pass in the clear',
        'Set PUBLIC_URL to an https address; Caddy gets the certificate.',
      ),
    );
  return findings;
}

async function lookAtCertificate(
  { hostname, port }: URL,
  nowMs: number,
  signal: AbortSignal,
): Promise<Finding> {
  const { promise, resolve } = Promise.withResolvers<{ validTo: string; refusal: string | null } | null>();
  // Looked at, not trusted: nothing is sent over this connection.
  const socket = connect({
    host: hostname,
    port: Number(port || 443),
    servername: hostname,
    rejectUnauthorized: false,
  });
  socket.once('secureConnect', () => {
    const refusal = socket.authorized ? null : String(socket.authorizationError);
    resolve({ validTo: socket.getPeerCertificate().valid_to, refusal });
  });
  // Whose handshake fails has none for this name; whoever does not answer at all is told of beside.
  socket.once('error', (error: NodeJS.ErrnoException) =>
    resolve(error.code?.startsWith('ERR_SSL') ? { validTo: '', refusal: error.message.trim() } : null),
  );
  const end = (): void => resolve(null);
  signal.addEventListener('abort', end, { once: true });
  const answer = await promise;
  signal.removeEventListener('abort', end);
  socket.destroy();
  if (answer === null) return skipped('certificate', `${hostname} does not answer`);
  const days = Math.floor((Date.parse(answer.validTo) - nowMs) / 86_400_000);
  const mend = 'Look at journalctl -u caddy: it renews by itself when ports 80 and 443 reach it.';
  if (answer.refusal !== null)
    return fault('certificate', `${hostname}: ${answer.refusal}: Resend will not post to it`, mend);
  if (days < CERTIFICATE_WARNING_DAYS) return warning('certificate', `${hostname}: ${days} days left`, mend);
  return ok('certificate', `${hostname}: valid, ${days} days left`);
}
