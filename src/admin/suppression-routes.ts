/**
 * The part of the admin API that is about addresses to which no mail is sent, mounted behind `adminAuth`;
 * docs/admin-api.md has it in full.
 *
 * - `GET /api/admin/suppressions`: 200, a page of them.
 * - `POST /api/admin/suppressions/lift`: 200, whether there was something to lift.
 *
 * Both: 401, 421, 422 and 503 as in `admin-routes.ts`; the one with a body: 403, 413, 415.
 */
import { Hono } from 'hono';
import { liftBody, suppressionsQuery } from './admin-parameters.ts';
import { answerApiError, checked, jsonBody, readJsonBody } from './api-errors.ts';
import { liftSuppression, suppressionsPage } from './suppressions.ts';
import type { SuppressionsDeps } from './suppressions.ts';

const MAX_BODY_BYTES = 1024;

export function createSuppressionRoutes(
  deps: Omit<SuppressionsDeps, 'keptMs'>,
  options: Pick<SuppressionsDeps, 'keptMs'>,
): Hono {
  const all = { ...deps, ...options };
  const app = new Hono();
  app.onError((error, c) => answerApiError(error, c, deps.log));
  app.get('/api/admin/suppressions', async (c) => {
    const range = checked(suppressionsQuery, c.req.query());
    return c.json(await suppressionsPage(all, range, c.req.raw.signal));
  });
  app.post('/api/admin/suppressions/lift', jsonBody(MAX_BODY_BYTES), async (c) => {
    const { address } = checked(liftBody, await readJsonBody(c));
    return c.json(await liftSuppression(all, address, c.req.raw.signal));
  });
  return app;
}
