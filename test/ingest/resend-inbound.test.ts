import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { RequestListener } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { FetchOptions } from '../../src/ingest/kept-mail.ts';
import { createResendInbound } from '../../src/ingest/resend-inbound.ts';
import type { ResendInbound, ResendInboundOptions } from '../../src/ingest/resend-inbound.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createRateGate } from '../../src/platform/rate-gate.ts';
import type { Fault, ResendStandIn } from '../resend-stand-in/contract.ts';
import { createManualClock } from '../streams/manual-clock.ts';
import { startResendStandIn } from '../resend-stand-in/resend-stand-in.ts';

const RAW = 'From: ann@sender.example\r\nTo: bot@agent.example\r\nSubject: hi\r\n\r\nhello\r\n';
const never = new AbortController().signal;

let standIn: ResendStandIn;
let inbound: ResendInbound;

function connect(options: Partial<ResendInboundOptions> = {}): ResendInbound {
  const gate = createRateGate(systemClock);
  return createResendInbound(
    { clock: systemClock, gate },
    { apiKey: 're_test', baseUrl: standIn.url, ...options },
  );
}

async function receive(raw: string | Uint8Array = RAW): Promise<string> {
  return (await standIn.deliver(raw, { silent: true })).emailId;
}

const digest = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');
const error = (status: number, name: string): Fault => ({ kind: 'error', status, name });

/** A store of files in place of Resend's, to which the download link leads. */
async function serveFiles(
  listener: RequestListener,
): Promise<AsyncDisposable & { download(path: string, options?: FetchOptions): Promise<Uint8Array> }> {
  const server = createServer(listener);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    async download(path, options) {
      const body = JSON.stringify({ raw: { download_url: `http://127.0.0.1:${port}${path}` } });
      await standIn.fault('receive', { kind: 'body', status: 200, body });
      return inbound.rawMessage(await receive(), never, options);
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await once(server.close(), 'close');
    },
  };
}

beforeEach(async () => {
  standIn = await startResendStandIn({ apiKey: 're_test', sendingKey: 're_send' });
  inbound = connect();
});
afterEach(() => standIn.stop());

test('one API call and one download bring the raw message, byte for byte', async () => {
  const raw = new Uint8Array([...Buffer.from(RAW), 0, 255, 254, 128, 13, 10]);
  expect(await inbound.rawMessage(await receive(raw), never)).toEqual(Buffer.from(raw));
  const requests = await standIn.requests();
  expect(requests.map(({ route }) => route)).toEqual(['receive', 'download']);
  // The link is signed; the key is not for it.
  expect(requests[1]?.headers).not.toHaveProperty('authorization');
});

test('thirty megabytes arrive whole', async () => {
  const content = `${'QUJD'.repeat(250)}\r\n`.repeat(30_000);
  const raw = Buffer.from(
    `Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n${RAW}${content}`,
  );
  const bytes = await inbound.rawMessage(await receive(raw), never);
  expect(digest(bytes)).toBe(digest(raw));
});

test('room is reserved for what is announced, and no time limit runs meanwhile', async () => {
  const clock = createManualClock();
  const patient = createResendInbound(
    { clock, gate: createRateGate(systemClock) },
    { apiKey: 're_test', baseUrl: standIn.url, timeoutMs: 30_000, idleTimeoutMs: 10_000 },
  );
  const reserved: number[] = [];
  const reserve = async (bytes: number): Promise<void> => {
    reserved.push(bytes);
    clock.advance(3_600_000);
  };
  const raw = Buffer.from(RAW + 'x'.repeat(5_000_000));
  const bytes = await patient.rawMessage(await receive(raw), never, { reserve });
  expect([digest(bytes), reserved]).toEqual([digest(raw), [raw.length]]);
});

test.each(['../emails', 'x', '', '__proto__', `${randomUUID()}/..`, `${randomUUID()}\n`])(
  'an id that is no UUID is refused before any call: %j',
  async (emailId) => {
    await expect(inbound.rawMessage(emailId, never)).rejects.toMatchObject({
      kind: 'permanent',
      code: 'resend.invalid_email_id',
    });
    expect(await standIn.requests()).toHaveLength(0);
  },
);

test('an email that is not there yet is missing, and comes later', async () => {
  const emailId = await receive();
  await standIn.fault('receive', { kind: 'not-found-for', ms: 3000 });
  await expect(inbound.rawMessage(emailId, never)).rejects.toMatchObject({
    kind: 'transient',
    code: 'resend.content_missing',
  });
  await standIn.advanceClock(3000);
  expect((await inbound.rawMessage(emailId, never)).byteLength).toBe(RAW.length);
});

