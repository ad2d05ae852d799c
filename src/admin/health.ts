/**
 * How this process is, in two questions. *Healthy*: its services run, and no role of the deployment is missing.
 * *Ready*: it can do its work now; what it lacks is told in words. The second asks the store, the first nobody.
 */
import { Counter, Gauge } from 'prom-client';
import type { Registry } from 'prom-client';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError, errorMessage } from '../platform/errors.ts';
import type { ServiceHealth } from '../platform/lifecycle.ts';
import type { Role } from '../platform/roles.ts';
import type { AppendWatch } from '../streams/append-watch.ts';
import { streamNames } from '../streams/records.ts';
import type { StreamStore } from '../streams/stream-store.ts';

export interface HealthDeps {
  store: StreamStore;
  appends: Pick<AppendWatch, 'fault'>;
  clock: Clock;
  services: () => readonly ServiceHealth[];
  missingRoles: () => readonly Role[];
  /** Whether this process knows live tools; null where it does not need to. */
  hasTools: () => boolean | null;
}

export interface Health {
  look(): { status: 'ok' | 'degraded'; services: readonly ServiceHealth[]; missingRoles: readonly Role[] };
  /** What keeps this process from its work; empty when nothing does. Does not reject. */
  workFaults(): Promise<string[]>;
  /** The same, and whether there are tools to work with. */
  readyFaults(): Promise<string[]>;
}

/** A store that takes longer to say where a stream ends is as good as away. */
const STORE_TIMEOUT_MS = 2_000;

export function createHealth(deps: HealthDeps): Health {
  const { store, appends, clock, services, missingRoles, hasTools } = deps;

  async function storeFault(): Promise<string | null> {
    using deadline = createDeadline(clock, STORE_TIMEOUT_MS);
    try {
      await store.stream(streamNames.tools).tail(deadline.signal);
    } catch (error) {
      return `the stream store cannot be reached: ${errorMessage(error)}`;
    }
    const fault = await appends.fault(deadline.signal);
    if (fault === null) return null;
    const since = new Date(fault.sinceMs).toISOString();
    return `the stream store takes no records since ${since}: ${errorWithHint(fault.error)}`;
  }

  async function workFaults(): Promise<string[]> {
    const stopped = services().filter(({ isRunning }) => !isRunning);
    const faults = stopped.map(({ name }) => `${name} is not running`);
    const fault = await storeFault();
    return fault === null ? faults : [...faults, fault];
  }

  return {
    look() {
      const missing = missingRoles();
      const isOk = missing.length === 0 && services().every(({ isRunning }) => isRunning);
      return { status: isOk ? 'ok' : 'degraded', services: services(), missingRoles: missing };
    },
    workFaults,
    async readyFaults() {
      const faults = await workFaults();
      return hasTools() === false ? [...faults, 'no tools are live yet'] : faults;
    },
  };
}

function errorWithHint(error: unknown): string {
  const hint = error instanceof MillraceError ? error.hint : null;
  return hint == null ? errorMessage(error) : `${errorMessage(error)}. ${hint}`;
}

/** Health as metrics, for whoever watches many daemons. */
export function registerHealthMetrics(health: Health, registry: Registry): void {
  registry.registerMetric(
    new Gauge({
      name: 'millrace_ready',
      help: '1 where this process can do its work now, else 0.',
      registers: [],
      async collect() {
        this.set((await health.readyFaults()).length === 0 ? 1 : 0);
      },
    }),
  );
  registry.registerMetric(
    new Gauge({
      name: 'millrace_service_running',
      help: '1 where a service of this process runs, 0 while it waits to be started again.',
      labelNames: ['service'],
      registers: [],
      collect() {
        for (const { name, isRunning } of health.look().services)
          this.set({ service: name }, isRunning ? 1 : 0);
      },
    }),
  );
  registry.registerMetric(
    new Counter({
      name: 'millrace_service_failures_total',
      help: 'How often a service of this process failed and was started again.',
      labelNames: ['service'],
      registers: [],
      collect() {
        this.reset();
        for (const { name, failures } of health.look().services) this.inc({ service: name }, failures);
      },
    }),
  );
}
