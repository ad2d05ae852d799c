/**
 * What fails, fails alone: the real daemon with tools that misbehave and a provider that does, on `local`.
 * Everything is counted at the far end and read back from the journals.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { openLocalStoreReadOnly } from '../../src/streams/local-store.ts';
import { KEY_RECORD, signedMail } from '../mail/signed-mail.ts';
import { startNameServer } from '../platform/name-server.ts';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import type { Fault, ResendStandIn, Route } from '../resend-stand-in/contract.ts';
import { freePort, startDaemon, temporaryDirectory } from './daemon.ts';
import type { Daemon } from './daemon.ts';
import { plainMail } from './mail.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';

const TOOLS = `
import type { Email, Settings } from 'millrace';
export const settings: Settings = {
  loops: { timeoutMs: 500 }, never: { timeoutMs: 500 }, kills: { timeoutMs: 200 }, computes: { cpuLimitMs: 300 },
  friends: { from: ['@sender.example'] },
};
export const echo = (email: Email) => 'echo ' + email.text;
export const throws = () => { throw new Error('this tool is broken'); };
export const rejects = async () => { throw 'a string'; };
export const loops = () => { for (;;); };
export const kills = () => { for (;;); };
export const computes = () => { for (;;); };
export const never = () => new Promise(() => {});
export const hoards = () => { const all = []; for (;;) all.push(new Array(1e6).fill(Math.random())); };
export const number = () => 42;
export const note = (email: Email) => email.headers.get('x-NOTE') + email.headers.getAll('X-Note').length;
export default (email: Email) => ({ html: <p>No tool is called {email.inbox}, {email.tag}.</p> });
export const friends = (email: Email) => 'welcome ' + email.from?.address;
export const nothing = () => undefined;
export const empty = () => '';
export const header = () => ({ text: 'x', subject: 'two\\r\\nBcc: victim@elsewhere.example' });
export const page = (email: Email) => ({ html: '<p>' + email.text + '</p>' });
export const template = (email: Email) => ({ html: <p>{email.text}</p> });
export const slow = async (email: Email) => { await new Promise((resolve) => setTimeout(resolve, 700)); return email.text; };
`;

let resend: ResendStandIn;
let daemon: Daemon;
let variables: Record<string, string>;
const stack = new AsyncDisposableStack();
let answered = 0;
let mails = 0;

beforeAll(async () => {
  const directory = stack.use(await temporaryDirectory());
  const tools = join(directory.path, 'tools');
  await mkdir(tools);
  await writeFile(join(tools, 'index.tsx'), TOOLS);
  const port = await freePort();
  const nameServer = await startNameServer({ 's1._domainkey.sender.example': { TXT: [KEY_RECORD] } });
  stack.defer(async () => void (await nameServer.close()));
  resend = await spawnResendStandIn({
    apiKey: 're_failures',
    webhook: { url: `http://127.0.0.1:${port}/webhooks/resend`, secret: SECRET },
  });
  stack.defer(() => resend.stop());
  variables = {
    MAIL_DOMAIN: 'agents.example',
    RESEND_API_KEY: 're_failures',
    RESEND_BASE_URL: resend.url,
    RESEND_WEBHOOK_SECRET: SECRET,
    DATA_DIR: join(directory.path, 'data'),
    TOOLS_PATH: tools,
    DNS_SERVERS: nameServer.address,
    PORT: String(port),
  };
  daemon = await startDaemon(variables);
  stack.defer(async () => void (await daemon.stop()));
}, 60_000);
afterAll(() => stack.disposeAsync());
beforeEach(() => resend.clearFaults());

/** Sends a mail to an inbox; gives its id at the provider. */
async function send(inbox: string, text = 'Hello', headers: string[] = []): Promise<string> {
  mails++;
  const { status, emailId } = await resend.deliver(
    plainMail({ to: `${inbox}@agents.example`, id: `f${mails}`, text, headers }),
  );
  expect(status).toBe(200);
  return emailId;
}

/** Waits for so many new replies; gives just those. */
async function replies(count: number) {
  const accepted = await resend.waitForAccepted(answered + count, 20_000);
  const fresh = accepted.slice(answered);
  answered = accepted.length;
  expect(fresh).toHaveLength(count);
  return fresh.map(({ payload }) => payload);
}

interface Outcome {
  outcome: string;
  reason: string | null;
  error: { message: string } | null;
  facts: { emailId?: string; cause?: { emailId: string } };
}

