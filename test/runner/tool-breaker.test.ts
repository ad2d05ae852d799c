/**
 * When a sender's mail to a tool is held, when the tool is, and when they are let go; test/runner/held-tool.test.ts and
 * test/e2e/failures.test.ts show what becomes of the mail.
 */
import { describe, expect, it } from 'vitest';
import { createLog } from '../../src/platform/log.ts';
import type { FailureReason } from '../../src/runner/sandbox/sandbox.ts';
import {
  createToolBreaker,
  FIRST_HOLD_MS,
  HOLD_MS,
  MAX_KILLS,
  MAX_SENDERS,
} from '../../src/runner/tool-breaker.ts';
import type { ToolBreaker } from '../../src/runner/tool-breaker.ts';
import { createManualClock } from '../streams/manual-clock.ts';

const tool = { exportName: 'tool', revision: 'one', sender: 'ann@sender.example' };
const from = (sender: string) => ({ ...tool, sender });

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
  /** A run each of mail of so many senders. */
  const senders = (count: number, end: FailureReason): void => {
    for (let sender = 0; sender < count; sender++) {
      expect(breaker.enter(from(`${sender}@x.example`)), `sender ${sender}`).toBeNull();
      breaker.settle(from(`${sender}@x.example`), end);
    }
  };
  return { clock, breaker, runs, senders };
}

it.each(['timeout', 'cpu', 'memory', 'crashed', 'log-flood', 'call-flood'] as const)(
  "a sender's mail is held after five in a row that ended by %s",
  (reason) => {
    const { clock, breaker, runs } = breakerAt();
    runs(MAX_KILLS, reason);
    expect(MAX_KILLS).toBe(5);
    expect(breaker.enter(tool)).toMatchObject({
      of: 'sender',
      kills: 5,
      reason,
      untilMs: clock.nowMs() + HOLD_MS,
    });
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

it('another sender, another tool, and another revision of the tool, is not held', () => {
  const { breaker, runs } = breakerAt();
  runs(MAX_KILLS, 'memory');
  expect(breaker.enter(from('bob@sender.example'))).toBeNull();
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

  it('lets go if that run ends well', () => {
    const { breaker, runs } = halfOpen();
    breaker.settle(tool, 'returned');
    runs(MAX_KILLS - 1, 'memory');
    expect(breaker.enter(tool)).toBeNull();
  });

  it('holds again if that run costs a process', () => {
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

it('a run that began before it was held does not let it go', () => {
  const { breaker, runs } = breakerAt();
  expect(breaker.enter(tool)).toBeNull();
  runs(MAX_KILLS, 'memory');
  breaker.settle(tool, 'returned');
  expect(breaker.enter(tool)).not.toBeNull();
});

describe('a tool that mail of several senders brings down', () => {
  it('is held for all, at first for a short time', () => {
    const { breaker, clock, senders } = breakerAt();
    senders(MAX_SENDERS, 'memory');
    expect(breaker.enter(tool)).toMatchObject({ of: 'tool', untilMs: clock.nowMs() + FIRST_HOLD_MS });
    clock.jumpTo(clock.nowMs() - 3_600_000);
    clock.advance(FIRST_HOLD_MS);
    expect(breaker.enter(tool)).toBeNull();
  });

  it('is not, where one run in between ended well', () => {
    const { breaker, runs, senders } = breakerAt();
    senders(MAX_SENDERS - 1, 'memory');
    runs(1, 'returned');
    senders(MAX_SENDERS - 1, 'memory');
    expect(breaker.enter(tool)).toBeNull();
  });

  it('is held for twice as long each time, up to a minute, and let go by the first run that ends well', () => {
    const { breaker, clock, runs, senders } = breakerAt();
    senders(MAX_SENDERS, 'crashed');
    const heldMs: number[] = [];
    for (let probe = 0; probe < 6; probe++) {
      const held = breaker.enter(from(`probe-${probe}@x.example`))!;
      heldMs.push(held.untilMs - clock.nowMs());
      clock.advance(held.untilMs - clock.nowMs());
      if (probe < 5) runsOnce(breaker, `probe-${probe}@x.example`);
    }
    expect(heldMs).toEqual([5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
    runs(1, 'returned');
    expect(breaker.enter(from('another@x.example'))).toBeNull();
  });

  it('is held for no longer by runs that began before', () => {
    const { breaker, clock, senders } = breakerAt();
    for (const sender of ['early', 'earlier']) expect(breaker.enter(from(sender))).toBeNull();
    senders(MAX_SENDERS, 'memory');
    for (const sender of ['early', 'earlier']) breaker.settle(from(sender), 'memory');
    expect(breaker.enter(tool)).toMatchObject({ untilMs: clock.nowMs() + FIRST_HOLD_MS });
  });
});

function runsOnce(breaker: ToolBreaker, sender: string): void {
  expect(breaker.enter(from(sender))).toBeNull();
  breaker.settle(from(sender), 'crashed');
}
