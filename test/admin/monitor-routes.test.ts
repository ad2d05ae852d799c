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
import { systemClock as clock } from '../../src/platform/clock.ts';
import type { ServiceHealth } from '../../src/platform/lifecycle.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Role } from '../../src/platform/roles.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const store = useTemporaryStore();
const lan = Object.values(networkInterfaces())
  .flat()
  .find((found) => found && !found.internal && found.family === 'IPv4')?.address;

let services: ServiceHealth[];
let missing: Role[];
let hasTools: boolean;
let server: HttpServer;

beforeEach(async () => {
  services = [{ name: 'receive', isRunning: true, downMs: 0, failures: 2 }];
  missing = [];
  hasTools = true;
  const health = createHealth({
    store: store(),
    clock,
    services: () => services,
    missingRoles: () => missing,
    hasTools: () => hasTools,
  });
  const app = createMonitorRoutes({ health, registry: new Registry() });
  server = await startHttpServer({ fetch: app.fetch, host: '0.0.0.0', port: 0, log: createLog('silent') });
});
afterEach(() => server.close(0));

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

it('metrics show health as numbers', async () => {
  const text = await (await ask('/metrics')).text();
  expect(text).toContain('millrace_ready 1');
  expect(text).toContain('millrace_service_running{service="receive"} 1');
  expect(text).toContain('millrace_service_failures_total{service="receive"} 2');
});
