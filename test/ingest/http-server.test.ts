/** The server against clients that are slow, large, rude or many, over real sockets. */
import { Hono } from 'hono';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { createBodyReader } from '../../src/ingest/body-reader.ts';
import { createGitWebhookRoute } from '../../src/ingest/git-webhook.ts';
import { startHttpServer } from '../../src/ingest/http-server.ts';
import type { HttpServer } from '../../src/ingest/http-server.ts';
import { createWebhookRoute } from '../../src/ingest/webhook.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Stream } from '../../src/streams/stream-store.ts';

const log = createLog('silent');
const deps = { clock: systemClock, log, bodies: createBodyReader() };
const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';

let server: HttpServer | undefined;
const sockets: Socket[] = [];

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server?.close(0);
});

async function serve(
  app: Hono,
  limits: { requestTimeoutMs?: number; maxConnections?: number } = {},
): Promise<HttpServer> {
  server = await startHttpServer({ fetch: app.fetch, host: '127.0.0.1', port: 0, log, ...limits });
  return server;
}

/** Nothing may reach this stream. */
const forbidden = {
  name: 'events',
  append: () => Promise.reject(new Error('something was appended')),
} as unknown as Stream;

const webhook = () => createWebhookRoute({ ...deps, events: forbidden }, { secrets: [SECRET] });

/** A connection of its own, all it was answered, and its end. */
async function dial(port: number) {
  const socket = connect(port, '127.0.0.1');
  sockets.push(socket);
  // A write to a connection that the server has closed fails; what counts is what was answered.
  socket.on('error', () => {});
  let received = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => (received += chunk));
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  await once(socket, 'connect');
  return { socket, closed, received: () => received };
}

const head = (length: number | 'chunked') =>
  [
    'POST /webhooks/resend HTTP/1.1',
    'host: localhost',
    'content-type: application/json',
    'svix-id: msg_1',
    `svix-timestamp: ${Math.floor(Date.now() / 1000)}`,
    'svix-signature: v1,abc',
    length === 'chunked' ? 'transfer-encoding: chunked' : `content-length: ${length}`,
    '\r\n',
  ].join('\r\n');

test('a body that trickles in is cut off with 408, and others are served meanwhile', async () => {
  const { url, port } = await serve(webhook(), { requestTimeoutMs: 300 });
  const slow = await dial(port);
  slow.socket.write(`${head(1000)}{`);
  expect((await fetch(`${url}/webhooks/resend`)).status).toBe(405);
  await slow.closed;
  expect(slow.received()).toMatch(/^HTTP\/1\.1 408 /);
});

test('headers that trickle in are cut off with 408', async () => {
  const { port } = await serve(webhook(), { requestTimeoutMs: 300 });
  const slow = await dial(port);
  slow.socket.write('POST /webhooks/resend HTTP/1.1\r\nhost: localhost\r\nx-a: ');
  await slow.closed;
  expect(slow.received()).toMatch(/^HTTP\/1\.1 408 /);
});

test('thirty megabytes are 413 before they were read, announced or in chunks', async () => {
  const { url, port } = await serve(webhook());
  const announced = await dial(port);
  announced.socket.write(head(30_000_000));
  await announced.closed;
  expect(announced.received()).toMatch(/^HTTP\/1\.1 413 /);

  const chunked = await dial(port);
  const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
  chunked.socket.write(head('chunked'));
  let sent = 0;
  const flood = (): void => {
    while (!chunked.socket.destroyed && sent < 30_000_000) {
      sent += 0x10000;
      if (!chunked.socket.write(chunk)) break;
    }
  };
  chunked.socket.on('drain', flood);
  flood();
  await chunked.closed;
  expect(chunked.received()).toMatch(/^HTTP\/1\.1 413 |^$/);
  expect(sent).toBeLessThan(30_000_000);
  expect((await fetch(`${url}/webhooks/resend`)).status).toBe(405);
});

test('bodies that stall just before their end hold no more than one limit together, and keep nobody out', async () => {
  const maxHeldBytes = 4 * 1024 * 1024;
  const maxBodyBytes = 512 * 1024;
  const bodies = createBodyReader(maxHeldBytes);
  const tools = { name: 'tools', append: () => Promise.resolve() } as unknown as Stream;
  const route = createGitWebhookRoute({ ...deps, bodies, tools }, { secret: SECRET, maxBodyBytes });
  const { url, port } = await serve(route);
  const stalling = await Promise.all(Array.from({ length: 40 }, () => dial(port)));
  const guess = `POST /webhooks/git HTTP/1.1\r\nhost: localhost\r\nx-gitlab-token: guess\r\ncontent-length: ${maxBodyBytes}\r\n\r\n`;
  for (const { socket } of stalling) socket.write(guess + 'x'.repeat(maxBodyBytes - 1));

  const room = maxHeldBytes / maxBodyBytes;
  const areOpen = (): number => {
    expect(bodies.heldBytes).toBeLessThanOrEqual(maxHeldBytes);
    return stalling.filter(({ socket }) => !socket.destroyed).length;
  };
  await vi.waitFor(() => expect(areOpen()).toBeLessThanOrEqual(room), { timeout: 15_000 });
  expect(stalling[0]!.received()).toMatch(/^HTTP\/1\.1 503 .*^retry-after: 5\r$/ims);
  expect(bodies.heldBytes).toBeGreaterThan(maxHeldBytes / 2);

  const body = JSON.stringify({ commits: 'x'.repeat(400_000) });
  const headers = { 'x-gitea-signature': createHmac('sha256', SECRET).update(body).digest('hex') };
  expect((await fetch(`${url}/webhooks/git`, { method: 'POST', headers, body })).status).toBe(202);
});

