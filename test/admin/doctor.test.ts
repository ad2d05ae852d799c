/**
 * `millrace doctor` as a person runs it, against a stand-in of Resend, a DNS server on loopback and the streams of a
 * daemon that ran: everything in order, and then each thing broken in turn.
 */
import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { writeDaemonFile } from '../../src/admin/daemon-file.ts';
import type { Finding } from '../../src/admin/doctor/check.ts';
import { diagnose } from '../../src/admin/doctor/doctor-command.ts';
import { recordName } from '../../src/admin/doctor/mail-checks.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { parseConfig } from '../../src/platform/config.ts';
import { createLog } from '../../src/platform/log.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { startNameServer } from '../platform/name-server.ts';
import type { NameServer } from '../platform/name-server.ts';
import { startResendStandIn } from '../resend-stand-in/resend-stand-in.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { programEnvironment } from '../program-environment.ts';

const KEY = 're_doctor_full';
const SENDING_KEY = 're_doctor_sending';
const DOMAIN = 'mail.agents.example';

/** What the DNS holds: the texts of TXT records and the exchanges of MX records. */
const zone: Record<string, { TXT?: string[]; MX?: string[] }> = {};
let resend: ResendStandIn;
let web: Server;
let webStatus = 200;
let publicUrl: string;
let nameServer: NameServer;
let directory: string;
let variables: Record<string, string>;

beforeAll(async () => {
  resend = await startResendStandIn({ apiKey: KEY, sendingKey: SENDING_KEY, domains: [{ name: DOMAIN }] });
  web = createServer((_request, response) =>
    response.writeHead(webStatus).end('{"services":[],"missingRoles":["runner"]}'),
  );
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
  publicUrl = `http://127.0.0.1:${(web.address() as AddressInfo).port}`;
  nameServer = await startNameServer(zone);
});
afterAll(async () => {
  await resend.stop();
  web.close();
  await nameServer.close();
});

beforeEach(async () => {
  webStatus = 200;
  await resend.configure({ domains: [{ name: DOMAIN }] });
  Object.assign(zone, {
    [DOMAIN]: { MX: ['inbound-smtp.eu-west-1.amazonaws.com'] },
    [`send.${DOMAIN}`]: {
      MX: ['feedback-smtp.eu-west-1.amazonses.com'],
      TXT: ['v=spf1 include:amazonses.com ~all'],
    },
    [`resend._domainkey.${DOMAIN}`]: { TXT: ['p=MIGfMA0GCSq'] },
    [`_dmarc.${DOMAIN}`]: { TXT: ['v=DMARC1; p=none;'] },
  });
  const secret = await webhook('POST', '', {
    endpoint: `${publicUrl}/webhooks/resend`,
    events: ['email.received', 'email.bounced', 'email.complained', 'email.suppressed'],
  });
  directory = mkdtempSync(join(tmpdir(), 'millrace-doctor-'));
  writeDaemonFile(directory, { url: publicUrl, token: 'secret-token', pid: 1 });
  variables = {
    MAIL_DOMAIN: DOMAIN,
    PUBLIC_URL: publicUrl,
    RESEND_API_KEY: KEY,
    RESEND_SENDING_KEY: SENDING_KEY,
    RESEND_WEBHOOK_SECRET: String(secret['signing_secret']),
    RESEND_BASE_URL: resend.url,
    DATA_DIR: directory,
  };
  await withStore(async (store) => {
    await store.stream('tools').append([
      jsonRecord({
        kind: 'tools',
        version: 1,
        revision: 'abc',
        status: 'live',
        inboxes: ['box'],
        error: null,
        at: '2026-01-01T00:00:00Z',
      }),
    ]);
  });
});
afterEach(async () => {
  const { data } = await webhook('GET', '');
  for (const { id } of data as { id: string }[]) await webhook('DELETE', `/${id}`);
  rmSync(directory, { recursive: true });
});

it('finds everything in order, says no secret, and ends with 0', async () => {
  const { code, findings, text } = await doctor();
  expect(problems(findings)).toEqual(['certificate']);
  expect(code).toBe(0);
  for (const part of [
    'configuration',
    'daemon',
    'streams',
    'tools',
    'lag',
    'parked',
    'keys',
    'DNS',
    'webhook',
    'public URL',
    'clock',
    'disk',
    'Node',
  ])
    expect(findings).toContainEqual(expect.objectContaining({ part, status: 'ok' }));
  for (const secret of [KEY, SENDING_KEY, variables['RESEND_WEBHOOK_SECRET']!, 'secret-token'])
    expect(text).not.toContain(secret);
});

