/**
 * The console: everything behind the admin token, on whatever process listens. The page and the admin API are the
 * same with real mail and without; without, the page can be written to as well.
 */
import { Hono } from 'hono';
import type { Clock } from '../platform/clock.ts';
import type { Service } from '../platform/lifecycle.ts';
import type { Log } from '../platform/log.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import { createAdminRoutes } from './admin-routes.ts';
import { answerNoRoute } from './api-errors.ts';
import type { Health } from './health.ts';
import { createLocalMail } from './local-mail.ts';
import { createLookRoutes } from './look-routes.ts';
import { createMailboxRoutes } from './mailbox-routes.ts';
import { createMailboxView } from './mailbox-view.ts';
import type { MailboxView } from './mailbox-view.ts';
import { createSuppressionRoutes } from './suppression-routes.ts';
import { createToolRoutes } from './tool-routes.ts';
import { createViewOnDemand } from './view-on-demand.ts';

export interface ConsoleDeps {
  store: StreamStore;
  health: Health;
  /** Names of the inboxes that are served now. */
  inboxes: () => readonly string[];
  clock: Clock;
  log: Log;
}

interface ConsoleOptions {
  /** No mail comes from outside: a person writes it on the page. */
  isLocal: boolean;
  /** Our domains, normalised. */
  domains: readonly string[];
  /** How long mail is kept. */
  keptMs: number;
}

export function createConsole(
  deps: ConsoleDeps,
  { isLocal, domains, keptMs }: ConsoleOptions,
): { service: Service; routes: Hono } {
  const createView = (): MailboxView => createMailboxView(deps, { isLocal });
  // Real mail is looked at only while somebody looks at the page.
  const view = isLocal ? createView() : createViewOnDemand(deps.clock, createView);
  const localMail = isLocal ? createLocalMail(deps, { domains }) : null;
  const routes = new Hono();
  routes.route('/', createAdminRoutes(deps));
  routes.route('/', createToolRoutes(deps));
  routes.route('/', createLookRoutes(deps));
  routes.route('/', createSuppressionRoutes(deps, { keptMs }));
  routes.route('/', createMailboxRoutes({ ...deps, localMail, view, domains }));
  routes.all('/api/admin/*', answerNoRoute);
  return { service: { name: 'console', run: (signal) => view.run(signal) }, routes };
}
