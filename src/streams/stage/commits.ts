/**
 * Makes durable what a stage decides, in batches and in order: intents first (where outputs and outcome must be one),
 * then the outputs, then the outcomes on the journal, with where the outputs stand. Only after that is anybody told.
 *
 * A crash between outputs and outcome repeats the record: outputs may be there twice, and whoever reads them drops
 * the second by its key. After a crash behind an intent, `finishIntents` does what was decided.
 */
import type { Clock } from '../../platform/clock.ts';
import type { Log } from '../../platform/log.ts';
import type { OutcomeRecord } from '../journal-records.ts';
import type { Journal } from '../journal.ts';
import { jsonRecord } from '../records.ts';
import { meteredBytes } from '../stream-store.ts';
import type { NewRecord, StreamStore } from '../stream-store.ts';
import type { ChangeSignal } from './change-signal.ts';
import type { Decision } from './decision.ts';
import { chunksOf, createOutputAppender, outputsOfIntent } from './output-appender.ts';
import type { Output, Places } from './output-appender.ts';
import type { Standing } from './standing.ts';

const BATCH_BYTES = 512 * 1024;

export interface Commits {
  /** `onDurable` is called with the outcome as it stands on the journal. */
  decide(decision: Decision, onDurable: (outcome: OutcomeRecord) => void): void;
  /** A record for the journal alone. */
  note(record: NewRecord, onDurable: () => void): void;
  /** Of outputs that are not durable yet. */
  readonly outputBytes: number;
  /** Does what was decided before a crash, whatever a handler would decide now. */
  finishIntents(onDurable: (outcome: OutcomeRecord) => void, signal: AbortSignal): Promise<void>;
  /** Writes until all is written and nothing more is to come, and saves where the stage stands. */
  run(isOver: () => boolean, signal: AbortSignal): Promise<void>;
}

interface Commit {
  readonly outputs: readonly Output[];
  readonly intent: NewRecord | undefined;
  /** As long as it is not known where the outputs stand. */
  readonly record: NewRecord;
  /** That `record` says; a note has none. */
  readonly outcome: OutcomeRecord | undefined;
  readonly onDurable: (places: Places) => void;
}

export function createCommits(
  deps: {
    store: StreamStore;
    clock: Clock;
    log: Log;
    journal: Journal;
    standing: Standing;
    changed: ChangeSignal;
  },
  options: { batchRecords: number },
): Commits {
  const { journal, standing, changed, log } = deps;
  const appendOutputs = createOutputAppender(deps);
  let waiting: Commit[] = [];
  let outputBytes = 0;

  function push(commit: Commit): void {
    outputBytes += bytesOf(commit.outputs);
    waiting.push(commit);
    changed.notify();
  }

  function takeBatch(): Commit[] {
    let bytes = 0;
    let count = 0;
    for (const { record } of waiting) {
      bytes += meteredBytes(record);
      if (count > 0 && (count >= options.batchRecords || bytes > BATCH_BYTES)) break;
      count++;
    }
    return waiting.splice(0, count);
  }

  async function write(batch: readonly Commit[], signal: AbortSignal): Promise<void> {
    const intents = batch.flatMap(({ intent }) => intent ?? []);
    for (const chunk of chunksOf(intents)) await journal.append(chunk, signal);
    const places = await appendOutputs(
      batch.map(({ outputs }) => outputs),
      signal,
    );
    const records = batch.map((commit, at) => finalRecord(commit, places[at]!));
    for (const chunk of chunksOf(records)) await journal.append(chunk, signal);
    for (const [at, { outputs, onDurable }] of batch.entries()) {
      outputBytes -= bytesOf(outputs);
      onDurable(places[at]!);
    }
    changed.notify();
  }

  return {
    get outputBytes() {
      return outputBytes;
    },
    decide({ outputs, outcome, intent }, onDurable) {
      const record = jsonRecord(outcome);
      push({
        outputs,
        intent,
        record,
        outcome,
        onDurable: (places) => onDurable(withPlaces(outcome, places)),
      });
    },
    note(record, onDurable) {
      push({ outputs: [], intent: undefined, record, outcome: undefined, onDurable });
    },
    async finishIntents(onDurable, signal) {
      const intents = [...standing.progress.intents.values()];
      const places = await appendOutputs(intents.map(outputsOfIntent), signal);
      const outcomes = intents.map(({ outcome }, at) => ({ ...outcome, outputs: places[at]! }));
      for (const outcome of outcomes) {
        await journal.append([jsonRecord(outcome)], signal);
        onDurable(outcome);
        log.info({ seqNum: outcome.seqNum, outcome: outcome.outcome }, 'stage.intent_finished');
      }
    },
    async run(isOver, signal) {
      while (waiting.length > 0 || !isOver()) {
        if (waiting.length === 0) {
          await changed.wait();
          if (signal.aborted) return;
          continue;
        }
        await write(takeBatch(), signal);
        await standing.saveIfDue(signal);
      }
      if (standing.progress.sinceCheckpoint > 0) await standing.save(signal);
    },
  };
}

function bytesOf(outputs: readonly Output[]): number {
  return outputs.reduce((sum, { record }) => sum + meteredBytes(record), 0);
}

function finalRecord({ outcome, record }: Commit, places: Places): NewRecord {
  return outcome && Object.keys(places).length > 0 ? jsonRecord(withPlaces(outcome, places)) : record;
}

function withPlaces(outcome: OutcomeRecord, places: Places): OutcomeRecord {
  return Object.keys(places).length > 0 ? { ...outcome, outputs: places } : outcome;
}