/** Each with what is broken, the part that must tell, and a word of what mends it. */
const broken: [string, () => Promise<void> | void, string, RegExp][] = [
  [
    'the DKIM record is missing',
    () => void delete zone[`resend._domainkey.${DOMAIN}`],
    'DNS',
    /DKIM.*missing.*Set TXT resend\._domainkey/s,
  ],
  [
    'the MX record leads elsewhere',
    () => void (zone[DOMAIN] = { MX: ['mx.elsewhere.example'] }),
    'DNS',
    /Receiving.*another value.*Set MX/s,
  ],
  [
    'the SPF record is wrong',
    () => void (zone[`send.${DOMAIN}`]!.TXT = ['v=spf1 -all']),
    'DNS',
    /SPF.*another value/s,
  ],
  ['there is no DMARC policy', () => void delete zone[`_dmarc.${DOMAIN}`], 'DNS', /DMARC.*missing/s],
  ['Resend does not know the domain', () => resend.configure({ domains: [] }), 'DNS', /knows no domain/],
  [
    'receiving is off',
    () => resend.configure({ domains: [{ name: DOMAIN, receiving: 'disabled' }] }),
    'DNS',
    /receiving is off/,
  ],
  [
    'nothing leads to a domain of which Resend names the sending records alone',
    async () => {
      await resend.configure({ domains: [{ name: DOMAIN, receiving: 'disabled' }] });
      delete zone[DOMAIN];
    },
    'DNS',
    /has no MX record.*Set the MX/s,
  ],
  [
    'the webhook is disabled',
    () => changeWebhook({ status: 'disabled' }),
    'webhook',
    /disabled.*setup resend/s,
  ],
  [
    'the webhook is not told of mail',
    () => changeWebhook({ events: ['email.sent'] }),
    'webhook',
    /email\.received/,
  ],
  [
    'the webhook is not told of bounces',
    () => changeWebhook({ events: ['email.received', 'email.complained', 'email.suppressed'] }),
    'webhook',
    /not told of email\.bounced: mail goes on.*setup resend/s,
  ],
  [
    'the webhook is for another address',
    () => changeWebhook({ endpoint: 'https://other.example/' }),
    'webhook',
    /posts to no/,
  ],
  [
    'the secret is another',
    () => void (variables['RESEND_WEBHOOK_SECRET'] = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'),
    'webhook',
    /signing secret/,
  ],
  [
    'the reading key may only send',
    () => void (variables['RESEND_API_KEY'] = SENDING_KEY),
    'keys',
    /may only send.*secrets set/s,
  ],
  [
    'the reading key is refused',
    () => void (variables['RESEND_API_KEY'] = 're_nobody'),
    'keys',
    /does not accept RESEND_API_KEY/,
  ],
  [
    'the sending key is refused',
    () => void (variables['RESEND_SENDING_KEY'] = 're_nobody'),
    'keys',
    /does not accept RESEND_SENDING_KEY/,
  ],
  ['a role is missing', () => void (webStatus = 503), 'daemon', /unwell.*nobody does the work of runner/],
  [
    'the public URL leads elsewhere',
    () => void (variables['PUBLIC_URL'] = 'http://127.0.0.1:9'),
    'public URL',
    /name lead to this server/,
  ],
  [
    'no daemon runs',
    () => writeDaemonFile(directory, { url: 'http://127.0.0.1:9', token: 't', pid: 1 }),
    'daemon',
    /nothing answers.*Start it/s,
  ],
  [
    'the tools of a folder were refused',
    () => refuseTools(),
    'tools',
    /revision of \/\S*tools was refused.*millrace tools.*mend it there\.$/s,
  ],
  [
    'the tools of a repository were refused',
    async () => {
      variables['TOOLS_REPO'] = 'https://git.example/tools.git';
      await refuseTools();
    },
    'tools',
    /revision of https:\S* was refused.*mend it and push\.$/s,
  ],
  [
    'the Git host is away',
    () => refuseTools({ isTransient: true }),
    'tools',
    /could not be brought.*tried again/s,
  ],
  ['a mail is parked', parkMail, 'parked', /1 dead letters.*redrive/s],
  ['a newer release wrote the streams', writeNewer, 'streams', /version 2/],
];

it.each(broken)('tells that %s, and how to mend it', async (_what, damage, part, words) => {
  await damage();
  const findings = await examine();
  const told = findings.filter((one) => one.part === part && ['fault', 'warning'].includes(one.status));
  expect(told.map(({ message, mend }) => `${message}\n${mend}`).join('\n')).toMatch(words);
  expect(told.every(({ mend }) => mend !== undefined)).toBe(true);
});

it('ends with 1 where there is a fault', async () => {
  webStatus = 503;
  expect(await doctor()).toMatchObject({ code: 1 });
});

it('tells every fault of a configuration that is none, and ends with 1', async () => {
  variables['MAIL_DOMAIN'] = 'no domain';
  const { code, findings } = await doctor();
  expect(findings).toMatchObject([{ part: 'configuration', status: 'fault' }]);
  expect(code).toBe(1);
});

it('looks at the streams beside a daemon that writes', async () => {
  await withStore(async () => {
    expect(await examine()).toContainEqual(expect.objectContaining({ part: 'streams', status: 'ok' }));
  });
});

it.each([
  ['send.mail', DOMAIN, `send.${DOMAIN}`],
  ['mail', 'mail.example.com', 'mail.example.com'],
  ['send', 'example.com', 'send.example.com'],
  ['', 'example.com', 'example.com'],
  ['resend._domainkey.a.b', 'a.b.example.co.uk', 'resend._domainkey.a.b.example.co.uk'],
])('record %j of %s is %s', (host, domain, expected) => {
  expect(recordName(host, domain)).toBe(expected);
});

const problems = (findings: Finding[]) =>
  findings.filter(({ status }) => status === 'fault' || status === 'warning').map(({ part }) => part);

/** The command itself. */
function doctor(): Promise<{ code: unknown; findings: Finding[]; text: string }> {
  const args = ['src/main.ts', 'doctor', '--json', '--dns-server', nameServer.address];
  const env = programEnvironment(variables);
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { env }, (error, stdout, stderr) => {
      if (stderr) return reject(new Error(stderr));
      const { findings } = JSON.parse(stdout) as { findings: Finding[] };
      resolve({ code: error?.code ?? 0, findings, text: stdout });
    });
  });
}

