/**
 * The stage: the one engine that receive, runner and outbox share. It reads a source stream, hands every
 * record to a handler, writes what the handler gives to other streams, and keeps its progress on a journal
 * (`journal.ts`). It promises that each record reaches a final outcome, whatever crashes; that a key is settled once
 * within the horizon, and where the cause of a record is known for as long as the journal; and that records of one lane
 * (ordering key) are handled one after another.
 *
 * The states of a record:
 *
 * - *unread*: at or above the position of the reader. The reader pauses while `window` records or `windowBytes`
 *   are in memory, or `aside` records are set aside, so memory depends neither on the backlog nor on sizes. Where
 *   records have a fairness key, it passes over those of a key that has its share of memory, and reads on: a burst
 *   under one key does not keep it from the others. Of those passed over only the number is kept, and the journal
 *   takes them for unread.
 * - *duplicate*: its key is settled, or another unsettled record has it: settled at once as `duplicate`. Of one that comes
 *   long after its cause the key may be forgotten: when its turn comes, the journal is asked (`stage/settled-long-ago.ts`).
 * - *waiting*: an earlier record of its lane is not settled. The first `laneBodies` of a lane keep their
 *   body in memory, if it is small; of the others only the number is kept, and they are read again when their
 *   turn comes: so a long lane does not use up the window and hold back the other lanes.
 * - *ready*: its lane is free, it waits for one of `concurrency` slots, and while `outputBytes` wait to be
 *   committed for those to become durable. Fairness keys take turns; within one, first come, first served.
 * - *running*: the handler has it. Where `recordsAttempts` is set, the attempt is on the journal before.
 * - *committing*: the outcome is known. Outputs are appended first, then the outcome on the journal.
 *   A crash in between repeats the record: outputs may be there twice, and whoever reads them drops the
 *   second by its key. Where the handler says that both must be one (`isAtomic`), an intent with both stands
 *   on the journal before: a crash then repeats the outputs as they were decided, and not the handler.
 * - *settled*: done, skipped, duplicate or dead-letter, durable. The lane goes on.
 * - *deferred*: not before a time. A backoff (a transient failure) holds its lane, so that order survives;
 *   a scheduled record (`holdsLane: false`) leaves it. A deferral is on the journal: a restart neither
 *   forgets it nor starts counting again. Of those that are scheduled each fairness key has a share of `scheduled`
 *   (`stage/scheduled.ts`): what one key puts off for weeks leaves room for all that others have to do.
 *
 * Who does what, in `stage/`: `lanes.ts` knows whose turn it is and what is in memory, `attempts.ts` calls the
 * handler and turns what it throws into an outcome, `decision.ts` and `commits.ts` put outcomes on record,
 * `deferral.ts` waits, and `standing.ts` keeps and saves the progress. Here they meet: a record's way from one state
 * to the next, recovery, and the end.
 *
 * The stage stops by its signal: the reader ends, running handlers may finish within `drainMs`, what they yield is
 * committed, a last checkpoint is written. What the store has not taken a moment later is left to whoever is next.
 */
import type { Clock } from '../platform/clock.ts';
import type { Log } from '../platform/log.ts';
import type { OutcomeRecord } from './journal-records.ts';
import { createJournal } from './journal.ts';
import { KEY_HEADER, headerOf } from './records.ts';
import type { StageMeter, StageTurn } from './stage-meter.ts';
import { createAttempts } from './stage/attempts.ts';
import { createChangeSignal } from './stage/change-signal.ts';
import { createCommits } from './stage/commits.ts';
import { decisionOf } from './stage/decision.ts';
import { createDeferral } from './stage/deferral.ts';
import { entryOf } from './stage/entry.ts';
import type { Entry } from './stage/entry.ts';
import type { HandlerOptions, Outcome } from './stage/handler.ts';
import { createLanes } from './stage/lanes.ts';
import { createPassedOver } from './stage/passed-over.ts';
import { createReader } from './stage/reader.ts';
import { createScheduled } from './stage/scheduled.ts';
import { createSettledLongAgo } from './stage/settled-long-ago.ts';
import { defaultLimits } from './stage/stage-limits.ts';
import type { StageLimits } from './stage/stage-limits.ts';
import { createStanding } from './stage/standing.ts';
import type { StreamRecord, StreamStore } from './stream-store.ts';

