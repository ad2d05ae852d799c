/**
 * The composition root: the only place that constructs across folders. Configuration in, services out.
 */
import { availableParallelism } from 'node:os';
import { Hono } from 'hono';
import type { Registry } from 'prom-client';
import { adminAuth } from './admin/admin-auth.ts';
import { createConsole } from './admin/console.ts';
import { removeDaemonFile, writeDaemonFile } from './admin/daemon-file.ts';
import { createHealth } from './admin/health.ts';
import { createMonitorRoutes } from './admin/monitor-routes.ts';
import { createBodyReader } from './ingest/body-reader.ts';
import { createGitWebhookRoute } from './ingest/git-webhook.ts';
import { startHttpServer } from './ingest/http-server.ts';
import { noInbound } from './ingest/kept-mail.ts';
import type { InboundProvider } from './ingest/kept-mail.ts';
import { receiveStage } from './ingest/receive-stage.ts';
import { countRequests } from './ingest/request-count.ts';
import { createResendInbound } from './ingest/resend-inbound.ts';
import { createMailThread } from './mail/mail-thread.ts';
import type { MailWork } from './mail/mail-work.ts';
import { createWebhookRoute } from './ingest/webhook.ts';
import { createFindDelivered } from './outbox/find-delivered.ts';
import { createFindSent } from './outbox/find-sent.ts';
import { createMailboxOutbound } from './outbox/mailbox-outbound.ts';
import { createMeteredOutbound } from './outbox/metered-outbound.ts';
import { createOutboxUnit } from './outbox/outbox-unit.ts';
import type { OutboundProvider } from './outbox/outbox.ts';
import { createResendOutbound } from './outbox/resend-outbound.ts';
import type { Clock } from './platform/clock.ts';
import type { Config, Secrets } from './platform/config.ts';
import { errorKind } from './platform/errors.ts';
import { createServices } from './platform/lifecycle.ts';
import type { Service } from './platform/lifecycle.ts';
import { makeDataDir } from './platform/data-dir.ts';
import type { Log } from './platform/log.ts';
import { createMeteredRateGate } from './platform/metered-rate-gate.ts';
import { createMetrics } from './platform/metrics.ts';
import { systemProcesses } from './platform/process-identity.ts';
import { createRateGate } from './platform/rate-gate.ts';
import type { RateGate } from './platform/rate-gate.ts';
import { release } from './platform/release.ts';
import type { Role } from './platform/roles.ts';
import { supervisionOf } from './platform/supervision.ts';
import { createMeteredPool } from './runner/metered-pool.ts';
import { createReplyCaps, defaultReplyCaps } from './runner/reply-caps.ts';
import { createRunner } from './runner/runner.ts';
import { createSandboxPool } from './runner/sandbox/pool.ts';
import type { SandboxPool } from './runner/sandbox/sandbox.ts';
import { createSync, syncOptions } from './runner/sync/sync.ts';
import { createTextLookup } from './runner/sender-lookups.ts';
import { createSenderAuthentication } from './runner/senders.ts';
import { createToolBreaker } from './runner/tool-breaker.ts';
import type { ToolSet } from './runner/tool-set.ts';
import { createTools } from './runner/tools.ts';
import { watchAppends } from './streams/append-watch.ts';
import { openConfiguredStore } from './streams/configured-store.ts';
import { createFormatGuard } from './streams/format.ts';
import type { FormatGuard } from './streams/format.ts';
import { createLiveTools } from './streams/live-tools.ts';
import type { LiveTools } from './streams/live-tools.ts';
import { createMembership } from './streams/membership.ts';
import { createSharedOwnership, createSoleOwnership } from './streams/ownership.ts';
import type { Ownership } from './streams/ownership.ts';
import { streamNames } from './streams/records.ts';
import { createRolePresence } from './streams/role-presence.ts';
import { createStageMeter } from './streams/stage-meter.ts';
import type { StageMeter } from './streams/stage-meter.ts';
import { createStage } from './streams/stage.ts';
import type { StageOptions } from './streams/stage.ts';
import type { StreamStore } from './streams/stream-store.ts';