/** The final outcome of an email on a journal, as soon as there is one. */
async function outcomeOf(emailId: string, journal: string): Promise<Outcome> {
  const read = async (): Promise<Outcome | undefined> => {
    const store = await openLocalStoreReadOnly({ clock: systemClock }, { directory: variables['DATA_DIR']! });
    try {
      const { records } = await store.stream(journal).read({ fromSeqNum: 0 });
      const outcomes = records.map(
        ({ body }) => JSON.parse(Buffer.from(body).toString()) as Partial<Outcome>,
      );
      return outcomes.find(
        ({ outcome, facts }) =>
          outcome !== undefined &&
          outcome !== 'deferred' &&
          (facts?.emailId ?? facts?.cause?.emailId) === emailId,
      ) as Outcome | undefined;
    } finally {
      await store.close();
    }
  };
  await expect.poll(read, { timeout: 20_000, interval: 100 }).toBeDefined();
  return (await read())!;
}

describe('a tool that misbehaves parks that mail alone', () => {
  it.each([
    ['throws', 'tool.threw', 'this tool is broken'],
    ['rejects', 'tool.threw', 'a string'],
    ['loops', 'tool.timeout', ''],
    ['never', 'tool.timeout', ''],
    ['computes', 'tool.cpu', '300 ms of CPU'],
    ['hoards', 'tool.memory', ''],
    ['number', 'tool.invalid-result', 'number'],
  ])('%s: %s', async (inbox, reason, message) => {
    const { pid } = daemon;
    const bad = await send(inbox);
    await send('echo', inbox);
    expect(await replies(1)).toMatchObject([{ text: `echo ${inbox}` }]);
    const outcome = await outcomeOf(bad, `runs/${inbox}`);
    expect(outcome).toMatchObject({ outcome: 'dead-letter', reason });
    expect(outcome.error?.message).toContain(message);
    expect(() => process.kill(pid, 0)).not.toThrow();
  });

  it.each([
    ['nothing', 'no-reply-from-tool'],
    ['empty', 'empty-reply'],
  ])('%s: no reply, and the reason on record', async (inbox, reason) => {
    expect(await outcomeOf(await send(inbox), `runs/${inbox}`)).toMatchObject({ outcome: 'skipped', reason });
  });
});

it('a tool that keeps killing its process is held, others go on, and a new revision is tried at once', async () => {
  for (let kill = 0; kill < 5; kill++) {
    expect(await outcomeOf(await send('kills'), 'runs/kills')).toMatchObject({ reason: 'tool.timeout' });
  }
  const held = await outcomeOf(await send('kills'), 'runs/kills');
  expect(held).toMatchObject({ outcome: 'dead-letter', reason: 'tool.held' });
  expect(held.error?.message).toMatch(/kills .* 5 times in a row \(the last time: timeout\).* until 20/);
  await send('echo', 'beside it');
  expect(await replies(1)).toMatchObject([{ text: 'echo beside it' }]);

  const mended = TOOLS.replace('kills = () => { for (;;); }', `kills = () => 'mended'`);
  await writeFile(join(variables['TOOLS_PATH']!, 'index.tsx'), mended);
  const answer = async (): Promise<string> => (await outcomeOf(await send('kills'), 'runs/kills')).outcome;
  await expect.poll(answer, { timeout: 20_000, interval: 200 }).toBe('done');
  expect(await replies(1)).toMatchObject([{ text: 'mended' }]);
});

describe('what a tool reads', () => {
  it('are header fields in any case, decoded', async () => {
    await send('note', 'x', ['X-Note: =?utf-8?q?gr=C3=BC=C3=9Fe?=', 'x-note: again']);
    expect(await replies(1)).toMatchObject([{ text: 'grüße2' }]);
  });
});

describe('a tool that says who may write to it', () => {
  it('answers who proves it, and nobody who forges the proof', async () => {
    const mail = plainMail({ to: 'friends@agents.example', id: 'proven' });
    const forged = await send('friends', 'Hello', [
      'Authentication-Results: amazonses.com; dkim=pass header.d=sender.example; dmarc=pass header.from=sender.example',
    ]);
    expect(await outcomeOf(forged, 'runs/friends')).toMatchObject({ reason: 'sender-unauthenticated' });
    const { status } = await resend.deliver(await signedMail(mail, { domain: 'sender.example' }));
    expect(status).toBe(200);
    expect(await replies(1)).toMatchObject([{ text: expect.stringContaining('welcome ann@sender.example') }]);
  });
});

