/**
 * The part of the admin API with which a person begins to look, mounted behind `adminAuth`; docs/admin-api.md has it
 * in full.
 *
 * - `GET /api/admin/mails`: 200, a page of mail that came, newest first.
 * - `GET /api/admin/health`: 200, how this process, its roles and every stage are, well or not.
 *
 * Both: 401, 421, 422 and 503 as in `admin-routes.ts`.
 */
import { Hono } from 'hono';
import type { Log } from '../platform/log.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import { answerApiError, checked } from './api-errors.ts';
import { findMails } from './find-mails.ts';
import type { Health } from './health.ts';
import { mailsQuery } from './look-parameters.ts';
import { stageLags } from './stage-lag.ts';

export function createLookRoutes(deps: { store: StreamStore; health: Health; log: Log }): Hono {
  const { store, health, log } = deps;
  const app = new Hono();
  app.onError((error, c) => answerApiError(error, c, log));
  app.get('/api/admin/mails', async (c) =>
    c.json(await findMails(store, checked(mailsQuery, c.req.query()), c.req.raw.signal)),
  );
  app.get('/api/admin/health', async (c) => {
    const faults = await health.readyFaults();
    return c.json({ ...health.look(), faults, stages: await stageLags(store, c.req.raw.signal) });
  });
  return app;
}