export type { Attempt, Outcome } from './stage/handler.ts';
export type { Output } from './stage/output-appender.ts';
export type { StageLimits } from './stage/stage-limits.ts';

export interface StageOptions extends HandlerOptions {
  /** For logs. */
  name: string;
  source: string;
  journal: string;
  /** Records of one lane are handled one after another; null for none. Default: none. */
  laneOf?(record: StreamRecord): string | null;
  /** Records take turns by it, so that a burst under one key delays no other; all of a lane have the same. Default: none. */
  fairnessKeyOf?(record: StreamRecord): string;
  /** Called when no record is passed over: only then may keys come out otherwise than before, and lanes keep their order. */
  keysMayChange?(): void;
  /** Called when an outcome is durable, before the next record of its lane begins. */
  onSettled?(outcome: OutcomeRecord): void;
  /** How long a settled key is remembered, in running time. Default: 72 h. */
  horizonMs?: number;
  /** How long outcomes stay on the journal for people to look at. Default: for ever. */
  historyMs?: number;
  /** How long running handlers may go on after the signal. Default: 8 s. */
  drainMs?: number;
  limits?: Partial<StageLimits>;
}

export interface StageStats {
  /** The next source record to be read. */
  readonly position: number;
  readonly inMemory: number;
  readonly bytesInMemory: number;
  /** Deferred, waiting without their body, or passed over. */
  readonly aside: number;
  readonly settledKeys: number;
  /** Settled numbers that are kept because one below them is not. */
  readonly settledAhead: number;
  /** Of outputs that are not durable yet. */
  readonly outputBytes: number;
  /** Who waits inside the stage for something to change: a handful, whatever the backlog. */
  readonly waiters: number;
}

export interface Stage {
  /** Works until `signal` is aborted, also before `ready`; rejects when it must not go on (`stage.ownership_lost`, a bug). */
  run(signal: AbortSignal): Promise<void>;
  /** Resolves when the progress is recovered and the reader begins. */
  readonly ready: Promise<void>;
  stats(): StageStats;
}

const DEFAULT_HORIZON_MS = 72 * 3_600_000;
/** Of the horizon: clocks may jump, and what is read of the journal may be old by as much as is left. */
const LATE_SHARE = 2 / 3;
const DEFAULT_DRAIN_MS = 8_000;
/** For what the last handlers yield: together less than anybody waits for a process to end. */
const LAST_COMMIT_MS = 1_500;

