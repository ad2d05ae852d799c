/**
 * Records that are not to be handled before a time, in two heaps with one timer for the earliest. A time that somebody
 * named is by the wall clock, which can jump, so it is looked at every `wakeMs` all the same. A backoff is by the
 * monotonic clock: a wall clock that is set back by an hour must not keep an answer for an hour. Not more are woken
 * than there is room for: ten thousand that are due together come in turn.
 *
 * That a deferral survives a restart is the journal's part; the stage gives them here again.
 */
import type { Clock } from '../../platform/clock.ts';
import type { ChangeSignal } from './change-signal.ts';
import { createDueQueue } from './due-queue.ts';

export interface Deferral<T> {
  /** `holdsLane` tells a backoff from a time that somebody named. */
  defer(aside: { readonly untilMs: number; readonly holdsLane: boolean }, item: T): void;
  /** From now on nothing wakes. */
  stop(): void;
}

export function createDeferral<T>(
  deps: { clock: Clock; changed: ChangeSignal },
  options: { wakeMs: number; hasRoom: () => boolean; wake: (item: T) => void },
): Deferral<T> {
  const { clock, changed } = deps;
  const scheduled = createDueQueue<T>();
  const backoffs = createDueQueue<T>();
  let cancelTimer: (() => void) | undefined;
  let awaitsRoom = false;
  let isStopped = false;

  function arm(): void {
    if (awaitsRoom) return;
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
    for (let item; options.hasRoom() && (item = takeDue());) options.wake(item);
    if (options.hasRoom()) arm();
    else void awaitRoom();
  }

  /** Looks again when something has changed; one at a time, however many are due. */
  async function awaitRoom(): Promise<void> {
    cancelTimer?.();
    if (awaitsRoom) return;
    awaitsRoom = true;
    await changed.wait();
    awaitsRoom = false;
    wakeDue();
  }

  return {
    defer({ untilMs, holdsLane }, item) {
      if (holdsLane) backoffs.push(clock.monotonicMs() + Math.max(0, untilMs - clock.nowMs()), item);
      else scheduled.push(untilMs, item);
      arm();
    },
    stop() {
      isStopped = true;
      cancelTimer?.();
    },
  };
}
