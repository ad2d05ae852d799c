/**
 * How much of its time a run was given. Where the whole machine is paused, the clock of the run goes on and the tool does
 * not: what nobody looked at for a second counts as such a pause. A tool that spins meanwhile is only run again for it.
 */
import type { Clock } from '../../platform/clock.ts';

/** A look is due twenty times as often. */
const STAND_STILL_MS = 1_000;

export interface TimeGiven {
  look(): void;
  /** Whether it was less than all, apart from when this process stood still. */
  isCutShort(): boolean;
}

export function createTimeGiven(clock: Pick<Clock, 'monotonicMs'>, timeoutMs: number): TimeGiven {
  let lookedMs = clock.monotonicMs();
  let givenMs = 0;
  let stoodStill = false;

  function look(): void {
    const passedMs = clock.monotonicMs() - lookedMs;
    lookedMs += passedMs;
    if (passedMs >= STAND_STILL_MS) stoodStill = true;
    else givenMs += passedMs;
  }

  return {
    look,
    isCutShort() {
      look();
      return stoodStill && givenMs < timeoutMs;
    },
  };
}
