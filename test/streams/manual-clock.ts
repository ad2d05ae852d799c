/** A clock that stands still until a test moves it; timers run, in order, when their time has come. */
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';

export interface ManualClock extends Clock {
  advance(ms: number): void;
  /** Sets the wall clock alone, also back. */
  jumpTo(nowMs: number): void;
  /** How many timers wait. */
  waiting(): number;
}

export function createManualClock(startMs = 1_000_000): ManualClock {
  let wallMs = startMs;
  let monotonicMs = 0;
  let timers: { dueMs: number; callback: () => void }[] = [];
  function after(ms: number, callback: () => void): () => void {
    const timer = { dueMs: monotonicMs + ms, callback };
    timers.push(timer);
    return () => {
      timers = timers.filter((other) => other !== timer);
    };
  }
  function moveTo(dueMs: number): void {
    wallMs += dueMs - monotonicMs;
    monotonicMs = dueMs;
  }
  return {
    ...systemClock,
    nowMs: () => wallMs,
    monotonicMs: () => monotonicMs,
    after,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        signal?.throwIfAborted();
        const cancel = after(ms, resolve);
        signal?.addEventListener('abort', () => {
          cancel();
          reject(signal.reason);
        });
      }),
    waiting: () => timers.length,
    jumpTo(nowMs) {
      wallMs = nowMs;
    },
    advance(ms) {
      const untilMs = monotonicMs + ms;
      for (;;) {
        const due = timers.filter((timer) => timer.dueMs <= untilMs).toSorted((a, b) => a.dueMs - b.dueMs)[0];
        if (!due) break;
        timers = timers.filter((timer) => timer !== due);
        moveTo(Math.max(monotonicMs, due.dueMs));
        due.callback();
      }
      moveTo(untilMs);
    },
  };
}