export function createStage(
  deps: { store: StreamStore; clock: Clock; log: Log; meter?: StageMeter },
  options: StageOptions,
): Stage {
  const { clock } = deps;
  const { bounds, log, source, halt, changed, ...parts } = partsOf(deps, options);
  const { lanes, passedOver, scheduled, standing, commits, lateMs, settledLongAgo } = parts;
  const ends = { onOutcome: decide, onFailure: fail, halted: halt.signal };
  const attempts = createAttempts(
    { clock, log, source, lanes, standing, commits, changed, settledLongAgo },
    { ...options, ...ends, maxOutputBytes: bounds.outputBytes, lateMs },
  );
  const deferral = createDeferral<Entry>({ clock }, { wakeMs: bounds.wakeMs, wake: wakeDeferred });
  const read = createReader(
    { source, clock, log, lanes, standing, passedOver, changed },
    { ...bounds, ...keysOf(options), admit, onMissing: (count) => turn?.missing(count) },
  );
  const drainMs = options.drainMs ?? DEFAULT_DRAIN_MS;
  const unsettledKeys = new Map<string, number>();
  const { promise: ready, resolve: markReady } = Promise.withResolvers<void>();
  let turn: StageTurn | undefined;
  let isStopping = false;

  function fail(error: unknown): void {
    halt.abort(error);
    changed.notify();
  }

  // ── From unread to ready, waiting or duplicate ─────────────────────────────────────────────────────────

  function admit(record: StreamRecord, fairnessKey: string): void {
    const { seqNum } = record;
    const key = headerOf(record, KEY_HEADER) ?? `${options.source}#${seqNum}`;
    const { lane, misfit } = laneOf(record);
    const doubtSinceMs = standing.progress.doubts.get(seqNum) ?? null;
    const unmet = { attempts: 0, doubtSinceMs, aside: undefined, isUntried: true };
    const entry: Entry = { seqNum, key, lane, fairnessKey, record, ...unmet };
    lanes.hold(entry);
    if (standing.hasSettledKey(key) || unsettledKeys.has(key))
      return decide(entry, { kind: 'skipped', reason: 'duplicate' }, 0);
    unsettledKeys.set(key, seqNum);
    if (misfit) return decide(entry, attempts.outcomeOfError(entry, misfit.error), 0);
    lanes.enter(entry);
    attempts.start();
  }

  /** A record that has no lane because it cannot be read is one poisonous record, not the end of the stage. */
  function laneOf(record: StreamRecord): { lane: string | null; misfit?: { error: unknown } } {
    try {
      return { lane: options.laneOf?.(record) ?? null };
    } catch (error) {
      return { lane: null, misfit: { error } };
    }
  }

  // ── From committing to settled or deferred, and back from deferred ─────────────────────────────────────

  function decide(entry: Entry, outcome: Outcome, durationMs: number): void {
    const admitted = scheduled.admit(entry, outcome);
    const decision = decisionOf(entry, admitted, { nowMs: clock.nowMs(), durationMs });
    commits.decide(decision, (record) => settle(entry, record));
  }

  function settle(entry: Entry, record: OutcomeRecord): void {
    standing.apply(record);
    options.onSettled?.(record);
    turn?.settled(record.outcome, record.durationMs);
    if (record.aside) {
      entry.attempts = record.attempts;
      entry.doubtSinceMs = record.aside.doubtSinceMs;
      entry.aside = record.aside;
      lanes.suspend(entry);
      deferral.defer({ ...record.aside, waitMs: record.aside.waitMs ?? 0 }, entry);
    } else {
      if (unsettledKeys.get(entry.key) === entry.seqNum) unsettledKeys.delete(entry.key);
      scheduled.settle(entry.seqNum);
      lanes.settle(entry);
      logSettled(record);
    }
    attempts.start();
  }

  function logSettled({ seqNum, key, outcome, reason, error, durationMs }: OutcomeRecord): void {
    if (outcome === 'dead-letter') log.error({ seqNum, key, error, reason }, 'stage.dead_letter');
    else log.info({ seqNum, outcome, reason, durationMs }, 'stage.settled');
  }

  function wakeDeferred(entry: Entry): void {
    lanes.resume(entry);
    attempts.start();
  }

  // ── Recovery, work and end ─────────────────────────────────────────────────────────────────────────────

  async function recover(signal: AbortSignal): Promise<void> {
    await standing.recover(signal);
    await commits.finishIntents((outcome) => {
      standing.apply(outcome);
      options.onSettled?.(outcome);
    }, signal);
  }

  /**
   * Takes over what was set aside: lanes are held again, and order within them kept. All that merely waits here
   * stands below `low`, so the reader brings what has to come after it.
   */
  function restoreAside(): void {
    const { progress } = standing;
    const all = [...progress.aside.values()].sort(
      (a, b) => Number(b.holdsLane) - Number(a.holdsLane) || a.seqNum - b.seqNum,
    );
    for (const aside of all) {
      const entry = entryOf(aside, progress.doubts.get(aside.seqNum) ?? null);
      unsettledKeys.set(entry.key, entry.seqNum);
      if (!entry.aside) progress.aside.delete(entry.seqNum);
      lanes.restore(entry);
      if (entry.aside && !aside.holdsLane) scheduled.restore(entry);
      const waitMs = Math.min(aside.untilMs - clock.nowMs(), aside.waitMs ?? Infinity);
      if (entry.aside) deferral.defer({ ...entry.aside, waitMs }, entry);
      else attempts.start();
    }
    attempts.start();
  }

  async function drain(): Promise<void> {
    isStopping = true;
    attempts.stop();
    deferral.stop();
    const cancelKill = clock.after(drainMs, () => {
      attempts.abort(new Error('the stage is stopping'));
      changed.notify();
    });
    changed.notify();
    while (!attempts.areOver && !halt.signal.aborted) await changed.wait();
    cancelKill();
    // It failed meanwhile: whoever has taken over runs what still runs here.
    if (halt.signal.aborted) attempts.abort(halt.signal.reason);
    changed.notify();
  }

  /** Ends with the stage, or when the store does not take what is left. */
  async function commit(writing: AbortController): Promise<void> {
    halt.signal.addEventListener('abort', () => writing.abort(halt.signal.reason), { once: true });
    try {
      await commits.run(() => isStopping && attempts.areOver, writing.signal);
    } catch (error) {
      if (halt.signal.aborted || !writing.signal.aborted) fail(error);
      else log.warn({}, 'stage.left_uncommitted');
    }
  }

  async function work(signal: AbortSignal): Promise<void> {
    const reading = new AbortController();
    const writing = new AbortController();
    const stop = (): void => {
      reading.abort();
      changed.notify();
    };
    signal.addEventListener('abort', stop, { once: true });
    halt.signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    restoreAside();
    const committing = commit(writing);
    markReady();
    await read(reading.signal).catch(fail);
    if (halt.signal.aborted) attempts.abort(halt.signal.reason);
    const cancelWait = clock.after(drainMs + LAST_COMMIT_MS, () => {
      writing.abort(new Error('the store does not take what is left'));
      changed.notify();
    });
    await drain();
    await committing;
    cancelWait();
    signal.removeEventListener('abort', stop);
  }

  const stats = (): StageStats => ({
    position: standing.position,
    inMemory: lanes.inMemory,
    bytesInMemory: lanes.bytesInMemory,
    aside: standing.asideCount + passedOver.size,
    settledKeys: standing.progress.keys.size,
    settledAhead: standing.progress.settled.size,
    outputBytes: commits.outputBytes,
    waiters: changed.waiters,
  });

  return {
    ready,
    stats,
    async run(signal) {
      try {
        await recover(signal);
      } catch (error) {
        // What was decided stays on the journal: whoever is next finds it there.
        if (signal.aborted && error === signal.reason) return;
        throw error;
      }
      turn = deps.meter?.begin({ name: options.name, source: options.source, view: stats });
      await work(signal);
      turn?.end();
      halt.signal.throwIfAborted();
    },
  };
}

