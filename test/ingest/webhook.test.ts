/**
 * The webhook over a real socket, on a real store: what a sender can do to it, and that nothing stands on
 * `events` that was not answered with 200.
 */
import * as fc from 'fast-check';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { Hono } from 'hono';
import { Webhook } from 'svix';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createBodyReader } from '../../src/ingest/body-reader.ts';
import { startHttpServer } from '../../src/ingest/http-server.ts';
import type { HttpServer } from '../../src/ingest/http-server.ts';
import { createWebhookRoute } from '../../src/ingest/webhook.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { headerOf } from '../../src/streams/records.ts';
import type { Stream, StreamStore } from '../../src/streams/stream-store.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const OTHER_SECRET = `whsec_${Buffer.from('another secret of some length').toString('base64')}`;
const EVENT = {
  type: 'email.received',
  created_at: '2026-02-22T23:41:12.126Z',
  data: { email_id: '56761188-7520-42d8-8898-ff6fc54ce618', subject: 'Grüße ✓' },
};

let directory: string;
let store: StreamStore;
let server: HttpServer;
let logged: string[];

const quiet = createLog('silent');
const bodies = createBodyReader();

/** Serves the webhook on `events`, which a test may put in the place of the store's own. */
async function serve(options: { secrets?: string[]; events?: Stream; appendTimeoutMs?: number } = {}) {
  const { secrets = [SECRET], events = store.stream('events'), ...rest } = options;
  logged = [];
  const log = createLog('debug', { write: (line) => logged.push(line) });
  const app = new Hono().route(
    '/',
    createWebhookRoute({ events, bodies, clock: systemClock, log }, { secrets, ...rest }),
  );
  server = await startHttpServer({ fetch: app.fetch, host: '127.0.0.1', port: 0, log });
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'millrace-webhook-'));
  store = await openLocalStore(
    { clock: systemClock, log: quiet },
    { directory, retentionFor: () => 'forever' },
  );
});
afterEach(async () => {
  vi.useRealTimers();
  await server.close(0);
  await store.close();
  await rm(directory, { recursive: true });
});

interface Signing {
  id?: string;
  at?: Date;
  secret?: string;
  headers?: Record<string, string>;
}

/** Headers as Svix sends them for this body. */
function signed(body: string, { id = 'msg_1', at = new Date(), secret = SECRET, headers }: Signing = {}) {
  return {
    'content-type': 'application/json',
    'svix-id': id,
    'svix-timestamp': String(Math.floor(at.getTime() / 1000)),
    'svix-signature': new Webhook(secret).sign(id, at, body),
    ...headers,
  };
}

async function post(
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string>,
): Promise<Response> {
  return fetch(`${server.url}/webhooks/resend`, { method: 'POST', body, headers });
}

async function postSigned(body: string, signing?: Signing): Promise<number> {
  return (await post(body, signed(body, signing))).status;
}

async function storedEvents() {
  return (await store.stream('events').read({ fromSeqNum: 0 })).records;
}

