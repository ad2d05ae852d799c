/** When a tool is held and when it is let go; test/e2e/failures.test.ts shows it in a daemon. */
import { describe, expect, it } from 'vitest';
import { createLog } from '../../src/platform/log.ts';
import type { FailureReason } from '../../src/runner/sandbox/sandbox.ts';
import { createToolBreaker, HOLD_MS, MAX_KILLS } from '../../src/runner/tool-breaker.ts';
import { createManualClock } from '../streams/manual-clock.ts';

const tool = { exportName: 'tool', revision: 'one' };

function breakerAt() {
  const clock = createManualClock();
  const breaker = createToolBreaker({ clock, log: createLog('silent') });
  /** As many runs, one after another, that end so. */
  const runs = (count: number, end: FailureReason | 'returned'): void => {
    for (let run = 0; run < count; run++) {
      expect(breaker.enter(tool), `run ${run}`).toBeNull();
      breaker.settle(tool, end);
    }
  };
  return { clock, breaker, runs };
}

it.each(['timeout', 'cpu', 'memory', 'crashed', 'log-flood', 'call-flood'] as const)(
  'a tool is held after five in a row that ended by %s',
  (reason) => {
    const { clock, breaker, runs } = breakerAt();
    runs(MAX_KILLS, reason);
    expect(MAX_KILLS).toBe(5);
    expect(breaker.enter(tool)).toMatchObject({ kills: 5, reason, untilMs: clock.nowMs() + HOLD_MS });
  },
);

it.each(['threw', 'invalid-result', 'result-too-large', 'returned'] as const)(
  'what ends by %s costs no process: it is never held, and one such run starts the count again',
  (end) => {
    const { breaker, runs } = breakerAt();
    runs(20, end);
    runs(4, 'memory');
    runs(1, end);
    runs(4, 'memory');
    expect(breaker.enter(tool)).toBeNull();
  },
);

it('another tool, and another revision of the tool, is not held', () => {
  const { breaker, runs } = breakerAt();
  runs(MAX_KILLS, 'memory');
  expect(breaker.enter({ ...tool, exportName: 'other' })).toBeNull();
  expect(breaker.enter({ ...tool, revision: 'two' })).toBeNull();
  expect(breaker.enter(tool)).not.toBeNull();
});

describe('when its time is over', () => {
  function halfOpen() {
    const parts = breakerAt();
    parts.runs(MAX_KILLS, 'crashed');
    parts.clock.advance(HOLD_MS - 1);
    expect(parts.breaker.enter(tool)).not.toBeNull();
    parts.clock.advance(1);
    expect(parts.breaker.enter(tool)).toBeNull();
    return parts;
  }

  it('one run is tried, and the others wait for what becomes of it', () => {
    expect(halfOpen().breaker.enter(tool)).not.toBeNull();
  });

  it('the tool is released if that run ends well', () => {
    const { breaker, runs } = halfOpen();
    breaker.settle(tool, 'returned');
    runs(MAX_KILLS - 1, 'memory');
    expect(breaker.enter(tool)).toBeNull();
  });

  it('the tool is held again if that run costs a process', () => {
    const { breaker, clock } = halfOpen();
    breaker.settle(tool, 'timeout');
    expect(breaker.enter(tool)).toMatchObject({ kills: 6, untilMs: clock.nowMs() + HOLD_MS });
  });

  it('another is tried if that run was given up', () => {
    const { breaker } = halfOpen();
    breaker.settle(tool, 'given-up');
    expect(breaker.enter(tool)).toBeNull();
  });
});

it('a run that began before the tool was held does not release it', () => {
  const { breaker, runs } = breakerAt();
  expect(breaker.enter(tool)).toBeNull();
  runs(MAX_KILLS, 'memory');
  breaker.settle(tool, 'returned');
  expect(breaker.enter(tool)).not.toBeNull();
});