/** Called without the options that they are of. */
function keysOf(options: StageOptions) {
  return {
    fairnessKeyOf: options.fairnessKeyOf?.bind(options),
    keysMayChange: options.keysMayChange?.bind(options),
  };
}

/** All that does not call back into the stage. */
function partsOf(deps: { store: StreamStore; clock: Clock; log: Log }, options: StageOptions) {
  const { store, clock } = deps;
  const bounds: StageLimits = { ...defaultLimits, ...options.limits };
  const log = deps.log.child({ stage: options.name });
  const source = store.stream(options.source);
  const { horizonMs = DEFAULT_HORIZON_MS, historyMs = Infinity } = options;
  const stream = store.stream(options.journal);
  const journal = createJournal({ clock, log }, { stream, owner: clock.uuid(), horizonMs, historyMs });
  const lateMs = horizonMs * LATE_SHARE;
  const settledLongAgo = createSettledLongAgo(
    { journal: stream, clock, log },
    { staleMs: horizonMs - lateMs },
  );
  const changed = createChangeSignal();
  const { concurrency: maxTurns, concurrencyPerKey: maxTurnsPerKey = maxTurns } = options;
  const lanes = createLanes(bounds, { maxTurns, maxTurnsPerKey });
  const passedOver = createPassedOver();
  const scheduled = createScheduled(bounds);
  const standing = createStanding({ clock, log, journal, lanes, passedOver }, bounds);
  const commits = createCommits(
    { store, clock, log, journal, standing, changed },
    { batchRecords: bounds.commitRecords },
  );
  /** Aborted when the stage has failed, with what it fails with. */
  const halt = new AbortController();
  const parts = { lanes, passedOver, scheduled, standing, commits, lateMs, settledLongAgo };
  return { bounds, log, source, halt, changed, ...parts };
}