test.each<[Fault]>([
  [error(404, 'email_not_found')],
  [{ kind: 'body', status: 404, body: JSON.stringify({ statusCode: 404, message: 'Not found' }) }],
  [{ kind: 'body', status: 404, body: '<html>' }],
])('an email that is not there is missing, however Resend names it: %j', async (fault) => {
  await standIn.fault('receive', fault);
  await expect(inbound.rawMessage(await receive(), never)).rejects.toMatchObject({
    kind: 'transient',
    code: 'resend.content_missing',
  });
});

test('an email without a raw message is missing', async () => {
  const body = JSON.stringify({ object: 'email', raw: null });
  await standIn.fault('receive', { kind: 'body', status: 200, body });
  await expect(inbound.rawMessage(await receive(), never)).rejects.toMatchObject({
    code: 'resend.content_missing',
  });
});

describe('what the API call meets', () => {
  test.each<[Fault, string, string]>([
    [error(500, 'internal_server_error'), 'transient', 'resend.unavailable'],
    [error(429, 'rate_limit_exceeded'), 'transient', 'resend.rate_limited'],
    [error(403, 'email_above_quota'), 'transient', 'resend.content_above_quota'],
    [error(422, 'validation_error'), 'permanent', 'resend.rejected'],
    [{ kind: 'truncated' }, 'transient', 'resend.unavailable'],
    [{ kind: 'empty' }, 'transient', 'resend.unavailable'],
    [{ kind: 'reset' }, 'transient', 'resend.unavailable'],
    [{ kind: 'hang' }, 'transient', 'resend.unavailable'],
    [{ kind: 'body', status: 500, body: 'null' }, 'transient', 'resend.unavailable'],
    [{ kind: 'body', status: 502, body: '<html>' }, 'transient', 'resend.unavailable'],
  ])('%j is %s %s', async (fault, kind, code) => {
    inbound = connect({ timeoutMs: 300 });
    await standIn.fault('receive', fault);
    const emailId = await receive();
    await expect(inbound.rawMessage(emailId, never)).rejects.toMatchObject({ kind, code });
  });

  test('a key that may only send is told apart', async () => {
    const emailId = await receive();
    await expect(connect({ apiKey: 're_send' }).rawMessage(emailId, never)).rejects.toMatchObject({
      kind: 'transient',
      code: 'resend.unauthorized',
    });
  });

  test.each(['file:///etc/passwd', 'data:,hello', 'not a URL'])(
    'a link to %s is not followed',
    async (link) => {
      const body = JSON.stringify({ raw: { download_url: link } });
      await standIn.fault('receive', { kind: 'body', status: 200, body });
      await expect(inbound.rawMessage(await receive(), never)).rejects.toMatchObject({
        code: 'resend.download_failed',
      });
    },
  );
});