describe('the catch-all', () => {
  it('answers for every name that has no tool, from that name', async () => {
    await send('anybody+here');
    expect(await replies(1)).toMatchObject([
      { from: 'anybody+here@agents.example', text: 'No tool is called anybody, here.' },
    ]);
  });
});

describe('what a tool returns is made safe', () => {
  it('a subject with a line end stays one line', async () => {
    await send('header');
    const [mail] = await replies(1);
    expect(mail?.subject).toBe('two Bcc: victim@elsewhere.example');
    expect(mail?.to).toBe('ann@sender.example');
  });

  it.each(['page', 'template'])('markup of the sender is not active in the HTML of %s', async (inbox) => {
    await send(inbox, '<img src=x onerror=alert(1)><script>alert(2)</script>');
    const [mail] = await replies(1);
    expect(mail?.html).not.toMatch(/<script|<[^>]*onerror/i);
    expect(mail?.text).not.toMatch(/undefined|null/);
  });
});

describe('a provider that fails', () => {
  const inbound: [string, Route, Fault, number][] = [
    ['does not know the content yet', 'receive', { kind: 'not-found-for', ms: 1200 }, 1],
    ['answers 500', 'receive', { kind: 'error', status: 500, name: 'internal_server_error' }, 2],
    [
      'limits the rate',
      'receive',
      { kind: 'error', status: 429, name: 'rate_limit_exceeded', headers: { 'retry-after': '1' } },
      1,
    ],
    ['breaks off its JSON', 'receive', { kind: 'truncated' }, 1],
    ['breaks off the download', 'download', { kind: 'truncated' }, 1],
    ['gives a link that has expired', 'receive', { kind: 'expired-link' }, 1],
  ];
  it.each(inbound)('%s: the mail is answered all the same', async (_name, route, fault, times) => {
    await resend.fault(route, fault, times);
    await send('echo', 'in');
    expect(await replies(1)).toMatchObject([{ text: 'echo in' }]);
  });

  const outbound: [string, Fault, number][] = [
    ['answers 500', { kind: 'error', status: 500, name: 'internal_server_error' }, 2],
    [
      'limits the rate',
      { kind: 'error', status: 429, name: 'rate_limit_exceeded', headers: { 'retry-after': '1' } },
      1,
    ],
    ['loses its answer', { kind: 'lost-response' }, 1],
    ['answers nothing', { kind: 'empty' }, 1],
    ['answers without an id', { kind: 'no-id' }, 1],
    ['resets the connection', { kind: 'reset' }, 1],
  ];
  it.each(outbound)('%s at the send: one reply under one key', async (_name, fault, times) => {
    await resend.fault('send', fault, times);
    const emailId = await send('echo', 'out');
    expect(await replies(1)).toMatchObject([{ text: 'echo out' }]);
    expect(await outcomeOf(emailId, 'sent')).toMatchObject({ outcome: 'done' });
    const keys = (await resend.requests()).filter(
      ({ route, headers }) => route === 'send' && headers['idempotency-key']?.includes(emailId),
    );
    expect(keys.length).toBeGreaterThan(1);
    expect(new Set(keys.map(({ headers }) => headers['idempotency-key'])).size).toBe(1);
    expect(new Set(keys.map(({ body }) => body)).size).toBe(1);
  });

  it('refuses for good: that mail is parked at once, the next is answered', async () => {
    await resend.fault('send', {
      kind: 'error',
      status: 422,
      name: 'validation_error',
      message: 'no such domain',
    });
    const refused = await send('echo', 'refused');
    expect(await outcomeOf(refused, 'sent')).toMatchObject({
      outcome: 'dead-letter',
      reason: 'resend.rejected',
    });
    await send('echo', 'next');
    expect(await replies(1)).toMatchObject([{ text: 'echo next' }]);
  });
});

describe('a stop under load', { timeout: 60_000 }, () => {
  it('drains, goes on after the start, and answers each mail once', async () => {
    const texts = Array.from({ length: 40 }, (_, i) => `load ${i}`);
    await Promise.all(texts.map((text, i) => send(i % 2 === 0 ? 'echo' : 'slow', text)));
    expect(await daemon.stop()).toBe(0);
    daemon = await startDaemon(variables);
    const mail = await replies(40);
    expect(mail.map(({ text }) => text?.replace('echo ', '')).sort()).toEqual(texts.sort());
  });
});