describe('an event that verifies', () => {
  beforeEach(() => serve());

  test('is durable byte for byte, under its key, before the answer is 200', async () => {
    const body = ` ${JSON.stringify(EVENT, null, 3)}\n`;
    const response = await post(body, signed(body, { id: 'msg_2abc' }));
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ ok: true });
    const [record, ...others] = await storedEvents();
    expect(others).toEqual([]);
    expect(Buffer.from(record?.body ?? []).toString()).toBe(body);
    expect(Object.fromEntries(record?.headers ?? [])).toEqual({
      kind: 'event',
      version: '1',
      key: `received/${EVENT.data.email_id}`,
      'svix-id': 'msg_2abc',
      type: 'email.received',
    });
  });

  test.each(['email.bounced', 'contact.created', 'something.new'])(
    'is taken whatever it is: %s',
    async (type) => {
      expect(await postSigned(JSON.stringify({ ...EVENT, type }))).toBe(200);
      expect((await storedEvents()).map((record) => headerOf(record, 'type'))).toEqual([type]);
    },
  );

  test('is taken as often as it comes, always under the same key', async () => {
    const body = JSON.stringify(EVENT);
    const ids = Array.from({ length: 20 }, (_, i) => `msg_${i % 2}`);
    const statuses = await Promise.all(ids.map((id) => postSigned(body, { id })));
    expect(new Set(statuses)).toEqual(new Set([200]));
    const keys = (await storedEvents()).map((record) => headerOf(record, 'key'));
    expect(new Set(keys)).toEqual(new Set([`received/${EVENT.data.email_id}`]));
  });

  test.each([
    ['of another type', { ...EVENT, type: 'email.delivered' }],
    ['about no email that could be asked for', { ...EVENT, data: { ...EVENT.data, email_id: '../../etc' } }],
  ])('%s is known by its svix-id', async (_name, event) => {
    await postSigned(JSON.stringify(event), { id: 'msg_a' });
    await postSigned(JSON.stringify(event), { id: 'msg_b' });
    expect((await storedEvents()).map((record) => headerOf(record, 'key'))).toEqual(['msg_a', 'msg_b']);
  });

  test('may be of any content that JSON can have', async () => {
    await fc.assert(
      fc.asyncProperty(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 5 })), async (data) => {
        const body = JSON.stringify({ type: 'email.received', data });
        // The one key that is refused.
        fc.pre(!body.includes('__proto__'));
        expect(await postSigned(body)).toBe(200);
        expect(Buffer.from((await storedEvents()).at(-1)?.body ?? []).toString()).toBe(body);
      }),
      { numRuns: 50 },
    );
  });

  test('its content never reaches the log', async () => {
    const body = JSON.stringify({ ...EVENT, data: { subject: 'a secret subject' } });
    await postSigned(body);
    await postSigned(body, { secret: OTHER_SECRET });
    await postSigned('{"a secret subject": ', {});
    expect(logged).toHaveLength(2);
    expect(logged.join('')).not.toMatch(/secret subject|whsec_|v1,/);
  });
});

describe('verification is exactly that of Svix', () => {
  const body = JSON.stringify(EVENT);

  test('its test vector verifies at its time', async () => {
    await serve();
    vi.useFakeTimers({ toFake: ['Date'], now: 1_614_265_330_000 });
    const vector = '{"test": 2432232314}';
    const headers = {
      'content-type': 'application/json',
      'svix-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
      'svix-timestamp': '1614265330',
      'svix-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
    };
    // It verifies, and only then turns out to be no event; changed by a byte it does not verify.
    expect((await post(vector, headers)).status).toBe(400);
    expect((await post(vector.replace('4}', '5}'), headers)).status).toBe(401);
  });

  test.each([
    [-300, 200],
    [-301, 401],
    [300, 200],
    [301, 401],
  ])('a clock that is off by %i s answers %i', async (offSeconds, status) => {
    await serve();
    const nowMs = 1_790_000_000_000;
    vi.useFakeTimers({ toFake: ['Date'], now: nowMs });
    expect(await postSigned(body, { at: new Date(nowMs + offSeconds * 1000) })).toBe(status);
    expect(await storedEvents()).toHaveLength(status === 200 ? 1 : 0);
  });

  const valid = () => signed(body)['svix-signature'];
  test.each([
    ['a version that is new, then ours', () => `v2,abc ${valid()}`, 200],
    ['an asymmetric one, then ours', () => `v1a,${'A'.repeat(88)} ${valid()}`, 200],
    [
      'one of another secret, then ours',
      () => `${signed(body, { secret: OTHER_SECRET })['svix-signature']} ${valid()}`,
      200,
    ],
    ['ours under another version', () => valid().replace('v1,', 'v2,'), 401],
    ['ours under the asymmetric version', () => valid().replace('v1,', 'v1a,'), 401],
    ['ours without a version', () => valid().replace('v1,', ''), 401],
    ['ours cut short', () => valid().slice(0, -2), 401],
    ['a version alone', () => 'v1', 401],
    ['an empty one of our version', () => 'v1,', 401],
    ['commas instead of spaces', () => `v1,abc,${valid()}`, 401],
  ])('signatures: %s', async (_, signature, status) => {
    await serve();
    const response = await post(body, signed(body, { headers: { 'svix-signature': signature() } }));
    expect(response.status).toBe(status);
    expect(await storedEvents()).toHaveLength(status === 200 ? 1 : 0);
  });

  test.each(['svix-id', 'svix-timestamp', 'svix-signature'])('without %s it is 401', async (name) => {
    await serve();
    const { [name]: _left, ...headers } = signed(body) as Record<string, string>;
    expect((await post(body, headers)).status).toBe(401);
    expect((await post(body, { ...headers, [name]: '' })).status).toBe(401);
    expect(await storedEvents()).toEqual([]);
  });

  test('another secret, id, time or body is 401, and nothing is appended', async () => {
    await serve();
    expect(await postSigned(body, { secret: OTHER_SECRET })).toBe(401);
    expect((await post(body, { ...signed(body), 'svix-id': 'msg_2' })).status).toBe(401);
    const later = String(Math.floor(Date.now() / 1000) + 7);
    expect((await post(body, { ...signed(body), 'svix-timestamp': later })).status).toBe(401);
    expect((await post(`${body} `, signed(body))).status).toBe(401);
    expect(await storedEvents()).toEqual([]);
  });

  test('during a rotation both secrets are taken, afterwards only the new one', async () => {
    await serve({ secrets: [SECRET, OTHER_SECRET] });
    expect(await postSigned(body, { secret: SECRET })).toBe(200);
    expect(await postSigned(body, { secret: OTHER_SECRET })).toBe(200);
    await server.close(0);
    await serve({ secrets: [OTHER_SECRET] });
    expect(await postSigned(body, { secret: SECRET })).toBe(401);
    expect(await postSigned(body, { secret: OTHER_SECRET })).toBe(200);
  });
});