describe('what the download meets', () => {
  test('a link that has expired is asked for again, once', async () => {
    await standIn.fault('receive', { kind: 'expired-link' });
    expect((await inbound.rawMessage(await receive(), never)).byteLength).toBe(RAW.length);
    expect((await standIn.requests()).map(({ route }) => route)).toEqual([
      'receive',
      'download',
      'receive',
      'download',
    ]);
    await standIn.fault('receive', { kind: 'expired-link' }, 2);
    await expect(inbound.rawMessage(await receive(), never)).rejects.toMatchObject({
      kind: 'transient',
      code: 'resend.download_failed',
    });
  });

  test.each<[Fault]>([
    [{ kind: 'truncated' }],
    [{ kind: 'stall' }],
    [{ kind: 'hang' }],
    [{ kind: 'reset' }],
    [{ kind: 'error', status: 503, name: 'slow_down' }],
    [{ kind: 'body', status: 200, body: '' }],
  ])('%j yields no bytes, but a failure to repeat', async (fault) => {
    inbound = connect({ idleTimeoutMs: 200 });
    await standIn.fault('download', fault);
    await expect(inbound.rawMessage(await receive(), never)).rejects.toMatchObject({
      kind: 'transient',
      code: 'resend.download_failed',
    });
  });

  // They were kept as the mail, for good, and answered nobody.
  test.each<[string, number, Record<string, string>, string | Buffer]>([
    ['a compressed answer', 200, { 'content-encoding': 'gzip' }, gzipSync(RAW)],
    [
      'a page of a proxy',
      200,
      { 'content-type': 'text/html' },
      '<html><body>Down for maintenance</body></html>',
    ],
    ['a page that is no page', 200, { 'content-type': 'text/html' }, 'Down for maintenance'],
    ['an error with a status of success', 200, {}, '{"message":"Try later","from":"us"}'],
    ['a part', 206, { 'content-range': 'bytes 0-49/100' }, RAW.slice(0, 50)],
    ['another kind of success', 203, {}, RAW],
    ['nothing', 204, {}, ''],
  ])('%s is no mail, but a failure to repeat', async (_, status, headers, body) => {
    await using files = await serveFiles((_request, response) => {
      response.writeHead(status, headers).end(body);
    });
    await expect(files.download('/')).rejects.toMatchObject({
      kind: 'transient',
      code: 'resend.download_failed',
    });
  });

  test.each([
    'Received: from x\n\n',
    'X-Odd: 1\r\nsubject : no author\r\n\r\n',
    'From ann@x Sun Nov 22 17:00:00 2026\nDate: x\n',
    '\ufeffX: y\r\nTo: bot@agent.example\r\n',
    '\r\nFrom: ann@sender.example\r\n\r\nan empty line first',
    'From: ann@sender.example\rTo: bot@agent.example\r\rold line ends',
    'no header at all',
    '\x00\xff',
  ])('an odd mail is a mail: %j', async (raw) => {
    expect(Buffer.from(await inbound.rawMessage(await receive(raw), never)).toString()).toBe(raw);
  });

  test('a redirect is followed, to what a link may be, and not for ever', async () => {
    const places: Record<string, string> = {
      '/moved': '/here',
      '/file': 'file:///etc/passwd',
      '/loop': '/loop',
    };
    await using files = await serveFiles(({ url = '' }, response) => {
      const location = places[url];
      response.writeHead(location ? 302 : 200, location ? { location } : {}).end(location ? '' : RAW);
    });
    const download = (path: string): Promise<Uint8Array> => files.download(path);
    expect(Buffer.from(await download('/moved')).toString()).toBe(RAW);
    await expect(download('/file')).rejects.toMatchObject({ code: 'resend.download_failed' });
    await expect(download('/loop')).rejects.toMatchObject({ code: 'resend.download_failed' });
  });

  test('one that does not say how long it is has room for the largest, once it is not small', async () => {
    const raw = Buffer.from(RAW + 'x'.repeat(3_000_000));
    await using files = await serveFiles(({ url }, response) => {
      response.writeHead(200).flushHeaders();
      response.end(url === '/small' ? RAW : raw);
    });
    inbound = connect({ maxBytes: 4_000_000 });
    const reserved: number[] = [];
    const reserve = async (bytes: number): Promise<void> => void reserved.push(bytes);
    expect(digest(await files.download('/small', { reserve }))).toBe(digest(Buffer.from(RAW)));
    expect(reserved).toEqual([]);
    expect(digest(await files.download('/large', { reserve }))).toBe(digest(raw));
    expect(reserved).toEqual([4_000_000]);
    inbound = connect({ maxBytes: 2_000_000 });
    await expect(files.download('/large')).rejects.toMatchObject({ code: 'resend.content_too_large' });
  });

  test('one that breaks off while there is no room for it is a failure to repeat', async () => {
    const asked = Promise.withResolvers<Socket>();
    await using files = await serveFiles(({ socket }, response) => {
      response.writeHead(200, { 'content-length': 5_000_000 }).flushHeaders();
      asked.resolve(socket);
    });
    const reserve = async (): Promise<void> => {
      const socket = await asked.promise;
      socket.destroy();
      await once(socket, 'close');
    };
    await expect(files.download('/', { reserve })).rejects.toMatchObject({ code: 'resend.download_failed' });
  });

  test('a slow one that keeps coming is waited for', async () => {
    inbound = connect({ idleTimeoutMs: 1000 });
    // Four pauses: longer than the limit on silence together, but none by itself.
    await standIn.fault('download', { kind: 'trickle', pauseMs: 350 });
    expect((await inbound.rawMessage(await receive(), never)).byteLength).toBe(RAW.length);
  });

  test('an email above the limit is refused for good, whether announced or not', async () => {
    inbound = connect({ maxBytes: 10 });
    await expect(inbound.rawMessage(await receive(), never)).rejects.toMatchObject({
      kind: 'permanent',
      code: 'resend.content_too_large',
    });
  });
});

test('the caller ends it, wherever it is, with its own reason', async () => {
  const emailId = await receive();
  for (const route of ['receive', 'download'] as const) {
    await standIn.fault(route, { kind: 'hang' });
    const caller = new AbortController();
    const ended = inbound.rawMessage(emailId, caller.signal);
    await expect.poll(async () => (await standIn.requests()).at(-1)?.route).toBe(route);
    caller.abort(new Error('drain'));
    await expect(ended).rejects.toThrow('drain');
  }
});