/** What it finds, without the second that a process takes to start. */
const examine = (): Promise<Finding[]> =>
  diagnose(parseConfig(variables), { log: createLog('silent'), dnsServers: [nameServer.address] });

async function withStore(work: (store: StreamStore) => Promise<void>): Promise<void> {
  const store = await openLocalStore(
    { clock, log: createLog('silent') },
    { directory, retentionFor: () => 'forever' },
  );
  await work(store);
  await store.close();
}

function refuseTools(more: { isTransient?: true } = {}): Promise<void> {
  return withStore(async (store) => {
    const refusal = { revision: 'def', status: 'refused', inboxes: [], error: 'index.ts:3: oops', ...more };
    await store
      .stream('tools')
      .append([jsonRecord({ kind: 'tools', version: 1, ...refusal, at: '2026-01-02T00:00:00Z' })]);
  });
}

function parkMail(): Promise<void> {
  return withStore(async (store) => {
    await store.stream('inbox/box').append([jsonRecord({ kind: 'email', version: 1 }, 'a-key')]);
    const outcome = {
      seqNum: 0,
      key: 'a-key',
      outcome: 'dead-letter',
      attempts: 1,
      reason: 'tool.threw',
      error: null,
    };
    const rest = { at: '2026-01-02T00:00:00Z', durationMs: 1, facts: {} };
    await store.stream('runs/box').append([jsonRecord({ kind: 'outcome', version: 1, ...outcome, ...rest })]);
  });
}

function writeNewer(): Promise<void> {
  return withStore(async (store) => {
    await store.stream('outbox').append([jsonRecord({ kind: 'request', version: 2 })]);
  });
}

async function webhook(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
  const response = await fetch(`${resend.url}/webhooks${path}`, {
    method,
    headers: { authorization: `Bearer ${KEY}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return (await response.json()) as Record<string, unknown>;
}

async function changeWebhook(changes: Record<string, unknown>): Promise<void> {
  const { data } = await webhook('GET', '');
  await webhook('PATCH', `/${(data as { id: string }[])[0]!.id}`, changes);
}
