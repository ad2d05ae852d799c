/**
 * Setting up at Resend, by the real SDK against the stand-in: what is asked of the account, what a person is
 * told, and that a second run asks for nothing new.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createResendAccount } from '../../src/admin/resend-account.ts';
import { setUpResend } from '../../src/admin/resend-setup.ts';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import type { ResendStandIn, StandInDomain } from '../resend-stand-in/contract.ts';
import { startResendStandIn } from '../resend-stand-in/resend-stand-in.ts';

const PUBLIC_URL = 'https://mail.agents.example.com';
const ENDPOINT = `${PUBLIC_URL}/webhooks/resend`;
const RAW = 'From: ann@sender.example\r\nTo: bot@agents.example.com\r\nSubject: hi\r\n\r\nhello\r\n';

let standIn: ResendStandIn;

beforeEach(async () => {
  standIn = await startResendStandIn({
    apiKey: 're_test',
    sendingKey: 're_send',
    domains: [{ name: 'agents.example.com' }],
  });
});
afterEach(() => standIn.stop());

/** Runs it as setup.sh does; `onWait` stands for what happens in the world while it waits. */
async function setUp(options: { apiKey?: string; waitForDns?: boolean; onWait?: () => Promise<void> } = {}) {
  const told: string[] = [];
  const sleep = async (): Promise<void> => options.onWait?.();
  const clock: Clock = { ...systemClock, sleep };
  const account = createResendAccount(clock, { apiKey: options.apiKey ?? 're_test', baseUrl: standIn.url });
  const secret = await setUpResend(
    { account, clock, tell: (text) => told.push(text) },
    { domains: ['agents.example.com'], publicUrl: PUBLIC_URL, waitForDns: options.waitForDns ?? false },
  );
  return { secret, told: told.join('\n') };
}

async function configureDomain(domain: Omit<StandInDomain, 'name'>): Promise<void> {
  await standIn.configure({ domains: [{ name: 'agents.example.com', ...domain }] });
}

async function changes(): Promise<string[]> {
  const requests = await standIn.requests();
  return requests.filter(({ method }) => method !== 'GET').map(({ method, path }) => `${method} ${path}`);
}

describe('the webhook', () => {
  test('is made with the events that are needed, and its secret is the one that signs', async () => {
    const { secret, told } = await setUp();
    expect(secret).toMatch(/^whsec_/);
    expect(told).not.toContain(secret);
    const created = (await standIn.requests()).find(({ method }) => method === 'POST');
    const body = JSON.parse(created?.body ?? '{}') as { endpoint: string; events: string[] };
    expect(body.endpoint).toBe(ENDPOINT);
    expect(body.events).toContain('email.received');
    expect(body.events).not.toContain('contact.created');
  });

  test('is found by the next run, which changes nothing', async () => {
    const first = await setUp();
    const before = await changes();
    const second = await setUp();
    expect(second.secret).toBe(first.secret);
    expect(await changes()).toEqual(before);
  });

  test('that somebody disabled or cut down is mended and keeps its other events', async () => {
    const webhook = (await post('/webhooks', { endpoint: `${ENDPOINT}/`, events: ['contact.created'] })) as {
      id: string;
      signing_secret: string;
    };
    await post(`/webhooks/${webhook.id}`, { status: 'disabled' }, 'PATCH');
    const { secret } = await setUp();
    expect(secret).toBe(webhook.signing_secret);
    const mended = (await post(`/webhooks/${webhook.id}`, undefined, 'GET')) as {
      status: string;
      events: string[];
    };
    expect(mended.status).toBe('enabled');
    expect(mended.events).toEqual(expect.arrayContaining(['contact.created', 'email.received']));
  });

  test('is found behind a hundred others', async () => {
    for (let other = 0; other < 120; other += 1)
      await post('/webhooks', { endpoint: `https://other.example/${other}`, events: ['email.sent'] });
    await post('/webhooks', { endpoint: ENDPOINT, events: ['email.sent'] });
    const posts = (await changes()).filter((change) => change === 'POST /webhooks').length;
    await setUp();
    expect((await changes()).filter((change) => change === 'POST /webhooks')).toHaveLength(posts);
  });
});

describe('the key', () => {
  test('that may only send: it is said what to click, and nothing is changed', async () => {
    const { secret, told } = await setUp({ apiKey: 're_send' });
    expect(secret).toBeNull();
    expect(told).toContain('sending access only');
    expect(told).toContain(ENDPOINT);
    expect(await changes()).toEqual([]);
  });

  test('that Resend refuses is an error of whoever gave it', async () => {
    await expect(setUp({ apiKey: 're_wrong' })).rejects.toMatchObject({
      kind: 'invalid',
      code: 'setup.key_refused',
    });
  });

  test('is asked again when Resend is busy', async () => {
    await standIn.fault('webhooks', { kind: 'error', status: 429, name: 'rate_limit_exceeded' }, 2);
    expect((await setUp()).secret).toMatch(/^whsec_/);
  });
});

describe('the domain', () => {
  test('lacks records: they are shown by their whole names', async () => {
    await configureDomain({ recordStatus: 'not_started' });
    const { told } = await setUp();
    expect(told).toMatch(/MX +agents\.example\.com +10 +inbound-smtp/);
    expect(told).toMatch(/TXT +resend\._domainkey\.agents\.example\.com +p=/);
  });

  test('does not receive yet: that is switched on', async () => {
    await configureDomain({ receiving: 'disabled' });
    expect((await setUp()).told).toContain('receiving is now enabled');
    expect((await setUp()).told).not.toContain('receiving is now enabled');
  });

  test('is waited for when that is asked', async () => {
    await configureDomain({ recordStatus: 'pending' });
    const { told } = await setUp({
      waitForDns: true,
      onWait: () => configureDomain({ recordStatus: 'verified' }),
    });
    expect(told).toContain('is verified and receives mail');
    expect(await changes()).toContainEqual(expect.stringMatching(/^POST \/domains\/.*\/verify$/));
  });

  test('is not in the account: it is said where to add it, and the webhook is made all the same', async () => {
    await standIn.configure({ domains: [] });
    const { told, secret } = await setUp();
    expect(told).toContain('https://resend.com/domains');
    expect(secret).toMatch(/^whsec_/);
  });
});

test('without another target, the stand-in posts to the webhook that was made', async () => {
  await setUp();
  // Nobody listens there: what counts is that it was tried, and that before there was nowhere to post.
  await expect(standIn.deliver(RAW)).resolves.toMatchObject({ status: null });
});

async function post(path: string, body: unknown, method = 'POST'): Promise<unknown> {
  const response = await fetch(`${standIn.url}${path}`, {
    method,
    headers: { authorization: 'Bearer re_test', 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return response.json();
}
