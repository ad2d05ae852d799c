/**
 * A pool of sandboxes whose runs are counted and timed. A run's time is the tool's own: what it waited for a
 * child is not in it, and shows as runs that wait.
 */
import { Counter, Gauge, Histogram } from 'prom-client';
import type { Registry } from 'prom-client';
import type { SandboxPool } from './sandbox/sandbox.ts';

const DURATION_BUCKETS_SECONDS = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60];

export function createMeteredPool(pool: SandboxPool, registry: Registry): SandboxPool {
  const registers = [registry];
  const durations = new Histogram({
    name: 'millrace_run_duration_seconds',
    help: 'How long tools ran.',
    labelNames: ['status'],
    buckets: DURATION_BUCKETS_SECONDS,
    registers,
  });
  registry.registerMetric(
    new Gauge({
      name: 'millrace_sandbox_children',
      help: 'Sandbox processes that there are.',
      registers: [],
      collect() {
        this.set(pool.stats().children);
      },
    }),
  );
  registry.registerMetric(
    new Gauge({
      name: 'millrace_sandbox_waiting_runs',
      help: 'Runs that wait for a sandbox process.',
      registers: [],
      collect() {
        this.set(pool.stats().waiting);
      },
    }),
  );
  registry.registerMetric(
    new Counter({
      name: 'millrace_sandbox_starts_total',
      help: 'Sandbox processes that were started: the first ones, and those in place of others that ended.',
      registers: [],
      collect() {
        this.reset();
        this.inc(pool.stats().starts);
      },
    }),
  );
  return {
    start: () => pool.start(),
    inspect: (bundle, signal) => pool.inspect(bundle, signal),
    stats: () => pool.stats(),
    close: () => pool.close(),
    async run(request) {
      const result = await pool.run(request);
      durations.observe({ status: result.status }, result.durationMs / 1000);
      return result;
    },
  };
}
