/**
 * The stage: the one engine that receive, runner and outbox share. It reads a source stream, hands every
 * record to a handler, writes what the handler gives to other streams, and keeps its progress on a journal
 * (`journal.ts`). It promises that each record reaches a final outcome, whatever crashes; that a key is
 * settled once within the horizon; and that records of one lane (ordering key) are handled one after another.
 *
 * The states of a record:
 *
 * - *unread*: at or above the position of the reader. The reader pauses while `window` records or `windowBytes`
 *   are in memory, or `aside` records are set aside, so memory depends neither on the backlog nor on sizes.
 * - *duplicate*: its key is settled, or another unsettled record has it: settled at once as `duplicate`.
 * - *waiting*: an earlier record of its lane is not settled. The first `laneBodies` of a lane keep their
 *   body in memory, if it is small; of the others only the number is kept, and they are read again when their
 *   turn comes: so a long lane does not use up the window and hold back the other lanes.
 * - *ready*: its lane is free, it waits for one of `concurrency` slots, and while `outputBytes` wait to be
 *   committed for those to become durable. First come, first served.
 * - *running*: the handler has it. Where `recordsAttempts` is set, the attempt is on the journal before.
 * - *committing*: the outcome is known. Outputs are appended first, then the outcome on the journal.
 *   A crash in between repeats the record: outputs may be there twice, and whoever reads them drops the
 *   second by its key. Where the handler says that both must be one (`isAtomic`), an intent with both stands
 *   on the journal before: a crash then repeats the outputs as they were decided, and not the handler.
 * - *settled*: done, skipped, duplicate or dead-letter, durable. The lane goes on.
 * - *deferred*: not before a time. A backoff (a transient failure) holds its lane, so that order survives;
 *   a scheduled record (`holdsLane: false`) leaves it. A deferral is on the journal: a restart neither
 *   forgets it nor starts counting again.
 *
 * What a handler throws decides: `transient` defers with backoff (or the other side's `retryAfterMs`) until
 * `maxAttempts`; `permanent` and `invalid` are dead letters; `bug` stops the stage. An exception that is not
 * ours is a dead letter too: one poisonous record must not stop its neighbours.
 *
 * `low` is the lowest number that is neither settled nor set aside; a checkpoint is `low`, the settled
 * numbers above it, those set aside, and the keys. The stage stops by its signal: the reader ends, running
 * handlers may finish within `drainMs`, what they yield is committed, a last checkpoint is written.
 */
import type { Clock } from '../platform/clock.ts';
import { MillraceError, errorKind, errorMessage } from '../platform/errors.ts';
import { createFifo } from '../platform/fifo.ts';
import type { Fifo } from '../platform/fifo.ts';
import type { Log } from '../platform/log.ts';
import { backoffMs } from '../platform/retry.ts';
import type { Backoff } from '../platform/retry.ts';
import { createDueQueue } from './due-queue.ts';
import { factsThatFit } from './facts.ts';
import type { Facts } from './facts.ts';
import { applyJournalRecord, createJournal } from './journal.ts';
import type { Progress } from './journal.ts';
import type { Aside, OutcomeRecord } from './journal-records.ts';
import { chunksOf, createOutputAppender, intentOf, outputsOfIntent } from './output-appender.ts';
import type { Output, Places } from './output-appender.ts';
import { createRecordWindow } from './record-window.ts';
import { KEY_HEADER, headerOf, jsonRecord } from './records.ts';
import { createReread } from './reread.ts';
import { fingerprint } from './settled-keys.ts';
import type { StageMeter, StageTurn } from './stage-meter.ts';
import { limits, meteredBytes } from './stream-store.ts';
import type { NewRecord, StreamRecord, StreamStore } from './stream-store.ts';

export type { Output } from './output-appender.ts';

/** What a handler makes of a record. */
export type Outcome =
  | {
      readonly kind: 'done';
      readonly outputs?: readonly Output[];
      readonly facts?: Facts;
      readonly isAtomic?: boolean;
    }
  | {
      readonly kind: 'skipped';
      readonly reason: string;
      readonly outputs?: readonly Output[];
      readonly facts?: Facts;
      readonly isAtomic?: boolean;
    }
  | {
      readonly kind: 'dead-letter';
      readonly reason: string;
      readonly error?: unknown;
      readonly facts?: Facts;
    }
  | {
      readonly kind: 'deferred';
      readonly untilMs: number;
      readonly reason: string;
      readonly holdsLane: boolean;
    };

