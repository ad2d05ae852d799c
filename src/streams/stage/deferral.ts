/**
 * Records that are not to be handled before a time, in two heaps with one timer for the earliest. A time that somebody
 * named is by the wall clock, which can jump, so it is looked at every `wakeMs` all the same. A backoff is by the
 * monotonic clock: a wall clock that is set back by an hour must not keep an answer for an hour. All that are due are
 * woken, some at a time: that they come in turn, also with what is fresh, is the lanes' part.
 *
 * That a deferral survives a restart is the journal's part; the stage gives them here again.
 */
import type { Clock } from '../../platform/clock.ts';
import { createDueQueue } from './due-queue.ts';

/** Woken in one go; in between, others have their turn. */
const WOKEN_AT_ONCE = 500;

export interface Deferral<T> {
  /**
   * `holdsLane` tells a backoff from a time that somebody named. `waitMs` is, for a backoff, how far off `untilMs` was
   * when it was decided, or still is after a restart: the clock may have been set back since.
   */
  defer(
    due: { readonly untilMs: number; readonly holdsLane: boolean; readonly waitMs: number },
    item: T,
  ): void;
  /** From now on nothing wakes. */
  stop(): void;
}

export function createDeferral<T>(
  { clock }: { clock: Clock },
  options: { wakeMs: number; wake: (item: T) => void },
): Deferral<T> {
  const scheduled = createDueQueue<T>();
  const backoffs = createDueQueue<T>();
  let cancelTimer: (() => void) | undefined;
  let isStopped = false;

  function arm(): void {
    cancelTimer?.();
    const waitMs = Math.min(
      (scheduled.nextDueMs() ?? Infinity) - clock.nowMs(),
      (backoffs.nextDueMs() ?? Infinity) - clock.monotonicMs(),
    );
    cancelTimer =
      waitMs === Infinity || isStopped
        ? undefined
        : clock.after(Math.min(options.wakeMs, Math.max(0, waitMs)), wakeDue);
  }

  const takeDue = (): T | undefined =>
    backoffs.takeDue(clock.monotonicMs()) ?? scheduled.takeDue(clock.nowMs());

  function wakeDue(): void {
    if (isStopped) return;
    for (let woken = 0; woken < WOKEN_AT_ONCE; woken++) {
      const item = takeDue();
      if (item === undefined) break;
      options.wake(item);
    }
    arm();
  }

  return {
    defer({ untilMs, holdsLane, waitMs }, item) {
      if (holdsLane) backoffs.push(clock.monotonicMs() + Math.max(0, waitMs), item);
      else scheduled.push(untilMs, item);
      arm();
    },
    stop() {
      isStopped = true;
      cancelTimer?.();
    },
  };
}
