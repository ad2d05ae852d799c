/** docs/admin-api.md against the code: every route, and every parameter of each. */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { expect, it } from 'vitest';
import {
  deadLettersQuery,
  liftBody,
  redriveBody,
  replayBody,
  suppressionsQuery,
  toolsPinBody,
  toolsUnpinBody,
} from '../../src/admin/admin-parameters.ts';
import { mailsQuery, recordsQuery, streamsQuery, traceQuery } from '../../src/admin/look-parameters.ts';
import { createAdminRoutes } from '../../src/admin/admin-routes.ts';
import { createSuppressionRoutes } from '../../src/admin/suppression-routes.ts';
import type { Health } from '../../src/admin/health.ts';
import { createLookRoutes } from '../../src/admin/look-routes.ts';
import { createToolRoutes } from '../../src/admin/tool-routes.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';

const parameters: Record<string, z.ZodObject> = {
  'GET /api/admin/dead-letters': deadLettersQuery,
  'POST /api/admin/redrive': redriveBody,
  'POST /api/admin/replay': replayBody,
  'GET /api/admin/mails': mailsQuery,
  'GET /api/admin/health': z.object({}),
  'GET /api/admin/trace': traceQuery,
  'GET /api/admin/streams': streamsQuery,
  'GET /api/admin/streams/records': recordsQuery,
  'GET /api/admin/suppressions': suppressionsQuery,
  'POST /api/admin/suppressions/lift': liftBody,
  'GET /api/admin/tools': z.object({}),
  'POST /api/admin/tools/pin': toolsPinBody,
  'POST /api/admin/tools/unpin': toolsUnpinBody,
};

/** Parameters by route, as the document has them. */
const documented = Object.fromEntries(
  readFileSync(new URL('../../docs/admin-api.md', import.meta.url), 'utf8')
    .split('\n## ')
    .filter((section) => section.startsWith('`'))
    .map((section) => [
      /^`([^`]+)`/.exec(section)?.[1] ?? '',
      [...section.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name).toSorted(),
    ]),
);

it('documents every route that is there, and no other', () => {
  // No route is called: the store is not needed to list them.
  const store = { stream: () => ({}) } as unknown as StreamStore;
  const deps = { store, clock: systemClock, log: createLog('silent') };
  const health = {} as Health;
  const apps = [
    createAdminRoutes({ ...deps, inboxes: () => [] }),
    createToolRoutes(deps),
    createLookRoutes({ ...deps, health }),
    createSuppressionRoutes(deps, { keptMs: 0 }),
  ];
  const served = new Set(
    apps
      .flatMap(({ routes }) => routes)
      .filter(({ path }) => path.startsWith('/api'))
      .map(({ method, path }) => `${method} ${path}`),
  );
  expect(Object.keys(documented).toSorted()).toEqual([...served].toSorted());
});

it('documents every parameter of a route, and no other', () => {
  const taken = Object.entries(parameters).map(([route, schema]) => [
    route,
    Object.keys(schema.shape).toSorted(),
  ]);
  expect(documented).toEqual(Object.fromEntries(taken));
});