export interface AppDeps {
  config: Config;
  secrets: Secrets;
  clock: Clock;
  log: Log;
  /** What this process does; default: everything. */
  roles: readonly Role[];
  /** Stands between the daemon and its streams: the crash matrix ends the process there. */
  wrapStore?: (store: StreamStore) => StreamStore;
}

export interface App extends AsyncDisposable {
  /** Where a person looks: the local mailbox's page with its token; null where this process has none. */
  readonly link: string | null;
  /** Where it listens, or null for a role without HTTP. */
  readonly url: string | null;
  /** Works until the signal is aborted. */
  run(signal: AbortSignal): Promise<void>;
}

const DRAIN_MS = 8_000;
const DAY_MS = 86_400_000;
const LOOPBACK = '127.0.0.1';

/** What the roles of a process share. */
interface Parts {
  store: StreamStore;
  ownership: Ownership;
  gate: RateGate;
  liveTools: LiveTools;
  registry: Registry;
  meter: StageMeter;
  mailWork: MailWork;
  stack: AsyncDisposableStack;
}

/** Opens the store, listens, and is ready to run. */
export async function createApp(deps: AppDeps): Promise<App> {
  const { config, secrets, clock, log, roles } = deps;
  // What a failing start has opened is closed again: nothing may keep the process alive.
  await using stack = new AsyncDisposableStack();
  openDataDir(config, log);
  const bareStore = await openConfiguredStore(deps);
  stack.defer(() => bareStore.close());
  const appends = watchAppends({ store: deps.wrapStore?.(bareStore) ?? bareStore, clock });
  const { store } = appends;
  const format = createFormatGuard({ store, clock, log }, { release });
  await checkFormat(format, log);
  const registry = createMetrics();
  const gate = createMeteredRateGate({ gate: createRateGate(clock), clock, registry });
  const liveTools = createLiveTools({ store, log });
  const meter = createStageMeter({ store, clock, registry });
  const { ownership, services, missingRoles } = ownershipOf(deps, store);
  const mailWork = createMailThread({ clock });
  stack.defer(() => mailWork.close());
  const parts: Parts = { store, ownership, gate, liveTools, registry, meter, mailWork, stack };
  if (roles.includes('ingest')) services.push(...receiveServices(deps, parts));
  const syncs = roles.includes('sync') && config.tools.repo !== null;
  const pool = roles.includes('runner') || syncs ? sandboxPool(deps, parts) : null;
  const runner = roles.includes('runner') ? runnerServices(deps, parts, pool!) : null;
  if (runner) services.push(...runner.services);
  if (syncs) services.push(syncService(deps, parts, pool!));
  if (roles.includes('outbox')) services.push(outboxService(deps, parts));
  const hasTools = (): boolean =>
    (!runner || runner.tools.current() !== undefined) &&
    (!roles.includes('ingest') || liveTools.current() !== undefined);
  const serving = { services: () => running.health(), missingRoles, hasTools };
  const health = createHealth({ store, appends, clock, ...serving });
  const inboxes = (): readonly string[] => liveTools.current()?.inboxes ?? [];
  const console = createConsole(
    { store, health, inboxes, clock, log },
    { isLocal: config.resend === null, domains: config.domains, keptMs: config.retentionDays * DAY_MS },
  );
  if (roles.includes('ingest')) services.push(console.service);
  const running = createServices({ clock, log }, [
    format.service,
    ...services.map((service) => format.behind(service)),
    ...supervisionOf({ clock, log, health }, config.supervisor),
  ]);
  const monitor = createMonitorRoutes({ health, registry });
  const listen = async (
    app: Hono,
    at: { host: string; port: number; fd?: number | null },
  ): Promise<string> => {
    const server = await startHttpServer({ fetch: app.fetch, ...at, log });
    stack.defer(() => server.close(DRAIN_MS));
    return server.url;
  };
  let url: string | null = null;
  const token = secrets.adminToken?.reveal() ?? clock.uuid();
  if (roles.includes('ingest')) {
    const app = routes(deps, { store, monitor, token, console: console.routes, registry });
    const { host, port, supervisor } = config;
    url = await listen(app, { host, port, fd: supervisor.listenFd });
    const folder = supervisor.runtimeDir ?? config.dataDir;
    writeDaemonFile(folder, { url, token, pid: process.pid, identity: systemProcesses.own });
    // First of all when it stops: nobody is sent to a port that is about to be free.
    stack.defer(() => removeDaemonFile(folder, process.pid));
  }
  if (config.metricsPort !== null) await listen(monitor, { host: LOOPBACK, port: config.metricsPort });
  const opened = stack.move();
  return {
    url,
    link: url !== null && config.resend === null ? `${url}/?token=${encodeURIComponent(token)}` : null,
    run: (signal) => running.run(signal),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

/** What a newer release wrote ends the start; a store that is out of reach is looked at as soon as it is back. */
async function checkFormat(format: FormatGuard, log: Log): Promise<void> {
  try {
    await format.check();
  } catch (error) {
    if (errorKind(error) !== 'transient') throw error;
    log.warn({ error }, 'streams.format_not_checked');
  }
}

/** On S2 several processes share the work; the local store belongs to one. */
function ownershipOf(
  { config, clock, log, roles }: AppDeps,
  store: StreamStore,
): { ownership: Ownership; services: Service[]; missingRoles: () => Role[] } {
  if (config.streams.kind === 'local')
    return { ownership: createSoleOwnership(store), services: [], missingRoles: () => [] };
  const membership = createMembership({ store, clock, log, processes: systemProcesses });
  const presence = createRolePresence({ membership, clock }, roles);
  return {
    ownership: createSharedOwnership({ store, membership, clock, log }),
    services: [{ name: 'members', run: (signal) => membership.run(signal) }],
    missingRoles: () => presence.missing(),
  };
}

/** A stage is made anew at each of its turns: what it knows is on its journal. */
function stageService({ clock, log }: AppDeps, { ownership, meter }: Parts, options: StageOptions): Service {
  const unit = {
    name: options.name,
    work: (store: StreamStore, signal: AbortSignal) =>
      createStage({ store, clock, log, meter }, options).run(signal),
  };
  return { name: options.name, run: (signal) => ownership.run(unit, signal) };
}

function receiveServices(deps: AppDeps, parts: Parts): Service[] {
  const { config, secrets, clock } = deps;
  const { store, gate, liveTools, mailWork } = parts;
  const inbound: InboundProvider = config.resend
    ? createResendInbound(
        { clock, gate },
        {
          apiKey: secrets.resendApiKey!.reveal(),
          ...(config.resend.baseUrl === null ? {} : { baseUrl: config.resend.baseUrl }),
        },
      )
    : noInbound;
  return [
    { name: 'live-tools', run: (signal) => liveTools.run(signal) },
    stageService(
      deps,
      parts,
      receiveStage(
        { store, inbound, tools: liveTools, mailWork },
        { domains: config.domains, historyMs: config.retentionDays * DAY_MS },
      ),
    ),
  ];
}

function openDataDir({ dataDir }: Config, log: Log): void {
  const hint = `Every user of this machine may look into it: chmod -R go= ${dataDir}`;
  if (makeDataDir(dataDir).isOpenToAll) log.warn({ dataDir, hint }, 'config.data_dir_open');
}

/** What --once does: one look at the repository. */
export async function syncOnce(deps: AppDeps, signal: AbortSignal): Promise<'live' | 'refused'> {
  await using stack = new AsyncDisposableStack();
  const { config, clock, log } = deps;
  openDataDir(config, log);
  const store = await openConfiguredStore(deps);
  stack.defer(() => store.close());
  await createFormatGuard({ store, clock, log }, { release }).check(signal);
  const pool = createSandboxPool({ clock, log }, {});
  stack.defer(() => pool.close());
  // Awaited here: the store is closed as soon as this returns.
  return await createSync({ clock, log, pool }, syncOptions(config, deps.secrets))(store).once(signal);
}

function syncService(
  { config, secrets, clock, log }: AppDeps,
  { ownership }: Parts,
  pool: SandboxPool,
): Service {
  const sync = createSync({ clock, log, pool }, syncOptions(config, secrets));
  const unit = {
    name: 'sync',
    work: (store: StreamStore, signal: AbortSignal) => sync(store).run(signal),
  };
  return { name: 'sync', run: (signal) => ownership.run(unit, signal) };
}

function sandboxPool({ clock, log }: AppDeps, { registry, stack }: Parts): SandboxPool {
  const pool = createMeteredPool(createSandboxPool({ clock, log }, {}), registry);
  stack.defer(() => pool.close());
  return pool;
}

function runnerServices(
  deps: AppDeps,
  { store, ownership, meter, mailWork }: Parts,
  pool: SandboxPool,
): { services: Service[]; tools: ToolSet } {
  const { config, secrets, clock, log } = deps;
  // The first mail after a start shall not wait for it; what is wrong with it, that mail's run says.
  pool.start().catch(() => {});
  const tools = createTools({ store, clock, log, pool }, config.tools);
  const toolSecrets = Object.fromEntries([...secrets.tools].map(([name, secret]) => [name, secret.reveal()]));
  const breaker = createToolBreaker({ clock, log });
  const lookUp = createTextLookup(config.dnsServers);
  const authenticate = createSenderAuthentication({ mailWork, lookUp, clock });
  const createCaps = () => createReplyCaps({ store, clock }, defaultReplyCaps);
  const runner = createRunner(
    {
      store,
      ownership,
      pool,
      tools,
      createCaps,
      breaker,
      mailWork,
      authenticate,
      clock,
      log,
      toolSecrets,
      meter,
    },
    {
      domains: config.domains,
      concurrency: 4 * availableParallelism(),
      historyMs: config.retentionDays * DAY_MS,
      // A request that waits expires with all other mail: the last third is for what may hold it up.
      maxDelayMs: (config.retentionDays * DAY_MS * 2) / 3,
    },
  );
  const services = [
    { name: 'tools', run: (signal: AbortSignal) => tools.run(signal) },
    { name: 'runner', run: (signal: AbortSignal) => runner.run(signal) },
  ];
  return { services, tools };
}

function outboundProvider(
  { config, secrets, clock, log }: AppDeps,
  { store, gate }: Parts,
): OutboundProvider {
  if (!config.resend) return createMailboxOutbound({ store, clock, log });
  const baseUrl = config.resend.baseUrl === null ? {} : { baseUrl: config.resend.baseUrl };
  const sending = createResendOutbound(
    { clock, gate },
    { apiKey: secrets.resendSendingKey!.reveal(), ...baseUrl },
  );
  // Looking up what was sent needs a key that may read.
  const readingKey = secrets.resendApiKey ?? secrets.resendSendingKey!;
  const findDelivered = createFindDelivered({ store });
  const findSent = createFindSent({ clock, gate }, { apiKey: readingKey.reveal(), ...baseUrl });
  return {
    ...sending,
    findSent: async (...asked) => (await findDelivered(...asked)) ?? findSent(...asked),
  };
}

function outboxService(deps: AppDeps, parts: Parts): Service {
  const { ownership, registry, meter } = parts;
  const { config, clock, log } = deps;
  const outbound = createMeteredOutbound(outboundProvider(deps, parts), registry);
  const keptMs = config.retentionDays * DAY_MS;
  const unit = createOutboxUnit({ outbound, clock, log, meter, registry }, { keptMs });
  return { name: unit.name, run: (signal) => ownership.run(unit, signal) };
}

interface RouteParts {
  store: StreamStore;
  registry: Registry;
  /** What machines ask. */
  monitor: Hono;
  /** What a person asks, with the token. */
  console: Hono;
  token: string;
}

function routes({ config, secrets, clock, log }: AppDeps, parts: RouteParts): Hono {
  const { store, monitor, token } = parts;
  const app = new Hono();
  app.use('/webhooks/*', countRequests(parts.registry));
  app.route('/', monitor);
  const bodies = createBodyReader();
  if (config.resend) {
    const events = store.stream(streamNames.events);
    const webhookSecrets = secrets.resendWebhookSecrets.map((secret) => secret.reveal());
    app.route('/', createWebhookRoute({ events, bodies, clock, log }, { secrets: webhookSecrets }));
  }
  if (secrets.gitWebhookSecret) {
    const tools = store.stream(streamNames.tools);
    const secret = secrets.gitWebhookSecret.reveal();
    app.route('/', createGitWebhookRoute({ tools, bodies, clock, log }, { secret }));
  }
  // What is public stands above this line.
  app.use('*', adminAuth(token, { bindHost: config.host, publicUrl: config.publicUrl }));
  app.route('/', parts.console);
  return app;
}
