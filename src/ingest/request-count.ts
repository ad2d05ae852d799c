/**
 * Counts what the webhooks are sent: events that were accepted, which are durable then, and requests that were
 * not, by status.
 */
import type { MiddlewareHandler } from 'hono';
import { Counter } from 'prom-client';
import type { Registry } from 'prom-client';

const ROUTES: readonly string[] = ['resend', 'git'];

/** Middleware for `/webhooks/*`. What is no route of ours counts together, so that strangers add no label. */
export function countRequests(registry: Registry): MiddlewareHandler {
  const registers = [registry];
  const accepted = new Counter({
    name: 'millrace_accepted_events_total',
    help: 'Events of a webhook that were accepted, duplicates among them.',
    labelNames: ['route'],
    registers,
  });
  const refused = new Counter({
    name: 'millrace_refused_requests_total',
    help: 'Requests to a webhook that were not accepted, by status.',
    labelNames: ['route', 'status'],
    registers,
  });
  return async (c, next) => {
    await next();
    const name = c.req.path.slice('/webhooks/'.length);
    const route = ROUTES.includes(name) ? name : 'other';
    if (c.res.ok) accepted.inc({ route });
    else refused.inc({ route, status: c.res.status });
  };
}
