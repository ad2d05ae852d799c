/**
 * Services that live until a signal: started together, restarted after a transient failure, and ended
 * together by any other. A service is a function that works until its signal is aborted.
 */
import type { Clock } from './clock.ts';
import { errorKind } from './errors.ts';
import type { Log } from './log.ts';
import { backoffMs } from './retry.ts';

export interface Service {
  readonly name: string;
  /** May be called again after it has rejected. */
  run(signal: AbortSignal): Promise<void>;
}

export interface ServiceHealth {
  readonly name: string;
  /** Since its last failure it has been running again. */
  readonly isRunning: boolean;
  /** For how long it has not been running; 0 where it is. */
  readonly downMs: number;
  readonly failures: number;
}

export interface Services {
  /** Runs all until the signal is aborted; rejects with the first failure that is not transient. */
  run(signal: AbortSignal): Promise<void>;
  health(): ServiceHealth[];
}

const RESTART = { baseMs: 250, maxMs: 15_000 };
/** Who has run for so long begins again with short waits. */
const STEADY_MS = 60_000;

export function createServices(deps: { clock: Clock; log: Log }, services: readonly Service[]): Services {
  const { clock, log } = deps;
  const createdMs = clock.monotonicMs();
  const states = new Map(
    services.map(({ name }) => [name, { isRunning: false, failures: 0, downSinceMs: createdMs }]),
  );

  async function supervise(service: Service, signal: AbortSignal): Promise<void> {
    const state = states.get(service.name)!;
    for (let attempts = 1; !signal.aborted; attempts++) {
      const startedMs = clock.monotonicMs();
      try {
        state.isRunning = true;
        await service.run(signal);
        if (!signal.aborted) throw new Error(`${service.name} ended without being told to`);
      } catch (error) {
        if (signal.aborted) return;
        state.isRunning = false;
        state.downSinceMs = clock.monotonicMs();
        state.failures++;
        if (errorKind(error) !== 'transient') throw error;
        if (clock.monotonicMs() - startedMs > STEADY_MS) attempts = 1;
        log.warn({ service: service.name, attempts, error }, 'service.restarting');
        await clock.sleep(backoffMs(attempts, RESTART, clock.random), signal).catch(() => {});
      }
    }
  }

  return {
    health: () =>
      [...states].map(([name, { isRunning, failures, downSinceMs }]) => {
        const downMs = isRunning ? 0 : Math.round(clock.monotonicMs() - downSinceMs);
        return { name, isRunning, downMs, failures };
      }),
    async run(signal) {
      const failed = new AbortController();
      const all = AbortSignal.any([signal, failed.signal]);
      const fail = (service: Service) => (error: unknown) => {
        log.fatal({ service: service.name, error }, 'service.failed');
        failed.abort(error);
      };
      await Promise.all(services.map((service) => supervise(service, all).catch(fail(service))));
      if (failed.signal.aborted) throw failed.signal.reason;
    },
  };
}
