/**
 * Paces the calls to a provider by what its answers say, so that several callers together stay below a limit
 * that is not theirs alone (Resend counts a whole team).
 *
 * - A call may start while fewer than `limit` others started within the last window. The limit is learnt
 *   from `ratelimit-limit`; until the first answer it is a cautious one. Who takes a call without ever having told a
 *   limit (no Resend, but what stands in its place) is not paced, and can still refuse. An error without a limit says
 *   nothing: it may be a gateway's, with the provider's limit behind it.
 * - `ratelimit-remaining: 0` closes the gate until `ratelimit-reset`: others use up the window, too.
 * - A refusal (429) closes it for `retry-after` and a little jitter, for everybody.
 * - Callers take turns by their fairness key: however many wait under one, the next of another is a turn away. So
 *   neither mail that comes nor mail that goes, and no inbox, uses up the whole rate. There is a limit to how many
 *   may wait.
 *
 * It does not repeat a refused call; that is its caller's decision.
 */
import type { Clock } from './clock.ts';
import { MillraceError } from './errors.ts';
import { createFairQueue } from './fair-queue.ts';

/** Header fields of an answer, names in lower case; null where there was no answer. */
export type ResponseHeaders = Readonly<Record<string, string>> | null;

export interface RateGate {
  /**
   * Resolves when a call may start; those of the same key in the order in which they came.
   * @throws the signal's reason; MillraceError `platform.rate_gate_full` (transient).
   */
  enter(signal: AbortSignal, fairnessKey: string): Promise<void>;
  /** Learns from an answer. */
  observe(headers: ResponseHeaders, answer: Answer): void;
}

/** `refused`: for the rate, not for a quota. `failed`: any other error. */
export type Answer = 'taken' | 'refused' | 'failed';

export interface RateGateOptions {
  /** Calls in a window before the provider has told its limit (default 2, the lowest that Resend grants). */
  initialLimit?: number;
  /** How many callers may wait (default 1000). */
  maxWaiters?: number;
}

interface Waiter {
  readonly fairnessKey: string;
  readonly start: () => void;
}

/** The provider's window of a second, and room for the way there: calls can arrive closer than they left. */
const WINDOW_MS = 1050;
const DEFAULT_REFUSED_PAUSE_MS = 1000;
const MAX_PAUSE_MS = 60_000;
const JITTER_MS = 250;
const MAX_LIMIT = 100_000;
const MAX_RETRY_AFTER_MS = 86_400_000;

export function createRateGate(clock: Clock, options: RateGateOptions = {}): RateGate {
  const maxWaiters = options.maxWaiters ?? 1000;
  const waiters = createFairQueue<Waiter>({ maxOutPerKey: Infinity });
  /** When the calls of the last window started, oldest first. */
  const starts: number[] = [];
  let limit = options.initialLimit ?? 2;
  let isLimitTold = false;
  let closedUntilMs = 0;
  let cancelTimer: (() => void) | undefined;

  const untilNextStartMs = (): number => {
    const nowMs = clock.monotonicMs();
    while (starts.length > 0 && nowMs - (starts[0] ?? 0) >= WINDOW_MS) starts.shift();
    const blocking = starts[starts.length - limit];
    return Math.max(closedUntilMs - nowMs, blocking === undefined ? 0 : blocking + WINDOW_MS - nowMs);
  };

  const admit = (): void => {
    cancelTimer?.();
    cancelTimer = undefined;
    while (waiters.size > 0) {
      const waitMs = untilNextStartMs();
      if (waitMs > 0) {
        cancelTimer = clock.after(waitMs, admit);
        return;
      }
      starts.push(clock.monotonicMs());
      const { fairnessKey, start } = waiters.take()!;
      // How many calls of a key are under way is its caller's to limit.
      waiters.release(fairnessKey);
      start();
    }
  };

  return {
    enter(signal, fairnessKey) {
      return new Promise<void>((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        if (waiters.size >= maxWaiters) return reject(gateFull(maxWaiters));
        const onAbort = (): void => {
          waiters.remove(fairnessKey, waiter);
          reject(signal.reason);
        };
        const start = (): void => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        };
        const waiter = { fairnessKey, start };
        signal.addEventListener('abort', onAbort, { once: true });
        waiters.push(fairnessKey, waiter);
        admit();
      });
    },

    observe(headers, answer) {
      const toldLimit = wholeNumber(headers?.['ratelimit-limit']);
      if (toldLimit !== undefined && toldLimit > 0) {
        isLimitTold = true;
        limit = Math.min(toldLimit, MAX_LIMIT);
      } else if (answer === 'taken' && headers !== null && !isLimitTold) limit = MAX_LIMIT;
      let pauseMs = 0;
      if (answer === 'refused')
        pauseMs = (retryAfterMs(headers) ?? DEFAULT_REFUSED_PAUSE_MS) + clock.random() * JITTER_MS;
      else if (wholeNumber(headers?.['ratelimit-remaining']) === 0)
        pauseMs = (wholeNumber(headers?.['ratelimit-reset']) ?? 0) * 1000;
      closedUntilMs = Math.max(closedUntilMs, clock.monotonicMs() + Math.min(pauseMs, MAX_PAUSE_MS));
      admit();
    },
  };
}

/** What a call's error, null for none, says about the rate. */
export function answerOf(error: { name?: string | undefined } | null): Answer {
  if (error === null) return 'taken';
  return error.name === 'rate_limit_exceeded' ? 'refused' : 'failed';
}

/** The `retry-after` of an answer, which Resend gives in whole seconds; undefined where there is none. */
export function retryAfterMs(headers: ResponseHeaders): number | undefined {
  const seconds = wholeNumber(headers?.['retry-after']);
  return seconds === undefined ? undefined : Math.min(seconds * 1000, MAX_RETRY_AFTER_MS);
}

function wholeNumber(value: string | undefined): number | undefined {
  return value !== undefined && /^\d{1,9}$/.test(value) ? Number(value) : undefined;
}

function gateFull(maxWaiters: number): MillraceError {
  return new MillraceError(
    'transient',
    'platform.rate_gate_full',
    `${maxWaiters} calls to the provider are waiting for their turn`,
    { retryAfterMs: 1000 },
  );
}
