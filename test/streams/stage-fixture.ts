/** Stages over a local store of their own for each test: how to start and stop one, and to read its journal. */
import { expect } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Log } from '../../src/platform/log.ts';
import { outcomeSchema } from '../../src/streams/journal-records.ts';
import type { OutcomeRecord } from '../../src/streams/journal-records.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { Outcome, Stage, StageOptions } from '../../src/streams/stage.ts';
import type { NewRecord, Stream, StreamRecord, StreamStore } from '../../src/streams/stream-store.ts';
import { readAll } from './store-reading.ts';
import { useTemporaryStore } from './temporary-store.ts';

export function numbered(n: number, key?: string): NewRecord {
  return jsonRecord({ kind: 'test', version: 1, n }, key ?? `key-${n}`);
}

export function numberOf(record: StreamRecord): number {
  return (JSON.parse(Buffer.from(record.body).toString()) as { n: number }).n;
}

export function copyTo(stream: string): (record: StreamRecord) => Promise<Outcome> {
  return async (record) => ({ kind: 'done', outputs: [{ stream, record: numbered(numberOf(record)) }] });
}

/** A handler that has to be stopped. */
export function never(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) =>
    signal.addEventListener('abort', () => reject(signal.reason as Error)),
  );
}

export interface StartedStage {
  readonly stage: Stage;
  readonly running: Promise<void>;
  /** Drains it. */
  stop(): Promise<void>;
}

export interface Stages {
  stream(name: string): Stream;
  /** Starts a stage over `source` with the journal `journal`. */
  start(
    handle: StageOptions['handle'],
    options?: Partial<StageOptions> & { clock?: Clock; log?: Log },
    /** What it sees of the store. */
    wrap?: (store: StreamStore) => StreamStore,
  ): StartedStage;
  /** All outcomes on the journal, deferrals among them. */
  outcomes(): Promise<OutcomeRecord[]>;
  final(): Promise<OutcomeRecord[]>;
  /** Waits for that many final outcomes. */
  settled(count: number): Promise<OutcomeRecord[]>;
}

export function useStages(): Stages {
  const store = useTemporaryStore();
  const silent = createLog('silent');

  async function outcomes(): Promise<OutcomeRecord[]> {
    const parsed = (await readAll(store().stream('journal'))).map((record) =>
      outcomeSchema.safeParse(JSON.parse(Buffer.from(record.body).toString())),
    );
    return parsed.flatMap((result) => (result.success ? [result.data] : []));
  }

  async function final(): Promise<OutcomeRecord[]> {
    return (await outcomes()).filter(({ outcome }) => outcome !== 'deferred');
  }

  return {
    outcomes,
    final,
    stream: (name) => store().stream(name),
    async settled(count) {
      await expect.poll(async () => (await final()).length, { timeout: 10_000, interval: 10 }).toBe(count);
      return final();
    },
    start(handle, { clock = systemClock, log = silent, ...options } = {}, wrap = (whole) => whole) {
      const abort = new AbortController();
      const stage = createStage(
        { store: wrap(store()), clock, log },
        {
          name: 'test',
          source: 'source',
          journal: 'journal',
          concurrency: 8,
          maxAttempts: 5,
          backoff: { baseMs: 1, maxMs: 5 },
          handle,
          ...options,
        },
      );
      const running = stage.run(abort.signal);
      running.catch(() => {});
      return {
        stage,
        running,
        async stop() {
          abort.abort();
          await running;
        },
      };
    },
  };
}