describe('at the limit of connections, a new one', () => {
  const maxConnections = 5;
  const dialAll = (port: number) => Promise.all(Array.from({ length: maxConnections }, () => dial(port)));
  const areClosed = (dialed: { socket: Socket }[]): boolean[] => dialed.map(({ socket }) => socket.closed);

  test('takes the place of the one that has been idle the longest', async () => {
    const { port } = await serve(webhook(), { maxConnections });
    const idle = await dialAll(port);
    for (const { socket, received } of idle) {
      socket.write('GET /webhooks/resend HTTP/1.1\r\nhost: localhost\r\n\r\n');
      await vi.waitFor(() => expect(received()).toContain(' 405 '));
    }
    const added = await dial(port);
    await idle[0]!.closed;
    added.socket.write('GET /webhooks/resend HTTP/1.1\r\nhost: localhost\r\n\r\n');
    await vi.waitFor(() => expect(added.received()).toContain(' 405 '));
    expect(areClosed(idle)).toEqual([true, false, false, false, false]);
  });

  test('takes that of one that never sent anything', async () => {
    const { url, port } = await serve(webhook(), { maxConnections });
    const silent = await dialAll(port);
    expect((await fetch(`${url}/webhooks/resend`)).status).toBe(405);
    await silent[0]!.closed;
    expect(areClosed(silent)).toEqual([true, false, false, false, false]);
  });

  test('takes that of the one that has been sending its request the longest, where none is idle', async () => {
    let begun = 0;
    const app = new Hono().use(async (_, next) => {
      begun += 1;
      await next();
    });
    const { url, port } = await serve(app.route('/', webhook()), { maxConnections });
    const slow = await dialAll(port);
    for (const [index, { socket }] of slow.entries()) {
      socket.write(`${head(1000)}{`);
      await vi.waitFor(() => expect(begun).toBe(index + 1));
    }
    expect((await fetch(`${url}/webhooks/resend`)).status).toBe(405);
    await slow[0]!.closed;
    expect(areClosed(slow)).toEqual([true, false, false, false, false]);
  });

  test('is closed where all others have sent their requests and wait for the answers', async () => {
    const release = Promise.withResolvers<void>();
    let begun = 0;
    const app = new Hono().get('/', async (c) => {
      begun += 1;
      await release.promise;
      return c.text('served');
    });
    const { port } = await serve(app, { maxConnections });
    const served = await dialAll(port);
    for (const { socket } of served) socket.write('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n');
    await vi.waitFor(() => expect(begun).toBe(maxConnections));
    await (
      await dial(port)
    ).closed;
    release.resolve();
    for (const { received } of served) await vi.waitFor(() => expect(received()).toContain('served'));
  });
});

test('a body in pieces is one, and holds nothing any more', async () => {
  const bodies = createBodyReader();
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const byte of 'piecemeal') controller.enqueue(Buffer.from(byte));
      controller.close();
    },
  });
  const request = new Request('http://localhost', { method: 'POST', body, duplex: 'half' });
  expect((await bodies.read(request, 100)).toString()).toBe('piecemeal');
  expect(bodies.heldBytes).toBe(0);
});

test('a sender that leaves in the middle of the body harms nobody', async () => {
  const { url, port } = await serve(webhook());
  const leaving = await dial(port);
  leaving.socket.write(`${head(1000)}{"type":`);
  leaving.socket.resetAndDestroy();
  await leaving.closed;
  expect((await fetch(`${url}/webhooks/resend`)).status).toBe(405);
});

test('headers above the limit are 431; what is not HTTP is 400', async () => {
  const { port } = await serve(webhook());
  const large = await dial(port);
  large.socket.write(`GET / HTTP/1.1\r\nhost: localhost\r\nx-a: ${'x'.repeat(20_000)}\r\n\r\n`);
  await large.closed;
  expect(large.received()).toMatch(/^HTTP\/1\.1 431 /);
  const rude = await dial(port);
  rude.socket.write('EHLO mail.example\r\n\r\n');
  await rude.closed;
  expect(rude.received()).toMatch(/^HTTP\/1\.1 400 /);
});

test('closing lets a request under way end, and takes no other', async () => {
  const entered = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  const app = new Hono().get('/slow', async (c) => {
    entered.resolve();
    await release.promise;
    return c.text('done');
  });
  const { url, port, close } = await serve(app);
  const idle = await dial(port);
  const underWay = fetch(`${url}/slow`);
  await entered.promise;
  const closed = close(60_000);
  await idle.closed;
  await expect(fetch(`${url}/slow`)).rejects.toThrow('fetch failed');
  release.resolve();
  expect(await (await underWay).text()).toBe('done');
  await closed;
  await close(0);
});

test('closing cuts off what does not end in time', async () => {
  const entered = Promise.withResolvers<void>();
  const app = new Hono().get('/stuck', () => {
    entered.resolve();
    return new Promise<Response>(() => {});
  });
  const { url, close } = await serve(app);
  const stuck = fetch(`${url}/stuck`).catch((error: unknown) => error);
  await entered.promise;
  await close(50);
  expect(await stuck).toBeInstanceOf(TypeError);
});

test('a port that is taken is told as such', async () => {
  const { port } = await serve(new Hono());
  const second = startHttpServer({ fetch: new Hono().fetch, host: '127.0.0.1', port, log });
  await expect(second).rejects.toMatchObject({
    kind: 'invalid',
    code: 'ingest.cannot_listen',
    hint: expect.stringContaining('set PORT') as string,
  });
});

test('a connection that was accepted just before the end is still served', async () => {
  const app = new Hono();
  app.get('/', (c) => c.text('served'));
  const { port, close } = await serve(app);
  const early = await dial(port);
  const closing = close(5_000);
  early.socket.write('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n');
  await early.closed;
  expect(early.received()).toContain('served');
  await closing;
});
