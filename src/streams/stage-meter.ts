/**
 * What stages tell of themselves: outcomes and durations as they settle, and, when somebody reads, how much lies
 * before them. A stage is made anew at each of its turns; its counts go on.
 *
 * The tail of a source is asked for only where the stage has work: one that has none has read up to it. So a
 * look at a thousand idle inboxes costs the store nothing.
 */
import { Counter, Gauge, Histogram } from 'prom-client';
import type { Registry } from 'prom-client';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import type { OutcomeRecord } from './journal-records.ts';
import type { StreamStore } from './stream-store.ts';

/** What is known of one stage while it works. */
export interface StageView {
  readonly position: number;
  readonly inMemory: number;
  readonly aside: number;
}

export interface StageMeter {
  /** One turn of a stage begins: what it settles is counted until the turn ends. */
  begin(stage: { name: string; source: string; view: () => StageView }): StageTurn;
}

export interface StageTurn {
  settled(outcome: OutcomeRecord['outcome'], durationMs: number): void;
  /** So many records of the source were gone before they were read. */
  missing(count: number): void;
  end(): void;
}

const DURATION_BUCKETS_SECONDS = [0.005, 0.025, 0.1, 0.5, 2.5, 10, 60];
/** Who reads metrics waits for no store that is away. */
const TAIL_TIMEOUT_MS = 2_000;
/** Tails that are asked for in one look; of stages beyond that only what they hold is told. */
const MAX_TAILS = 100;

/** `runner/reverser` is the stage `runner` of the inbox `reverser`; the other stages have no inbox. */
function labelsOf(name: string): { stage: string; inbox: string } {
  const [stage = '', inbox = ''] = name.split('/', 2);
  return { stage, inbox };
}

export function createStageMeter({
  store,
  clock,
  registry,
}: {
  store: StreamStore;
  clock: Clock;
  registry: Registry;
}): StageMeter {
  const registers = [registry];
  const turns = new Set<{ name: string; source: string; view: () => StageView }>();
  const outcomes = new Counter({
    name: 'millrace_stage_outcomes_total',
    help: 'Records that came to an outcome, by stage and outcome.',
    labelNames: ['stage', 'inbox', 'outcome'],
    registers,
  });
  const missing = new Counter({
    name: 'millrace_stage_missing_records_total',
    help: 'Records of the source that were gone before they were read, and have no outcome.',
    labelNames: ['stage', 'inbox'],
    registers,
  });
  const durations = new Histogram({
    name: 'millrace_stage_duration_seconds',
    help: 'How long the handling of one record took, by stage.',
    labelNames: ['stage'],
    buckets: DURATION_BUCKETS_SECONDS,
    registers,
  });
  registry.registerMetric(
    new Gauge({
      name: 'millrace_stage_aside_records',
      help: 'Records that are set aside: deferred, waiting behind another of their conversation, or passed over until their inbox has its turn.',
      labelNames: ['stage', 'inbox'],
      registers: [],
      collect() {
        this.reset();
        for (const { name, view } of turns) this.set(labelsOf(name), view().aside);
      },
    }),
  );
  registry.registerMetric(
    new Gauge({
      name: 'millrace_stage_lag_records',
      help: 'Records of the source that have no final outcome yet.',
      labelNames: ['stage', 'inbox'],
      registers: [],
      async collect() {
        this.reset();
        let tails = 0;
        await Promise.all(
          [...turns].map(async ({ name, source, view }) => {
            const { position, inMemory, aside } = view();
            const held = inMemory + aside;
            const isAsked = held > 0 && tails++ < MAX_TAILS;
            const tail = isAsked ? await tailOf(source) : position;
            this.set(labelsOf(name), Math.max(0, tail - position) + held);
          }),
        );
      },
    }),
  );

  async function tailOf(source: string): Promise<number> {
    using deadline = createDeadline(clock, TAIL_TIMEOUT_MS);
    try {
      return await store.stream(source).tail(deadline.signal);
    } catch {
      // The lag is then what the stage holds; that the store is away says another metric.
      return 0;
    }
  }

  return {
    begin(stage) {
      const labels = labelsOf(stage.name);
      const duration = durations.labels({ stage: labels.stage });
      // Found once a turn, so that what is done for each record is an addition.
      const counts: Partial<Record<OutcomeRecord['outcome'], Counter.Internal>> = {};
      turns.add(stage);
      return {
        settled(outcome, durationMs) {
          (counts[outcome] ??= outcomes.labels({ ...labels, outcome })).inc();
          duration.observe(durationMs / 1000);
        },
        missing: (count) => missing.inc(labels, count),
        end: () => void turns.delete(stage),
      };
    },
  };
}
