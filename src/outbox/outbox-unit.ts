/**
 * The work of the outbox, as whoever owns it does it: the stage `outbox` → `sent`, and beside it the view that says whom
 * not to write to. Both are made anew at each turn, because all that they know stands on streams.
 */
import { Gauge } from 'prom-client';
import type { Registry } from 'prom-client';
import { runTogether } from '../platform/abort.ts';
import type { Clock } from '../platform/clock.ts';
import type { Log } from '../platform/log.ts';
import type { OwnedUnit } from '../streams/ownership.ts';
import { streamNames } from '../streams/records.ts';
import type { StageMeter } from '../streams/stage-meter.ts';
import { createStage } from '../streams/stage.ts';
import type { StageOptions } from '../streams/stage.ts';
import { createOutbox, leavesDoubt, outboxOrder, requestCausedAtMs } from './outbox.ts';
import type { OutboundProvider } from './outbox.ts';
import { createSuppressions } from './suppressions.ts';
import type { Suppressions } from './suppressions.ts';

export interface OutboxUnitDeps {
  outbound: OutboundProvider;
  clock: Clock;
  log: Log;
  meter: StageMeter;
  registry: Registry;
}

/** `outbox` → `sent`. */
export function outboxStage(deps: Parameters<typeof createOutbox>[0]): StageOptions {
  return {
    name: 'outbox',
    source: streamNames.outbox,
    journal: streamNames.sent,
    // One inbox never takes all.
    concurrency: 20,
    concurrencyPerKey: 16,
    ...outboxOrder,
    causedAtMs: requestCausedAtMs,
    handle: createOutbox(deps),
    recordsAttempts: true,
    leavesDoubt,
    backoff: { baseMs: 1_000, maxMs: 300_000 },
    maxAttempts: 2_000,
  };
}

/** @param options.keptMs how long outcomes, and what is known of addresses, are kept */
export function createOutboxUnit(deps: OutboxUnitDeps, options: { keptMs: number }): OwnedUnit {
  const { outbound, clock, log, meter } = deps;
  let current: Suppressions | undefined;
  deps.registry.registerMetric(
    new Gauge({
      name: 'millrace_suppressed_addresses',
      help: 'Addresses that no mail is sent to; 0 where this process does not own the outbox.',
      registers: [],
      collect() {
        this.set(current?.size() ?? 0);
      },
    }),
  );
  return {
    name: 'outbox',
    async work(store, signal) {
      const suppressions = createSuppressions({ store, clock, log }, options);
      const toSent = outboxStage({ store, outbound, suppressions, clock });
      const stage = createStage({ store, clock, log, meter }, { ...toSent, historyMs: options.keptMs });
      // Before the first attempt is on the journal: nothing is sent that was forbidden before.
      await suppressions.restore(signal);
      current = suppressions;
      try {
        await runTogether([(turn) => stage.run(turn), (turn) => suppressions.follow(turn)], signal);
      } finally {
        current = undefined;
      }
    },
  };
}
