/**
 * The time by which old things are deleted. What a wall clock says that is months ahead for a minute would delete
 * everything, for good; so this one follows it back at once, and forward at most `MAX_SPEED` times as fast as time
 * passes. After a stop of ten days it has caught up in ten hours, and until then keeps a little more than it must; an
 * hour of a clock that is wrong costs the oldest day of what is kept.
 */
import type { Clock } from './clock.ts';

const MAX_SPEED = 24;

/** @param startMs where it stood last; the wall clock, where that is behind */
export function startSteadyTime(clock: Clock, startMs: number): () => number {
  let steadyMs = startMs;
  let seenMs = clock.monotonicMs();
  return () => {
    const monotonicMs = clock.monotonicMs();
    steadyMs = Math.min(clock.nowMs(), steadyMs + (monotonicMs - seenMs) * MAX_SPEED);
    seenMs = monotonicMs;
    return steadyMs;
  };
}
