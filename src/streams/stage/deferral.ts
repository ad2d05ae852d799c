/**
 * Records that are not to be handled before a time. They wait in a heap with one timer for the earliest; due times
 * are by the wall clock, which can jump, so it is looked at every `wakeMs` all the same. Not more are woken than
 * there is room for: ten thousand that are due together come in turn.
 *
 * That a deferral survives a restart is the journal's part; the stage gives them here again.
 */
import type { Clock } from '../../platform/clock.ts';
import type { ChangeSignal } from './change-signal.ts';
import { createDueQueue } from './due-queue.ts';

export interface Deferral<T> {
  defer(untilMs: number, item: T): void;
  /** From now on nothing wakes. */
  stop(): void;
}

export function createDeferral<T>(
  deps: { clock: Clock; changed: ChangeSignal },
  options: { wakeMs: number; hasRoom: () => boolean; wake: (item: T) => void },
): Deferral<T> {
  const { clock, changed } = deps;
  const waiting = createDueQueue<T>();
  let cancelTimer: (() => void) | undefined;
  let awaitsRoom = false;
  let isStopped = false;

  function arm(): void {
    if (awaitsRoom) return;
    cancelTimer?.();
    const dueMs = waiting.nextDueMs();
    cancelTimer =
      dueMs === undefined || isStopped
        ? undefined
        : clock.after(Math.min(options.wakeMs, Math.max(0, dueMs - clock.nowMs())), wakeDue);
  }

  function wakeDue(): void {
    if (isStopped) return;
    for (let item; options.hasRoom() && (item = waiting.takeDue(clock.nowMs()));) options.wake(item);
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
    defer(untilMs, item) {
      waiting.push(untilMs, item);
      arm();
    },
    stop() {
      isStopped = true;
      cancelTimer?.();
    },
  };
}
