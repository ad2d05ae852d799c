/**
 * The part of the admin API that is about tools, mounted behind `adminAuth`; docs/admin-api.md has it in full.
 *
 * - `GET /api/admin/tools`: 200, what is live, what is pinned, and the last revisions.
 * - `POST /api/admin/tools/pin`: 200, the revision that is asked for; 422 where it was never live.
 * - `POST /api/admin/tools/unpin`: 200.
 *
 * All of them: 401, 421, 422 and 503 as in `admin-routes.ts`; those with a body: 403, 413, 415.
 */
import { Hono } from 'hono';
import type { Clock } from '../platform/clock.ts';
import type { Log } from '../platform/log.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import { toolsPinBody, toolsUnpinBody } from './admin-parameters.ts';
import { answerApiError, checked, jsonBody, readJsonBody } from './api-errors.ts';
import { pinTools, toolRevisions, unpinTools } from './tool-revisions.ts';

const MAX_BODY_BYTES = 1024;

export function createToolRoutes(deps: { store: StreamStore; clock: Clock; log: Log }): Hono {
  const app = new Hono();
  app.onError((error, c) => answerApiError(error, c, deps.log));
  app.get('/api/admin/tools', async (c) => c.json(await toolRevisions(deps.store, c.req.raw.signal)));
  app.post('/api/admin/tools/pin', jsonBody(MAX_BODY_BYTES), async (c) => {
    const { revision } = checked(toolsPinBody, await readJsonBody(c));
    return c.json(await pinTools(deps, revision, c.req.raw.signal));
  });
  app.post('/api/admin/tools/unpin', jsonBody(MAX_BODY_BYTES), async (c) => {
    checked(toolsUnpinBody, await readJsonBody(c));
    await unpinTools(deps, c.req.raw.signal);
    return c.json({});
  });
  return app;
}