export interface Attempt {
  /** From 1; a scheduled deferral does not count as an attempt. */
  readonly number: number;
  /** With `recordsAttempts`: when the first attempt began whose effect is not known; null for none before this. */
  readonly doubtSinceMs: number | null;
  /** Aborted when the stage cannot wait any longer. */
  readonly signal: AbortSignal;
}

export interface StageOptions {
  /** For logs. */
  name: string;
  source: string;
  journal: string;
  /** Handlers at once. */
  concurrency: number;
  handle(record: StreamRecord, attempt: Attempt): Promise<Outcome>;
  /** Records of one lane are handled one after another; null for none. Default: none. */
  laneOf?(record: StreamRecord): string | null;
  /** Backoff after a transient failure. */
  backoff: Backoff;
  /** A transient failure on this attempt is a dead letter. */
  maxAttempts: number;
  /** Write an `attempt` to the journal before each call of the handler. Default: false. */
  recordsAttempts?: boolean;
  /** With `recordsAttempts`: false for an error after which the attempt surely had no effect. Default: true for all. */
  leavesDoubt?(error: MillraceError): boolean;
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
  readonly aside: number;
  readonly settledKeys: number;
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

/** Limits that a simulation makes small, so that it meets them often. */
export interface StageLimits {
  /** Records in memory, beyond which the reader pauses. */
  readonly window: number;
  /** Bytes of their bodies, beyond which it pauses, too. */
  readonly windowBytes: number;
  /** Waiting records of one lane that keep their body in memory. */
  readonly laneBodies: number;
  /** A body above this does not wait in memory for its lane. */
  readonly laneBodyBytes: number;
  /** Outputs that are not durable yet, beyond which no handler is started. */
  readonly outputBytes: number;
  /** Records set aside, beyond which the reader pauses. */
  readonly aside: number;
  /** Journal records in one append. */
  readonly commitRecords: number;
  /** Outcomes between two checkpoints. */
  readonly checkpointOutcomes: number;
  /** Between two trims of old history. */
  readonly trimMs: number;
  /** A due time is by the wall clock, which can jump forward: so it is looked at so often. */
  readonly wakeMs: number;
}

const DEFAULT_LIMITS: StageLimits = {
  window: 512,
  windowBytes: 16 * 1024 * 1024,
  laneBodies: 16,
  laneBodyBytes: 64 * 1024,
  outputBytes: 16 * 1024 * 1024,
  aside: 200_000,
  commitRecords: 400,
  checkpointOutcomes: 500,
  trimMs: 600_000,
  wakeMs: 60_000,
};
const COMMIT_BYTES = 512 * 1024;
const CHECKPOINT_MS = 30_000;
const DEFAULT_HORIZON_MS = 72 * 3_600_000;
const DEFAULT_DRAIN_MS = 8_000;

/** A record on its way. */
interface Entry {
  readonly seqNum: number;
  readonly key: string;
  readonly lane: string | null;
  /** Absent while it is set aside. */
  record: StreamRecord | undefined;
  attempts: number;
  doubtSinceMs: number | null;
  /** While deferred. */
  aside: Aside | undefined;
}

interface Lane {
  /** Ready, running, committing, or deferred with the lane held. */
  head: Entry;
  readonly waiting: Fifo<Entry>;
}

/** Something to be made durable on the journal, after its outputs. */
interface Commit {
  readonly outputs: readonly Output[];
  /** Without where the outputs stand. */
  readonly record: NewRecord;
  readonly outcome?: OutcomeRecord;
  readonly intent?: NewRecord;
  readonly onDurable: () => void;
}

/** Where the stage is awaited by several sides: each `wait` resolves at the next `notify`. */
function createSignal() {
  let waiters: (() => void)[] = [];
  return {
    wait: () => new Promise<void>((resolve) => waiters.push(resolve)),
    waiters: () => waiters.length,
    notify() {
      const woken = waiters;
      waiters = [];
      for (const wake of woken) wake();
    },
  };
}

export function createStage(
  deps: { store: StreamStore; clock: Clock; log: Log; meter?: StageMeter },
  options: StageOptions,
): Stage {
  const { store, clock } = deps;
  const bounds: StageLimits = { ...DEFAULT_LIMITS, ...options.limits };
  const log = deps.log.child({ stage: options.name });
  const source = store.stream(options.source);
  const journal = createJournal(
    { clock, log },
    {
      stream: store.stream(options.journal),
      owner: clock.uuid(),
      horizonMs: options.horizonMs ?? DEFAULT_HORIZON_MS,
      historyMs: options.historyMs ?? Infinity,
    },
  );

  let progress: Progress;
  let position = 0;
  let startedMs = 0;
  let runningMsBefore = 0;
  let failure: { error: unknown } | undefined;
  let turn: StageTurn | undefined;
  let stopping = false;
  const { promise: ready, resolve: markReady } = Promise.withResolvers<void>();

  /** Unsettled records that have their body in memory, by number: what `low` is made of. */
  const inMemory = createRecordWindow<Entry>(bounds);
  /** Records that gave up their place in memory to wait in a lane; each stays here until it is settled or deferred. */
  const waitingAside = new Map<number, Entry>();
  const unsettledKeys = new Map<string, number>();
  const lanes = new Map<string, Lane>();
  const readyQueue = createFifo<Entry>();
  const deferred = createDueQueue<Entry>();
  const reread = createReread(source, (seqNum) => waitingAside.has(seqNum) || progress.aside.has(seqNum));
  let running = 0;
  let commits: Commit[] = [];
  /** Of the outputs of all commits that are not durable. */
  let outputBytes = 0;
  const appendOutputs = createOutputAppender({ store, clock, log });
  const changed = createSignal();
  const halt = new AbortController();
  const handlerAbort = new AbortController();
  let cancelWake: (() => void) | undefined;
  let awaitsRoom = false;

  const runningMs = (): number => runningMsBefore + (clock.monotonicMs() - startedMs);
  const asideCount = (): number => progress.aside.size + waitingAside.size;

  function fail(error: unknown): void {
    failure ??= { error };
    halt.abort(error);
    changed.notify();
  }

  // ── Admission: from unread to ready, waiting or duplicate ──────────────────────────────────────────────

  function admit(record: StreamRecord): void {
    if (
      progress.settled.has(record.seqNum) ||
      progress.aside.has(record.seqNum) ||
      waitingAside.has(record.seqNum)
    )
      return;
    const key = headerOf(record, KEY_HEADER) ?? `${options.source}#${record.seqNum}`;
    let lane: string | null = null;
    let misfit: { error: unknown } | undefined;
    try {
      lane = options.laneOf?.(record) ?? null;
    } catch (error) {
      // A record that has no lane because it cannot be read is one poisonous record, not the end of the stage.
      misfit = { error };
    }
    const entry: Entry = {
      seqNum: record.seqNum,
      key,
      lane,
      record,
      attempts: 0,
      doubtSinceMs: progress.doubts.get(record.seqNum) ?? null,
      aside: undefined,
    };
    inMemory.hold(entry);
    if (progress.keys.has(fingerprint(key)) || unsettledKeys.has(key)) {
      commitOutcome(entry, { kind: 'skipped', reason: 'duplicate' }, 0);
      return;
    }
    unsettledKeys.set(key, entry.seqNum);
    if (misfit) commitOutcome(entry, outcomeOfError(entry, misfit.error), 0);
    else enterLane(entry);
  }

  function enterLane(entry: Entry): void {
    const lane = entry.lane === null ? undefined : lanes.get(entry.lane);
    if (lane) {
      lane.waiting.push(entry);
      const isLarge = (entry.record?.body.length ?? 0) > bounds.laneBodyBytes;
      if (isLarge || lane.waiting.size > bounds.laneBodies || lane.head.aside) setBodyAside(entry);
      return;
    }
    if (entry.lane !== null) lanes.set(entry.lane, { head: entry, waiting: createFifo() });
    readyQueue.push(entry);
    startReady();
  }

  /** A waiting record gives up its place in memory; it is read again when its turn comes. */
  function setBodyAside(entry: Entry): void {
    entry.record = undefined;
    inMemory.release(entry.seqNum);
    waitingAside.set(entry.seqNum, entry);
  }

  function leaveLane(entry: Entry): void {
    const lane = entry.lane === null ? undefined : lanes.get(entry.lane);
    if (!lane || lane.head !== entry) return;
    const next = lane.waiting.take();
    if (!next) {
      lanes.delete(entry.lane!);
      return;
    }
    lane.head = next;
    readyQueue.push(next);
  }

  // ── Running: from ready to committing ──────────────────────────────────────────────────────────────────

  function startReady(): void {
    while (
      !stopping &&
      running < options.concurrency &&
      outputBytes < bounds.outputBytes &&
      readyQueue.size > 0
    ) {
      running++;
      const entry = readyQueue.take()!;
      inMemory.hold(entry);
      void runEntry(entry)
        .catch(fail)
        .finally(() => {
          running--;
          startReady();
          changed.notify();
        });
    }
  }

  async function runEntry(entry: Entry): Promise<void> {
    const startedAtMs = clock.monotonicMs();
    const doubtSinceMs = entry.doubtSinceMs;
    entry.attempts++;
    let outcome: Outcome;
    try {
      const record = entry.record ?? (await reread(entry.seqNum, halt.signal));
      entry.record = record;
      inMemory.hold(entry);
      if (options.recordsAttempts) await recordAttempt(entry);
      outcome = await options.handle(record, {
        number: entry.attempts,
        doubtSinceMs,
        signal: handlerAbort.signal,
      });
      // A handler that puts it off has not begun.
      if (outcome.kind === 'deferred') entry.doubtSinceMs = doubtSinceMs;
    } catch (error) {
      if (handlerAbort.signal.aborted || halt.signal.aborted) return;
      outcome = outcomeOfError(entry, error);
      if (error instanceof MillraceError && options.leavesDoubt?.(error) === false)
        entry.doubtSinceMs = doubtSinceMs;
    }
    if (handlerAbort.signal.aborted) return;
    commitOutcome(entry, outcome, clock.monotonicMs() - startedAtMs);
  }

  async function recordAttempt(entry: Entry): Promise<void> {
    const at = new Date(clock.nowMs()).toISOString();
    entry.doubtSinceMs ??= clock.nowMs();
    const { promise, resolve } = Promise.withResolvers<void>();
    commits.push({
      outputs: [],
      record: jsonRecord({ kind: 'attempt', version: 1, seqNum: entry.seqNum, key: entry.key, at }),
      onDurable: () => {
        if (!progress.doubts.has(entry.seqNum)) progress.doubts.set(entry.seqNum, entry.doubtSinceMs!);
        resolve();
      },
    });
    changed.notify();
    await promise;
  }

  function outcomeOfError(entry: Entry, error: unknown): Outcome {
    const kind = error instanceof MillraceError ? errorKind(error) : 'permanent';
    if (kind === 'bug') throw error;
    const reason = error instanceof MillraceError ? error.code : 'stage.exception';
    if (kind !== 'transient' || entry.attempts >= options.maxAttempts)
      return { kind: 'dead-letter', reason, error };
    const askedMs = error instanceof MillraceError ? (error.retryAfterMs ?? 0) : 0;
    const delayMs = Math.max(askedMs, backoffMs(entry.attempts, options.backoff, clock.random));
    log.warn({ seqNum: entry.seqNum, attempts: entry.attempts, delayMs, error }, 'stage.attempt_failed');
    return { kind: 'deferred', untilMs: clock.nowMs() + delayMs, reason, holdsLane: true };
  }

  // ── Committing: outputs first, the journal after ───────────────────────────────────────────────────────

  function commitOutcome(entry: Entry, outcome: Outcome, durationMs: number): void {
    const { outputs = [], isAtomic = false } =
      outcome.kind === 'done' || outcome.kind === 'skipped' ? outcome : {};
    const record = outcomeRecord(entry, outcome, durationMs);
    const intent = isAtomic ? intentOf(record, outputs) : undefined;
    const oversized = outputs.find((output) => meteredBytes(output.record) > limits.batchBytes)?.stream;
    if (oversized !== undefined || (intent && meteredBytes(intent) > limits.batchBytes)) {
      const what = oversized === undefined ? 'what a record decides' : `an output for ${oversized}`;
      const error = new MillraceError('permanent', 'stage.output_too_large', `${what} exceeds 1 MiB`);
      commitOutcome(entry, { kind: 'dead-letter', reason: error.code, error }, durationMs);
      return;
    }
    const bytes = outputs.reduce((sum, output) => sum + meteredBytes(output.record), 0);
    outputBytes += bytes;
    const onDurable = (): void => {
      outputBytes -= bytes;
      settle(entry, record);
    };
    commits.push({
      outputs,
      record: jsonRecord(record),
      outcome: record,
      ...(intent && { intent }),
      onDurable,
    });
    changed.notify();
  }

  function outcomeRecord(entry: Entry, outcome: Outcome, durationMs: number): OutcomeRecord {
    const facts = outcome.kind === 'deferred' ? {} : (outcome.facts ?? {});
    const isDuplicate = outcome.kind === 'skipped' && outcome.reason === 'duplicate';
    const base = {
      kind: 'outcome' as const,
      version: 1 as const,
      seqNum: entry.seqNum,
      key: entry.key,
      outcome: isDuplicate ? ('duplicate' as const) : outcome.kind,
      attempts: entry.attempts,
      reason: outcome.kind === 'done' ? null : outcome.reason,
      error: outcome.kind === 'dead-letter' ? describeError(outcome.error) : null,
      at: new Date(clock.nowMs()).toISOString(),
      durationMs: Math.round(durationMs * 10) / 10,
      facts: factsThatFit(facts),
    };
    if (outcome.kind !== 'deferred') return base;
    // A scheduled deferral is no failure: it does not count as an attempt.
    const attempts = outcome.holdsLane ? entry.attempts : entry.attempts - 1;
    const aside: Aside = {
      seqNum: entry.seqNum,
      key: entry.key,
      lane: entry.lane,
      attempts,
      untilMs: outcome.untilMs,
      holdsLane: outcome.holdsLane,
      doubtSinceMs: entry.doubtSinceMs,
    };
    return { ...base, attempts, aside };
  }

  function settle(entry: Entry, record: OutcomeRecord): void {
    progress.runningMs = runningMs();
    applyJournalRecord(progress, record);
    options.onSettled?.(record);
    turn?.settled(record.outcome, record.durationMs);
    inMemory.release(entry.seqNum);
    waitingAside.delete(entry.seqNum);
    if (record.aside) {
      entry.record = undefined;
      entry.attempts = record.attempts;
      entry.doubtSinceMs = record.aside.doubtSinceMs;
      if (!record.aside.holdsLane) leaveLane(entry);
      setDeferred(entry, record.aside);
    } else {
      if (unsettledKeys.get(entry.key) === entry.seqNum) unsettledKeys.delete(entry.key);
      leaveLane(entry);
      if (record.outcome === 'dead-letter')
        log.error(
          { seqNum: entry.seqNum, key: entry.key, error: record.error, reason: record.reason },
          'stage.dead_letter',
        );
      else
        log.info(
          {
            seqNum: entry.seqNum,
            outcome: record.outcome,
            reason: record.reason,
            durationMs: record.durationMs,
          },
          'stage.settled',
        );
    }
    startReady();
  }

  async function commitLoop(): Promise<void> {
    let checkpointDueMs = clock.monotonicMs() + CHECKPOINT_MS;
    let trimDueMs = clock.monotonicMs() + bounds.trimMs;
    while (!(stopping && commits.length === 0 && (running === 0 || handlerAbort.signal.aborted))) {
      if (commits.length === 0) {
        await changed.wait();
        if (failure) return;
        continue;
      }
      const batch = takeCommits();
      const intents = batch.flatMap(({ intent }) => intent ?? []);
      for (const chunk of chunksOf(intents)) await journal.append(chunk, halt.signal);
      const places = await appendOutputs(
        batch.map(({ outputs }) => outputs),
        halt.signal,
      );
      const records = batch.map((commit, at) => placed(commit, places[at]!));
      for (const chunk of chunksOf(records)) await journal.append(chunk, halt.signal);
      for (const commit of batch) commit.onDurable();
      changed.notify();
      if (isCheckpointDue(checkpointDueMs)) {
        await checkpoint();
        checkpointDueMs = clock.monotonicMs() + CHECKPOINT_MS;
        if (clock.monotonicMs() >= trimDueMs) {
          await journal.trimHistory(halt.signal);
          trimDueMs = clock.monotonicMs() + bounds.trimMs;
        }
      }
    }
    if (progress.sinceCheckpoint > 0) await checkpoint();
  }

  /**
   * A checkpoint writes everything that is set aside, so with much of it, more has to happen in between: the
   * cost of a checkpoint and the length of a recovery stay in proportion to what there is to know.
   */
  function isCheckpointDue(dueMs: number): boolean {
    const aside = asideCount();
    const isTime = clock.monotonicMs() >= dueMs && progress.sinceCheckpoint >= aside / 40;
    return isTime || progress.sinceCheckpoint >= Math.max(bounds.checkpointOutcomes, aside / 4);
  }

  function takeCommits(): Commit[] {
    let bytes = 0;
    let count = 0;
    for (const { record } of commits) {
      bytes += meteredBytes(record);
      if (count > 0 && (count >= bounds.commitRecords || bytes > COMMIT_BYTES)) break;
      count++;
    }
    return commits.splice(0, count);
  }

  /** After a crash between an intent and its outcome: what was decided is done, whatever a handler would decide now. */
  async function finishIntents(signal: AbortSignal): Promise<void> {
    const intents = [...progress.intents.values()];
    const places = await appendOutputs(intents.map(outputsOfIntent), signal);
    const outcomes = intents.map(({ outcome }, at) => ({ ...outcome, outputs: places[at]! }));
    for (const outcome of outcomes) {
      await journal.append([jsonRecord(outcome)], signal);
      applyJournalRecord(progress, outcome);
      options.onSettled?.(outcome);
      log.info({ seqNum: outcome.seqNum, outcome: outcome.outcome }, 'stage.intent_finished');
    }
  }

  async function checkpoint(): Promise<void> {
    progress.runningMs = runningMs();
    progress.low = position;
    for (const seqNum of inMemory.seqNums())
      if (seqNum < progress.low && !progress.aside.has(seqNum) && !waitingAside.has(seqNum))
        progress.low = seqNum;
    for (const seqNum of progress.settled) if (seqNum < progress.low) progress.settled.delete(seqNum);
    progress.sinceCheckpoint = 0;
    const aside = new Map(progress.aside);
    // Those above `low` are read again, in their place among those of their lane that are still in memory.
    for (const entry of waitingAside.values())
      if (entry.seqNum < progress.low && !aside.has(entry.seqNum))
        aside.set(entry.seqNum, waitingToAside(entry));
    await journal.checkpoint({ ...progress, aside }, halt.signal);
    log.debug({ low: progress.low, aside: aside.size, keys: progress.keys.size }, 'stage.checkpoint');
  }

  // ── Deferred records ───────────────────────────────────────────────────────────────────────────────────

  function setDeferred(entry: Entry, aside: Aside): void {
    entry.aside = aside;
    const lane = entry.lane === null ? undefined : lanes.get(entry.lane);
    if (lane?.head === entry) for (const waiting of lane.waiting) setBodyAside(waiting);
    deferred.push(aside.untilMs, entry);
    armWake();
  }

  function armWake(): void {
    if (awaitsRoom) return;
    cancelWake?.();
    const dueMs = deferred.nextDueMs();
    cancelWake =
      dueMs === undefined || stopping
        ? undefined
        : clock.after(Math.min(bounds.wakeMs, Math.max(0, dueMs - clock.nowMs())), wakeDue);
  }

  /** Its place in `progress.aside` stays until the next outcome, so that `low` need never go back for it. */
  function wakeDue(): void {
    if (stopping) return;
    // Not more than fit into the window: ten thousand that are due together come in turn.
    for (let entry; !inMemory.isFull && (entry = deferred.takeDue(clock.nowMs()));) {
      const holdsLane = entry.aside?.holdsLane;
      entry.aside = undefined;
      inMemory.hold(entry);
      if (holdsLane && entry.lane !== null) readyQueue.push(entry);
      else enterLane(entry);
    }
    startReady();
    if (!inMemory.isFull) armWake();
    else void awaitRoom();
  }

  /** Looks again when something has changed; one at a time, however many records are due. */
  async function awaitRoom(): Promise<void> {
    cancelWake?.();
    if (awaitsRoom) return;
    awaitsRoom = true;
    await changed.wait();
    awaitsRoom = false;
    wakeDue();
  }

  /**
   * Takes over from recovery what was set aside: lanes are held again, and order within them kept. All that
   * merely waits here stands below `low`, so the reader brings what has to come after it.
   */
  function restoreAside(): void {
    const all = [...progress.aside.values()].sort(
      (a, b) => Number(b.holdsLane) - Number(a.holdsLane) || a.seqNum - b.seqNum,
    );
    for (const aside of all) {
      const entry: Entry = {
        seqNum: aside.seqNum,
        key: aside.key,
        lane: aside.lane,
        record: undefined,
        attempts: aside.attempts,
        doubtSinceMs: aside.doubtSinceMs ?? progress.doubts.get(aside.seqNum) ?? null,
        aside: undefined,
      };
      unsettledKeys.set(entry.key, entry.seqNum);
      if (aside.untilMs > 0) {
        if (aside.holdsLane && entry.lane !== null)
          lanes.set(entry.lane, { head: entry, waiting: createFifo() });
        setDeferred(entry, aside);
        continue;
      }
      progress.aside.delete(entry.seqNum);
      waitingAside.set(entry.seqNum, entry);
      enterLane(entry);
    }
  }

  // ── The reader, and the whole ──────────────────────────────────────────────────────────────────────────

  async function readLoop(signal: AbortSignal): Promise<void> {
    position = progress.low;
    for await (const batch of source.follow({ fromSeqNum: position, signal })) {
      if (batch.missing) log.error({ source: options.source, ...batch.missing }, 'stage.records_missing');
      for (const record of batch.records) {
        while ((inMemory.isFull || asideCount() >= bounds.aside) && !signal.aborted) await changed.wait();
        if (signal.aborted) return;
        position = record.seqNum + 1;
        admit(record);
      }
      position = Math.max(position, batch.nextSeqNum);
    }
  }

  async function recover(signal: AbortSignal): Promise<void> {
    startedMs = clock.monotonicMs();
    progress = await journal.acquire(signal);
    runningMsBefore = progress.runningMs;
    startedMs = clock.monotonicMs();
    log.info({ low: progress.low, aside: progress.aside.size, keys: progress.keys.size }, 'stage.recovered');
    await finishIntents(signal);
  }

  async function drain(): Promise<void> {
    stopping = true;
    cancelWake?.();
    const cancelKill = clock.after(options.drainMs ?? DEFAULT_DRAIN_MS, () => {
      handlerAbort.abort(new Error('the stage is stopping'));
      changed.notify();
    });
    changed.notify();
    while (running > 0 && !failure && !handlerAbort.signal.aborted) await changed.wait();
    cancelKill();
    changed.notify();
  }

  const stats = (): StageStats => ({
    position,
    inMemory: inMemory.size,
    bytesInMemory: inMemory.bytes,
    aside: progress ? asideCount() : 0,
    settledKeys: progress?.keys.size ?? 0,
    waiters: changed.waiters(),
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
      const reading = new AbortController();
      const stop = (): void => {
        reading.abort();
        changed.notify();
      };
      signal.addEventListener('abort', stop, { once: true });
      halt.signal.addEventListener('abort', stop, { once: true });
      if (signal.aborted) stop();
      restoreAside();
      startReady();
      const committing = commitLoop().catch(fail);
      markReady();
      await readLoop(reading.signal).catch(fail);
      if (failure) handlerAbort.abort(failure.error);
      await drain();
      await committing;
      turn?.end();
      signal.removeEventListener('abort', stop);
      if (failure) throw failure.error;
    },
  };
}

/** What goes onto the journal when the outputs are where they are. */
function placed({ outcome, record }: Commit, places: Places): NewRecord {
  if (!outcome || Object.keys(places).length === 0) return record;
  outcome.outputs = places;
  return jsonRecord(outcome);
}

/** A record that waits in a lane, as a checkpoint keeps it. */
function waitingToAside(entry: Entry): Aside {
  return {
    seqNum: entry.seqNum,
    key: entry.key,
    lane: entry.lane,
    attempts: entry.attempts,
    untilMs: 0,
    holdsLane: false,
    doubtSinceMs: entry.doubtSinceMs,
  };
}

function describeError(error: unknown): OutcomeRecord['error'] {
  if (error === undefined) return null;
  const hint = error instanceof MillraceError ? (error.hint ?? null) : null;
  return {
    code: error instanceof MillraceError ? error.code : 'stage.exception',
    message: errorMessage(error).slice(0, 4000),
    hint,
  };
}
