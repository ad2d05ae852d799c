/**
 * The registry that metrics are kept in, and those of the process itself. What a stage, the sandbox or the
 * sending counts is declared where it happens; docs/metrics.md lists everything, and a test compares the two.
 *
 * Recording is an addition to a number: nothing is measured, asked or put into text before somebody reads.
 */
// It measures the loop that timers run on; it tells nobody what time it is.
// oxlint-disable-next-line no-restricted-imports -- as above
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, Registry } from 'prom-client';

/** A finer look would wake an idle process a hundred times a second. */
const EVENT_LOOP_RESOLUTION_MS = 50;
const NANOSECONDS = 1e9;
const MICROSECONDS = 1e6;

/** A registry with the metrics of this process. */
export function createMetrics(): Registry {
  const registry = new Registry();
  registry.registerMetric(
    new Gauge({
      name: 'process_resident_memory_bytes',
      help: 'Resident memory of this process, without its sandbox children.',
      registers: [],
      collect() {
        this.set(process.memoryUsage.rss());
      },
    }),
  );
  registry.registerMetric(
    new Counter({
      name: 'process_cpu_seconds_total',
      help: 'CPU time of this process, user and system, without its sandbox children.',
      registers: [],
      collect() {
        const { user, system } = process.cpuUsage();
        this.reset();
        this.inc((user + system) / MICROSECONDS);
      },
    }),
  );
  const delay = monitorEventLoopDelay({ resolution: EVENT_LOOP_RESOLUTION_MS });
  delay.enable();
  registry.registerMetric(
    new Gauge({
      name: 'millrace_event_loop_lag_seconds',
      help: 'How late the event loop was since the metrics were last read.',
      labelNames: ['quantile'],
      registers: [],
      collect() {
        this.set({ quantile: '0.5' }, late(delay.percentile(50)));
        this.set({ quantile: '0.99' }, late(delay.percentile(99)));
        this.set({ quantile: '1' }, late(delay.max));
        delay.reset();
      },
    }),
  );
  return registry;
}

/** The delay is measured between two looks: what is beyond their distance was late. */
function late(nanoseconds: number): number {
  return Math.max(0, nanoseconds / NANOSECONDS - EVENT_LOOP_RESOLUTION_MS / 1000);
}
