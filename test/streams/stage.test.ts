/**
 * The stage on a real local store: outcomes, duplicates, lanes, deferral, dead letters, and what a restart
 * or a second owner finds. Time is a clock of the test's own where a wait matters.
 */
import { describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Outcome, StageOptions } from '../../src/streams/stage.ts';
import type { StreamRecord } from '../../src/streams/stream-store.ts';
import { copyTo, never, numberOf, numbered, useStages } from './stage-fixture.ts';
import { readAll } from './store-reading.ts';

const { stream, start, outcomes, final, settled } = useStages();

describe('stage', () => {
  it('gives every record one outcome and its outputs, those there and those that arrive', async () => {
    await stream('source').append([0, 1, 2].map((n) => numbered(n)));
    const { stop } = start(copyTo('target'));
    await settled(3);
    await stream('source').append([3, 4].map((n) => numbered(n)));
    const all = await settled(5);
    await stop();
    expect(all.map(({ outcome }) => outcome)).toEqual(Array(5).fill('done'));
    expect((await readAll(stream('target'))).map(numberOf).sort()).toEqual([0, 1, 2, 3, 4]);
  });

  it('drops a key that it has settled, or has in hand, also after a restart', async () => {
    const handled: number[] = [];
    const handle = async (record: StreamRecord): Promise<Outcome> => {
      handled.push(numberOf(record));
      return { kind: 'done' };
    };
    await stream('source').append([numbered(0, 'same'), numbered(1, 'same'), numbered(2, 'other')]);
    const first = start(handle);
    await settled(3);
    await first.stop();
    await stream('source').append([numbered(3, 'same'), numbered(4, 'new')]);
    const second = start(handle);
    await settled(5);
    await second.stop();
    expect(handled.sort()).toEqual([0, 2, 4]);
    const duplicates = (await final())
      .filter(({ outcome }) => outcome === 'duplicate')
      .map(({ seqNum }) => seqNum);
    expect(duplicates).toEqual([1, 3]);
  });

  it('keeps a duplicate dropped over many checkpoints, whose key segments are merged', async () => {
    const total = 21_000;
    const records = Array.from({ length: total }, (_, n) => numbered(n));
    for (let i = 0; i < total; i += 1000) await stream('source').append(records.slice(i, i + 1000));
    const first = start(async () => ({ kind: 'done' }));
    await expect.poll(() => first.stage.stats().settledKeys, { timeout: 60_000 }).toBe(total);
    await first.stop();
    const before = await stream('source').append([numbered(7), numbered(total - 1), numbered(total)]);
    const handled: number[] = [];
    const second = start(async (record) => {
      handled.push(numberOf(record));
      return { kind: 'done' };
    });
    await expect.poll(() => second.stage.stats().position, { timeout: 10_000 }).toBe(before.endSeqNum);
    await expect.poll(() => handled.length, { timeout: 10_000 }).toBe(1);
    await second.stop();
    expect(handled).toEqual([total]);
  });

  it('handles records of one lane in order, and lets other lanes pass', async () => {
    const laneOf = (record: StreamRecord): string => (numberOf(record) % 2 === 0 ? 'slow' : 'fast');
    const order: number[] = [];
    const gate = Promise.withResolvers<void>();
    await stream('source').append(Array.from({ length: 100 }, (_, n) => numbered(n)));
    const { stop } = start(
      async (record) => {
        if (numberOf(record) === 0) await gate.promise;
        order.push(numberOf(record));
        return { kind: 'done' };
      },
      { laneOf },
    );
    await settled(50);
    expect(order).toEqual(Array.from({ length: 50 }, (_, i) => 2 * i + 1));
    gate.resolve();
    await settled(100);
    await stop();
    expect(order.slice(50)).toEqual(Array.from({ length: 50 }, (_, i) => 2 * i));
  });

  it('does not let a lane longer than the window hold back the others', async () => {
    const gate = Promise.withResolvers<void>();
    const long = Array.from({ length: 300 }, (_, n) => numbered(n));
    await stream('source').append([...long.slice(0, 299), numbered(9999)]);
    const order: number[] = [];
    const { stop } = start(
      async (record) => {
        if (numberOf(record) === 0) await gate.promise;
        order.push(numberOf(record));
        return { kind: 'done' };
      },
      { laneOf: (record) => (numberOf(record) === 9999 ? 'other' : 'long'), limits: { window: 64 } },
    );
    await settled(1);
    expect(order).toEqual([9999]);
    gate.resolve();
    await settled(300);
    await stop();
    expect(order.slice(1)).toEqual(Array.from({ length: 299 }, (_, n) => n));
  });

  it('tries a transient failure again, in its lane, without holding back others', async () => {
    const attempts: [number, number][] = [];
    await stream('source').append([0, 1, 2].map((n) => numbered(n)));
    const { stop } = start(
      async (record, { number }) => {
        attempts.push([numberOf(record), number]);
        if (numberOf(record) === 0 && number < 3)
          throw new MillraceError('transient', 'test.transient', 'not now');
        return { kind: 'done' };
      },
      { laneOf: (record) => (numberOf(record) === 2 ? 'b' : 'a') },
    );
    await settled(3);
    await stop();
    const laneA = attempts.filter(([n]) => n !== 2);
    expect(laneA).toEqual([
      [0, 1],
      [0, 2],
      [0, 3],
      [1, 1],
    ]);
    expect(attempts.findIndex(([n]) => n === 2)).toBeLessThan(attempts.length - 1);
  });

  it('comes back after the time that the other side asked for, and not with all others at once', async () => {
    const askedMs = 3_600_000;
    await stream('source').append(Array.from({ length: 20 }, (_, n) => numbered(n)));
    const { stop } = start(async () => {
      throw new MillraceError('transient', 'test.quota', 'tomorrow', { retryAfterMs: askedMs });
    });
    await expect.poll(async () => (await outcomes()).length).toBe(20);
    await stop();
    const laterMs = (await outcomes()).map(({ at, aside }) => aside!.untilMs - Date.parse(at) - askedMs);
    expect(Math.min(...laterMs)).toBeGreaterThanOrEqual(-1_000);
    expect(Math.max(...laterMs)).toBeLessThan(120_000);
    expect(Math.max(...laterMs) - Math.min(...laterMs)).toBeGreaterThan(1_000);
  });

  it('parks what fails for good, with the error and the attempts, and goes on', async () => {
    await stream('source').append([0, 1, 2, 3].map((n) => numbered(n)));
    const { stop } = start(
      async (record) => {
        if (numberOf(record) === 0)
          throw new MillraceError('permanent', 'test.permanent', 'never', { hint: 'Mend it.' });
        if (numberOf(record) === 1) throw new MillraceError('transient', 'test.transient', 'not now');
        if (numberOf(record) === 2) throw new TypeError('a slip');
        return { kind: 'done' };
      },
      { maxAttempts: 3 },
    );
    const all = await settled(4);
    await stop();
    const bySeqNum = all.sort((a, b) => a.seqNum - b.seqNum);
    expect(bySeqNum.map(({ outcome, reason, attempts }) => [outcome, reason, attempts])).toEqual([
      ['dead-letter', 'test.permanent', 1],
      ['dead-letter', 'test.transient', 3],
      ['dead-letter', 'stage.exception', 1],
      ['done', null, 1],
    ]);
    expect(bySeqNum[0]?.error).toEqual({ code: 'test.permanent', message: 'never', hint: 'Mend it.' });
  });

  it('stops on a bug', async () => {
    await stream('source').append([numbered(0)]);
    const { running } = start(async () => {
      throw new MillraceError('bug', 'test.bug', 'this must not be');
    });
    await expect(running).rejects.toMatchObject({ code: 'test.bug' });
    expect(await final()).toEqual([]);
  });

  it('remembers a deferral and its attempts over a restart, and handles it when it is due', async () => {
    await stream('source').append([0, 1, 2].map((n) => numbered(n)));
    let dueMs = Number.POSITIVE_INFINITY;
    const seen: [number, number][] = [];
    const handle: StageOptions['handle'] = async (record, { number }) => {
      seen.push([numberOf(record), number]);
      if (numberOf(record) === 0 && number === 1)
        throw new MillraceError('transient', 'test.transient', 'later', { retryAfterMs: 400 });
      if (numberOf(record) === 1 && clock.nowMs() < dueMs) {
        dueMs = Math.min(dueMs, clock.nowMs() + 400);
        return { kind: 'deferred', untilMs: dueMs, reason: 'scheduled', holdsLane: false };
      }
      return { kind: 'done' };
    };
    const first = start(handle);
    await settled(1);
    await expect.poll(async () => (await outcomes()).length).toBe(3);
    await first.stop();
    const second = start(handle);
    await settled(3);
    await second.stop();
    expect(seen.filter(([n]) => n === 0)).toEqual([
      [0, 1],
      [0, 2],
    ]);
    // A scheduled deferral is not an attempt.
    expect(seen.filter(([n]) => n === 1)).toEqual([
      [1, 1],
      [1, 1],
    ]);
  });

  it('never lets `low` go back for a deferred record, so that what was settled above it stays settled', async () => {
    const handled: number[] = [];
    let stuck = true;
    const handle: StageOptions['handle'] = async (record, { signal }) => {
      const n = numberOf(record);
      handled.push(n);
      if (n > 0 || !stuck) return { kind: 'done' };
      if (handled.filter((other) => other === 0).length === 1) {
        return { kind: 'deferred', untilMs: clock.nowMs() + 50, reason: 'scheduled', holdsLane: false };
      }
      return never(signal);
    };
    // No key is remembered: only the positions can tell what was settled.
    const options = { horizonMs: -1, drainMs: 0 };
    await stream('source').append([numbered(0)]);
    const first = start(handle, options);
    for (let i = 1; i <= 1500; i += 500) {
      await stream('source').append(Array.from({ length: 500 }, (_, j) => numbered(i + j)));
    }
    await settled(1500);
    await expect.poll(() => handled.filter((n) => n === 0).length).toBe(2);
    await stream('source').append(Array.from({ length: 600 }, (_, j) => numbered(1501 + j)));
    await settled(2100);
    await first.stop();
    stuck = false;
    const second = start(handle, options);
    await settled(2101);
    await second.stop();
    expect(handled.filter((n) => n > 0).length).toBe(2100);
  });

  it('ten thousand deferred records neither hold back fresh ones nor get lost in a restart', async () => {
    const total = 10_000;
    for (let i = 0; i < total; i += 1000)
      await stream('source').append(Array.from({ length: 1000 }, (_, j) => numbered(i + j)));
    const due = { atMs: Number.POSITIVE_INFINITY };
    const handle: StageOptions['handle'] = async (record) =>
      numberOf(record) < total && clock.nowMs() < due.atMs
        ? {
            kind: 'deferred',
            untilMs: Math.min(due.atMs, clock.nowMs() + 3_600_000),
            reason: 'scheduled',
            holdsLane: false,
          }
        : { kind: 'done' };
    const first = start(handle);
    await expect.poll(() => first.stage.stats().aside, { timeout: 60_000 }).toBe(total);
    await stream('source').append([numbered(total)]);
    await settled(1);
    await first.stop();
    const second = start(handle);
    await second.stage.ready;
    expect(second.stage.stats().aside).toBe(total);
    await stream('source').append([numbered(total + 1)]);
    await settled(2);
    await second.stop();
  });

  it('says once that it holds all that it may set aside, and reads on when some of it is settled', async () => {
    await stream('source').append(Array.from({ length: 10 }, (_, n) => numbered(n)));
    const lines: string[] = [];
    const log = createLog('warn', { write: (line) => void lines.push(line) });
    const dueMs = clock.nowMs() + 3_000;
    const handle: StageOptions['handle'] = async () =>
      clock.nowMs() < dueMs
        ? { kind: 'deferred', untilMs: dueMs, reason: 'scheduled', holdsLane: false }
        : { kind: 'done' };
    const { stage, stop } = start(handle, { log, limits: { aside: 10 } });
    await expect.poll(() => stage.stats().aside).toBe(10);
    await stream('source').append([numbered(10), numbered(11)]);
    await settled(12);
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      expect.objectContaining({ msg: 'stage.aside_full', source: 'source', aside: 10 }),
    ]);
    await stop();
  });

  it('says since when an attempt is in doubt after a stop in the worst place', async () => {
    await stream('source').append([numbered(0)]);
    const begun = Promise.withResolvers<void>();
    const first = start(
      async (_record, { signal }) => {
        begun.resolve();
        return never(signal);
      },
      { recordsAttempts: true, drainMs: 0 },
    );
    await begun.promise;
    await first.stop();
    const doubts: (number | null)[] = [];
    const second = start(
      async (_record, { doubtSinceMs }) => {
        doubts.push(doubtSinceMs);
        return { kind: 'done' };
      },
      { recordsAttempts: true },
    );
    await settled(1);
    await second.stop();
    expect(doubts).toEqual([expect.any(Number)]);
  });

  it('keeps no doubt after an attempt that surely had no effect', async () => {
    await stream('source').append([numbered(0)]);
    const doubts: (number | null)[] = [];
    const { stop } = start(
      async (_record, { number, doubtSinceMs }) => {
        doubts.push(doubtSinceMs);
        if (number === 1) throw new MillraceError('transient', 'test.refused', 'come back');
        if (number === 2) throw new MillraceError('transient', 'test.lost', 'no answer');
        return { kind: 'done' };
      },
      { recordsAttempts: true, leavesDoubt: (error) => error.code === 'test.lost' },
    );
    await settled(1);
    await stop();
    expect(doubts).toEqual([null, null, expect.any(Number)]);
  });

  it('keeps no doubt about a record that was put off, however often', async () => {
    await stream('source').append([numbered(0)]);
    const doubts: (number | null)[] = [];
    const { stop } = start(
      async (_record, { doubtSinceMs }) => {
        doubts.push(doubtSinceMs);
        if (doubts.length === 3) return { kind: 'done' };
        return { kind: 'deferred', untilMs: Date.now(), reason: 'test.later', holdsLane: false };
      },
      { recordsAttempts: true },
    );
    await settled(1);
    await stop();
    expect(doubts).toEqual([null, null, null]);
    expect((await outcomes()).map(({ aside }) => aside?.doubtSinceMs)).toEqual([null, null, undefined]);
  });

  it('stops the owner whose journal was taken over, before it commits anything more', async () => {
    await stream('source').append([numbered(0)]);
    const first = start(copyTo('target'));
    await settled(1);
    const second = start(copyTo('target'));
    await second.stage.ready;
    await stream('source').append([numbered(1)]);
    await expect(first.running).rejects.toMatchObject({ code: 'stage.ownership_lost' });
    await settled(2);
    await second.stop();
    expect((await final()).map(({ seqNum }) => seqNum)).toEqual([0, 1]);
  });

  it('lets go of old history on its journal, and forgets nothing by it', async () => {
    const options = { historyMs: 0, limits: { checkpointOutcomes: 1, commitRecords: 1, trimMs: 0 } };
    const first = start(async () => ({ kind: 'done' }), options);
    for (let n = 0; n < 40; n++) {
      await stream('source').append([numbered(n)]);
      await expect.poll(() => first.stage.stats().settledKeys, { interval: 1 }).toBe(n + 1);
    }
    await first.stop();
    expect((await final()).length).toBeLessThan(40);
    const handled: number[] = [];
    const second = start(async (record) => {
      handled.push(numberOf(record));
      return { kind: 'done' };
    }, options);
    await stream('source').append([...Array.from({ length: 40 }, (_, n) => numbered(n)), numbered(40)]);
    await expect.poll(() => second.stage.stats().settledKeys).toBe(41);
    await second.stop();
    expect(handled).toEqual([40]);
  });

  it('finishes what runs when it is stopped, and records it', async () => {
    await stream('source').append([numbered(0)]);
    const gate = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const { stop } = start(async () => {
      begun.resolve();
      await gate.promise;
      return { kind: 'done' };
    });
    await begun.promise;
    const stopped = stop();
    gate.resolve();
    await stopped;
    expect((await final()).map(({ outcome }) => outcome)).toEqual(['done']);
  });
});
