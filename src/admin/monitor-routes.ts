/**
 * What machines ask of a daemon, mounted before `adminAuth`. docs/metrics.md has the fields.
 *
 * - `GET /healthz`: 200, or 503 where a service does not run or a role is missing. Open to everybody.
 * - `GET /readyz`: 200, or 503 with what is lacking.
 * - `GET /metrics`: 200, in Prometheus' text format.
 *
 * The last two are for programs on this machine. Whoever comes from elsewhere, through a proxy, or under a name
 * that is not this machine's (another site may have bound its own name to our address) is told 404.
 */
import { getConnInfo } from '@hono/node-server/conninfo';
import { Hono } from 'hono';
import type { Context, MiddlewareHandler } from 'hono';
import type { Registry } from 'prom-client';
import { registerHealthMetrics } from './health.ts';
import type { Health } from './health.ts';

const PROXY_HEADERS: readonly string[] = [
  'forwarded',
  'via',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'x-real-ip',
];
const LOOPBACK_ADDRESS = /^(?:(?:::ffff:)?127(?:\.\d+){3}|::1)$/;
const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?$/i;

export function createMonitorRoutes({ health, registry }: { health: Health; registry: Registry }): Hono {
  registerHealthMetrics(health, registry);
  const app = new Hono();
  app.get('/healthz', (c) => {
    const look = health.look();
    return c.json(look, look.status === 'ok' ? 200 : 503);
  });
  app.get('/readyz', onlyLocal, async (c) => {
    const faults = await health.readyFaults();
    const status = faults.length === 0 ? 'ready' : 'not-ready';
    return c.json({ status, faults }, status === 'ready' ? 200 : 503);
  });
  app.get('/metrics', onlyLocal, async (c) =>
    c.body(await registry.metrics(), 200, { 'content-type': registry.contentType }),
  );
  return app;
}

const onlyLocal: MiddlewareHandler = async (c, next) => {
  c.header('Cache-Control', 'no-store');
  if (!isLocal(c)) return c.text('There is nothing here.\n', 404);
  return next();
};

function isLocal(c: Context): boolean {
  const isProxied = PROXY_HEADERS.some((name) => c.req.header(name) !== undefined);
  const address = getConnInfo(c).remote.address ?? '';
  return !isProxied && LOOPBACK_ADDRESS.test(address) && LOOPBACK_HOST.test(c.req.header('host') ?? '');
}
