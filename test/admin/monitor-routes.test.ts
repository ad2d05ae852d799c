/** What machines ask, over real sockets: who is answered, and what. */
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createHealth } from '../../src/admin/health.ts';
import { createMonitorRoutes } from '../../src/admin/monitor-routes.ts';
import { startHttpServer } from '../../src/ingest/http-server.ts';
import type { HttpServer } from '../../src/ingest/http-server.ts';
import type { ServiceHealth } from '../../src/platform/lifecycle.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Role } from '../../src/platform/roles.ts';
import { localError } from '../../src/streams/local-database.ts';
import { watchAppends } from '../../src/streams/append-watch.ts';
import type { AppendWatch } from '../../src/streams/append-watch.ts';
import type { NewRecord, StreamStore } from '../../src/streams/stream-store.ts';
import { createManualClock } from '../streams/manual-clock.ts';
import type { ManualClock } from '../streams/manual-clock.ts';
import { readAll } from '../streams/store-reading.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const store = useTemporaryStore();
const lan = Object.values(networkInterfaces())
  .flat()
  .find((found) => found && !found.internal && found.family === 'IPv4')?.address;

let services: ServiceHealth[];
let missing: Role[];
let hasTools: boolean;
let server: HttpServer;
let clock: ManualClock;
/** What each append fails with, while it is set. */
let broken: unknown;
let watch: AppendWatch;

beforeEach(async () => {
  services = [{ name: 'receive', isRunning: true, downMs: 0, failures: 2 }];
  missing = [];
  hasTools = true;
  clock = createManualClock();
  broken = null;
  watch = watchAppends({ store: breakable(store()), clock });
  const health = createHealth({
    store: watch.store,
    appends: watch,
    clock,
    services: () => services,
    missingRoles: () => missing,
    hasTools: () => hasTools,
  });
  const app = createMonitorRoutes({ health, registry: new Registry() });
  server = await startHttpServer({ fetch: app.fetch, host: '0.0.0.0', port: 0, log: createLog('silent') });
});
afterEach(() => server.close(0));

function breakable(whole: StreamStore): StreamStore {
  return {
    ...whole,
    stream(name) {
      const stream = whole.stream(name);
      return {
        ...stream,
        append: async (...args) => (broken ? Promise.reject(broken) : stream.append(...args)),
      };
    },
  };
}

const ask = (path: string, headers: Record<string, string> = {}, host = '127.0.0.1'): Promise<Response> =>
  fetch(`http://${host}:${server.port}${path}`, { headers });

describe.each(['/readyz', '/metrics'])('%s', (path) => {
  it.each(['127.0.0.1', 'localhost'])('answers a program on this machine that asks %s', async (host) => {
    expect((await ask(path, {}, host)).status).toBe(200);
  });

  it.each(['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-real-ip'])(
    'is not there for what came through a proxy: %s',
    async (name) => {
      expect((await ask(path, { [name]: '127.0.0.1' })).status).toBe(404);
    },
  );

  it('is not there under a name that is not this machine’s', async () => {
    // `fetch` would set the name by itself.
    const asked = request({ port: server.port, path, headers: { host: 'rebound.example.com' } }).end();
    const [response] = (await once(asked, 'response')) as [{ statusCode: number; resume: () => void }];
    response.resume();
    expect(response.statusCode).toBe(404);
  });

  it.runIf(lan !== undefined)('is not there for another address', async () => {
    expect((await ask(path, {}, lan)).status).toBe(404);
  });

  it('is not there behind a real proxy on this machine', async () => {
    const proxy = createServer((incoming, outgoing) => {
      const headers = { ...incoming.headers, 'x-forwarded-for': incoming.socket.remoteAddress };
      request({ port: server.port, path: incoming.url, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 500);
        answer.pipe(outgoing);
      }).end();
    }).listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    const answer = await fetch(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}${path}`);
    expect(answer.status).toBe(404);
    proxy.close();
    proxy.closeAllConnections();
  });
});

it('healthz is open to everybody', async () => {
  expect((await ask('/healthz', { 'x-forwarded-for': '192.0.2.1' })).status).toBe(200);
});

it('healthz tells of a service that does not run, and of a role that nobody does', async () => {
  missing = ['runner'];
  const answer = await ask('/healthz');
  expect(answer.status).toBe(503);
  expect(await answer.json()).toMatchObject({ status: 'degraded', missingRoles: ['runner'] });
  missing = [];
  services = [{ name: 'receive', isRunning: false, downMs: 500, failures: 3 }];
  expect((await ask('/healthz')).status).toBe(503);
});

it('readyz says what is lacking', async () => {
  hasTools = false;
  services = [{ name: 'receive', isRunning: false, downMs: 500, failures: 3 }];
  await store().close();
  const answer = await ask('/readyz');
  expect(answer.status).toBe(503);
  expect(await answer.json()).toEqual({
    status: 'not-ready',
    faults: [
      'receive is not running',
      expect.stringContaining('the stream store cannot be reached') as string,
      'no tools are live yet',
    ],
  });
});

describe('a store that can be read and takes no records', () => {
  const full = localError(Object.assign(new Error('database or disk is full'), { errcode: 13 }));
  const mail = [{ body: 'x'.repeat(50_000) }];
  const append = (records: NewRecord[]): Promise<unknown> =>
    watch.store
      .stream('mail/a')
      .append(records)
      .catch(() => null);
  const status = async (): Promise<number> => (await ask('/readyz')).status;

  // It was ready, and every mail was refused.
  it('is told of where it only does not answer, and not where an append was given up', async () => {
    broken = new DOMException('the process ends', 'AbortError');
    await append(mail);
    expect(await status()).toBe(200);
    broken = new DOMException('no end within 10000 ms', 'TimeoutError');
    await append(mail);
    expect(await status()).toBe(503);
  });

  it('is told with its reason, also as a number', async () => {
    expect(await status()).toBe(200);
    broken = full;
    await append(mail);
    const answer = await ask('/readyz');
    expect(answer.status).toBe(503);
    const fault = expect.stringMatching(/takes no records since 1970-.*disk is full\. .*DATA_DIR/) as string;
    expect(await answer.json()).toEqual({ status: 'not-ready', faults: [fault] });
    expect(await (await ask('/metrics')).text()).toContain('millrace_ready 0');
  });

  it('is ready again by itself when there is room, also where nothing is appended any more', async () => {
    broken = full;
    await append(mail);
    clock.advance(60_000);
    expect(await status()).toBe(503);
    broken = null;
    clock.advance(60_000);
    expect(await status()).toBe(200);
    expect(await readAll(store().stream('probe'))).toEqual([]);
  });

  it('is ready again as soon as an append that is as large succeeds; a smaller one says nothing', async () => {
    broken = full;
    await append(mail);
    broken = null;
    await append([{ body: 'x' }]);
    expect(await status()).toBe(503);
    await append(mail);
    expect(await status()).toBe(200);
  });

  it('is ready where an append was refused by its own condition', async () => {
    const refused = watch.store.stream('mail/a').append(mail, { matchSeqNum: 7 });
    await expect(refused).rejects.toMatchObject({ code: 'streams.seq_num_mismatch' });
    expect(await status()).toBe(200);
  });
});

it('metrics show health as numbers', async () => {
  const text = await (await ask('/metrics')).text();
  expect(text).toContain('millrace_ready 1');
  expect(text).toContain('millrace_service_running{service="receive"} 1');
  expect(text).toContain('millrace_service_failures_total{service="receive"} 2');
});
