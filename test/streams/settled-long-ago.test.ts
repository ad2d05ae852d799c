/** A record that comes long after its cause: whether a copy was settled is asked of the journal, and what that costs. */
import { expect, it } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import type { Stream, StreamStore } from '../../src/streams/stream-store.ts';
import { never, numberOf, numbered, useStages } from './stage-fixture.ts';

const HOUR_MS = 3_600_000;
const { stream, start, settled, final } = useStages();

function createShiftedClock(): Clock & { shift(ms: number): void } {
  let offsetMs = 0;
  return {
    ...systemClock,
    nowMs: () => systemClock.nowMs() + offsetMs,
    monotonicMs: () => systemClock.monotonicMs() + offsetMs,
    shift(ms) {
      offsetMs += ms;
    },
  };
}

/** Whatever is asked of the journal goes through `read` or `tail`. */
function watchJournal(onAsk: () => void): (store: StreamStore) => StreamStore {
  return (store) => ({
    ...store,
    stream(name): Stream {
      const whole = store.stream(name);
      if (name !== 'journal') return whole;
      return {
        ...whole,
        read: async (range) => {
          onAsk();
          return whole.read(range);
        },
        tail: async (signal) => {
          onAsk();
          return whole.tail(signal);
        },
      };
    },
  });
}

const longAgo = { causedAtMs: () => systemClock.nowMs() - 80 * HOUR_MS };

it('reads the journal once, however many come late that were never begun', async () => {
  const asks: number[] = [];
  let seqNum = 0;
  for (const late of [10, 3_000]) {
    await stream('source').append([numbered(-late)]);
    seqNum += 1;
    await start(async () => ({ kind: 'done' })).stop();
    for (let n = 0; n < late; n += 1_000) {
      const count = Math.min(1_000, late - n);
      await stream('source').append(
        Array.from({ length: count }, (_, i) => numbered(n + i, `${late}/${n + i}`)),
      );
    }
    seqNum += late;
    let asked = 0;
    const { stop } = start(
      async () => ({ kind: 'done' }),
      longAgo,
      watchJournal(() => asked++),
    );
    await settled(seqNum);
    await stop();
    asks.push(asked);
  }
  expect(asks[0]).toBeGreaterThan(0);
  // The second journal is longer, and finding a time on it takes a few reads more.
  expect(asks[1]).toBeLessThan(asks[0]! + 20);
  expect((await final()).every(({ outcome }) => outcome === 'done')).toBe(true);
}, 30_000);

it('knows a key that was settled after the journal was read, and then forgotten', async () => {
  const clock = createShiftedClock();
  const handled: number[] = [];
  const { stop } = start(
    async (record) => {
      handled.push(numberOf(record));
      return { kind: 'done' };
    },
    { ...longAgo, clock },
  );
  const arrives = async (n: number, key: string): Promise<void> => {
    const before = (await final()).length;
    await stream('source').append([numbered(n, key)]);
    await settled(before + 1);
  };
  await arrives(0, 'first');
  clock.shift(HOUR_MS);
  await arrives(1, 'same');
  for (let day = 1; day <= 8; day++) {
    clock.shift(12 * HOUR_MS);
    await arrives(1 + day, `day-${day}`);
  }
  await arrives(100, 'same');
  await stop();
  expect(handled).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

it('handles a late record whose second copy was dropped before a crash', async () => {
  await stream('source').append([numbered(0, 'same'), numbered(1, 'same')]);
  const first = start((_record, { signal }) => never(signal), { drainMs: 0 });
  await settled(1);
  await first.stop();
  const second = start(async () => ({ kind: 'done' }), longAgo);
  await settled(2);
  await second.stop();
  expect((await final()).map(({ seqNum, outcome }) => [seqNum, outcome])).toEqual([
    [1, 'duplicate'],
    [0, 'done'],
  ]);
});

it('waits for a store that cannot say now', async () => {
  const clock = createShiftedClock();
  let isAway = false;
  let refusals = 0;
  const { stop } = start(
    async () => ({ kind: 'done' }),
    { ...longAgo, clock },
    watchJournal(() => {
      if (!isAway || refusals >= 3) return;
      refusals++;
      throw new MillraceError('transient', 'streams.unavailable', 'not now');
    }),
  );
  await stream('source').append([numbered(0, 'same')]);
  await settled(1);
  clock.shift(80 * HOUR_MS);
  await stream('source').append([numbered(1, 'other')]);
  await settled(2);
  clock.shift(80 * HOUR_MS);
  isAway = true;
  await stream('source').append([numbered(2, 'same')]);
  await settled(3);
  await stop();
  expect(refusals).toBe(3);
  expect((await final()).map(({ outcome, attempts }) => [outcome, attempts])).toEqual([
    ['done', 1],
    ['done', 1],
    ['duplicate', 1],
  ]);
});