describe('what is refused', () => {
  beforeEach(() => serve());
  afterEach(async () => {
    // Whatever it was, the process is well, nothing was appended, and no stack was shown.
    expect(await storedEvents()).toEqual([]);
    expect(await postSigned(JSON.stringify(EVENT))).toBe(200);
  });

  async function expectRefused(response: Response, status: number): Promise<void> {
    expect(response.status).toBe(status);
    expect(await response.text()).not.toMatch(/\bat .*\.ts|node_modules|Error:/);
  }

  const nested = (depth: number) => `{"type":"a","data":{"x":${'['.repeat(depth)}${']'.repeat(depth)}}}`;
  test.each([
    ['an array', '[]'],
    ['null', 'null'],
    ['a string', '"email.received"'],
    ['nothing', ''],
    ['half of an object', '{"type":"email.received","data":{'],
    ['data: null', '{"type":"email.received","data":null}'],
    ['data: []', '{"type":"email.received","data":[]}'],
    ['no type', '{"data":{}}'],
    ['a type that is no string', '{"type":7,"data":{}}'],
    ['a type with a line break', '{"type":"a\\nb","data":{}}'],
    ['a type of 400,000 characters', JSON.stringify({ type: 'x'.repeat(400_000), data: {} })],
    ['a __proto__ key', '{"type":"a","data":{"__proto__":{"polluted":true}}}'],
    ['a __proto__ key that is no object', '{"type":"a","data":{"x":[{"__proto__":1}]}}'],
    ['an escaped __proto__ key', '{"type":"a","data":{"\\u005f_proto__":{}}}'],
    ['a constructor.prototype', '{"type":"a","data":{"constructor":{"prototype":{"polluted":true}}}}'],
    ['a depth of 65', nested(63)],
    ['a depth of 100,000', nested(100_000)],
    ['a byte-order mark', `\ufeff${JSON.stringify(EVENT)}`],
  ])('%s is 400, though it verifies', async (_, body) => {
    await expectRefused(await post(body, signed(body)), 400);
  });

  test('invalid UTF-8 is refused, whatever was signed', async () => {
    const text = '{"type":"a","data":{"x":"\ufffd"}}';
    const bytes = Buffer.concat([Buffer.from(text.slice(0, 25)), Buffer.from([0xff]), Buffer.from('"}}')]);
    await expectRefused(await post(new Uint8Array(bytes), signed(text)), 400);
  });

  test.each(['text/plain', 'application/jsonp', 'application/x-www-form-urlencoded', ''])(
    'content type %j is 415',
    async (type) => {
      const body = JSON.stringify(EVENT);
      await expectRefused(await post(body, signed(body, { headers: { 'content-type': type } })), 415);
    },
  );

  test('a compressed body is 415', async () => {
    const body = JSON.stringify(EVENT);
    const headers = signed(body, { headers: { 'content-encoding': 'gzip' } });
    await expectRefused(await post(new Uint8Array(gzipSync(body)), headers), 415);
  });

  test.each(['msg 1', 'msg_ü', 'x'.repeat(129)])('svix-id %j is 400', async (id) => {
    const body = JSON.stringify(EVENT);
    const headers = { ...signed(body), 'svix-id': id };
    await expectRefused(await post(body, headers), 400);
  });

  test.each(['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])('%s is 405', async (method) => {
    const response = await fetch(`${server.url}/webhooks/resend`, { method });
    expect(response.headers.get('allow')).toBe('POST');
    await expectRefused(response, 405);
  });
});

