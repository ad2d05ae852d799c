/**
 * Calls the handler for what is ready: `concurrency` at once, and none while the outputs of too many wait to become
 * durable. What the handler answers is an outcome; what it throws becomes one, by the kind of the error:
 *
 * - `transient` defers with backoff (or for the other side's `retryAfterMs` and a little more) until `maxAttempts`;
 * - `permanent` and `invalid` are dead letters, and so is an exception that is not ours: one poisonous record must
 *   not stop its neighbours;
 * - `bug` stops the stage.
 */
import { startStopwatch } from '../../platform/clock.ts';
import type { Clock } from '../../platform/clock.ts';
import { MillraceError, errorKind } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { retryDelayMs } from '../../platform/retry.ts';
import { jsonRecord } from '../records.ts';
import type { Stream, StreamRecord } from '../stream-store.ts';
import type { ChangeSignal } from './change-signal.ts';
import type { Commits } from './commits.ts';
import type { Entry } from './entry.ts';
import type { HandlerOptions, Outcome } from './handler.ts';
import type { Lanes } from './lanes.ts';
import { createReread } from './reread.ts';
import type { SettledLongAgo } from './settled-long-ago.ts';
import type { Standing } from './standing.ts';

export interface Attempts {
  /** As many of what is ready as there may be now. */
  start(): void;
  /** What an error that an entry met makes of it; rethrows a `bug`. */
  outcomeOfError(entry: Entry, error: unknown): Outcome;
  /** No handler runs, or none is waited for any longer. */
  readonly areOver: boolean;
  /** Starts no others. */
  stop(): void;
  /** Waits no longer for those that run: what they yield is dropped. */
  abort(reason: unknown): void;
}

export interface AttemptsOptions extends HandlerOptions {
  /** Outputs that are not durable yet, beyond which no handler is started. */
  maxOutputBytes: number;
  /** A record that is handled so long after its cause may have a copy whose key is forgotten. */
  lateMs: number;
  onOutcome(entry: Entry, outcome: Outcome, durationMs: number): void;
  onFailure(error: unknown): void;
  /** The stage has failed. */
  halted: AbortSignal;
}

export function createAttempts(
  deps: {
    clock: Clock;
    log: Log;
    source: Stream;
    lanes: Lanes;
    standing: Standing;
    commits: Commits;
    changed: ChangeSignal;
    settledLongAgo: SettledLongAgo;
  },
  options: AttemptsOptions,
): Attempts {
  const { clock, log, lanes, standing, commits, changed, settledLongAgo } = deps;
  const isSetAside = (seqNum: number): boolean =>
    lanes.waitingAside.has(seqNum) || standing.progress.aside.has(seqNum);
  const reread = createReread(deps.source, isSetAside);
  const handlerAbort = new AbortController();
  let running = 0;
  let isStopping = false;

  function start(): void {
    while (!isStopping && running < options.concurrency && commits.outputBytes < options.maxOutputBytes) {
      const turn = lanes.takeReady();
      if (!turn) return;
      running++;
      void attempt(turn.entry)
        .catch((error: unknown) => options.onFailure(error))
        .finally(() => {
          running--;
          turn.end();
          start();
          changed.notify();
        });
    }
  }

  async function attempt(entry: Entry): Promise<void> {
    const startedAtMs = clock.monotonicMs();
    const doubtSinceMs = entry.doubtSinceMs;
    entry.attempts++;
    let outcome: Outcome;
    try {
      const record = entry.record ?? (await reread(entry.seqNum, options.halted));
      entry.record = record;
      lanes.hold(entry);
      outcome = (await isLateCopy(entry, record))
        ? { kind: 'skipped', reason: 'duplicate' }
        : await handle(entry, record);
      // A handler that puts it off has not begun.
      if (outcome.kind === 'deferred') entry.doubtSinceMs = doubtSinceMs;
    } catch (error) {
      if (handlerAbort.signal.aborted || options.halted.aborted) return;
      outcome = outcomeOfError(entry, error);
      if (error instanceof MillraceError && options.leavesDoubt?.(error) === false)
        entry.doubtSinceMs = doubtSinceMs;
    }
    if (handlerAbort.signal.aborted) return;
    options.onOutcome(entry, outcome, clock.monotonicMs() - startedAtMs);
  }

  /** Of what a handler has had already this was asked before, and its key is not forgotten while it is unsettled. */
  async function isLateCopy(entry: Entry, record: StreamRecord): Promise<boolean> {
    if (!entry.isUntried) return false;
    const causedAtMs = options.causedAtMs?.(record) ?? Infinity;
    const nowMs = Math.max(clock.nowMs(), record.timestampMs);
    const isLate = nowMs - causedAtMs > options.lateMs;
    if (isLate && (await settledLongAgo.has(entry.key, causedAtMs, handlerAbort.signal))) return true;
    entry.isUntried = false;
    return false;
  }

  async function handle(entry: Entry, record: StreamRecord): Promise<Outcome> {
    const { doubtSinceMs } = entry;
    const ageMs = startStopwatch(clock);
    if (options.recordsAttempts) await noteAttempt(entry);
    const { attempts: number } = entry;
    return options.handle(record, { number, doubtSinceMs, ageMs, signal: handlerAbort.signal });
  }

  async function noteAttempt(entry: Entry): Promise<void> {
    const { seqNum, key } = entry;
    const sinceMs = (entry.doubtSinceMs ??= clock.nowMs());
    const { doubts } = standing.progress;
    const { promise, resolve } = Promise.withResolvers<void>();
    const at = new Date(clock.nowMs()).toISOString();
    commits.note(jsonRecord({ kind: 'attempt', version: 1, seqNum, key, at }), () => {
      if (!doubts.has(seqNum)) doubts.set(seqNum, sinceMs);
      resolve();
    });
    await promise;
  }

  function outcomeOfError(entry: Entry, error: unknown): Outcome {
    const kind = error instanceof MillraceError ? errorKind(error) : 'permanent';
    if (kind === 'bug') throw error;
    const reason = error instanceof MillraceError ? error.code : 'stage.exception';
    if (kind !== 'transient' || entry.attempts >= options.maxAttempts)
      return { kind: 'dead-letter', reason, error };
    const askedMs = error instanceof MillraceError ? error.retryAfterMs : undefined;
    const { attempts } = entry;
    const delayMs = retryDelayMs({ attempts, askedMs }, options.backoff, clock.random);
    log.warn({ seqNum: entry.seqNum, attempts: entry.attempts, delayMs, error }, 'stage.attempt_failed');
    return { kind: 'deferred', untilMs: clock.nowMs() + delayMs, reason, holdsLane: true };
  }

  return {
    start,
    outcomeOfError,
    get areOver() {
      return running === 0 || handlerAbort.signal.aborted;
    },
    stop() {
      isStopping = true;
    },
    abort: (reason) => handlerAbort.abort(reason),
  };
}