test('a body at the limit is taken, one above it is not', async () => {
  await serve();
  const padded = (size: number) => {
    const empty = JSON.stringify({ type: 'a', data: { x: '' } });
    return empty.replace('""', `"${'x'.repeat(size - empty.length)}"`);
  };
  expect(await postSigned(padded(512 * 1024))).toBe(200);
  expect(await postSigned(padded(512 * 1024 + 1))).toBe(413);
  expect(await storedEvents()).toHaveLength(1);
});

describe('the store', () => {
  const body = JSON.stringify(EVENT);

  /** The store's own stream, with another append. */
  const withAppend = (append: Stream['append']): Stream => ({ ...store.stream('events'), append });

  test.each([
    ['is down', new MillraceError('transient', 'streams.unavailable', 'connection refused')],
    ['was taken over', new MillraceError('permanent', 'streams.fenced', 'fenced')],
    ['has a bug', new TypeError('x is not a function')],
  ])('%s: 503, try again; recovery needs no help', async (_, failure) => {
    let down = true;
    const events = withAppend((records, options) =>
      down ? Promise.reject(failure) : store.stream('events').append(records, options),
    );
    await serve({ events });
    const response = await post(body, signed(body));
    expect(response.status).toBe(503);
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await response.text()).not.toContain(failure.message);
    expect(await storedEvents()).toEqual([]);
    down = false;
    expect(await postSigned(body)).toBe(200);
    expect(await storedEvents()).toHaveLength(1);
  });

  test('it does not answer: 503 in time, and the append is told to stop', async () => {
    let signal: AbortSignal | undefined;
    const events = withAppend((_records, options) => {
      signal = options?.signal;
      return new Promise(() => {});
    });
    await serve({ events, appendTimeoutMs: 50 });
    expect(await postSigned(body)).toBe(503);
    expect(signal?.aborted).toBe(true);
  });

  test('no answer is given before the append is acknowledged', async () => {
    const acknowledged = Promise.withResolvers<{ startSeqNum: number; endSeqNum: number }>();
    const asked = Promise.withResolvers<void>();
    await serve({
      events: withAppend(() => {
        asked.resolve();
        return acknowledged.promise;
      }),
    });
    let status: number | undefined;
    const answered = postSigned(body).then((value) => (status = value));
    await asked.promise;
    // A whole round trip on the same server gives an early answer the time to arrive.
    expect((await fetch(`${server.url}/webhooks/resend`)).status).toBe(405);
    expect(status).toBeUndefined();
    acknowledged.resolve({ startSeqNum: 0, endSeqNum: 1 });
    expect(await answered).toBe(200);
  });
});

test.each([[[]], [['whsec_']], [['whsec_not base64!']], [[SECRET, '']]])(
  'the secrets %j stop the start, and are not quoted',
  async (secrets) => {
    await serve();
    const deps = { events: store.stream('events'), bodies, clock: systemClock, log: quiet };
    const start = () => createWebhookRoute(deps, { secrets });
    expect(start).toThrow(expect.objectContaining({ kind: 'invalid', code: 'config.webhook_secret' }));
    expect(start).not.toThrow(/not base64/);
  },
);
