/** Records of a stage take turns by their fairness key: a burst under one delays no other, and takes no more memory. */
import { describe, expect, it } from 'vitest';
import type { Attempt, Outcome, StageOptions } from '../../src/streams/stage.ts';
import type { StreamRecord } from '../../src/streams/stream-store.ts';
import { never, numberOf, numbered, useStages } from './stage-fixture.ts';

const { stream, start, final, settled } = useStages();

const BURST = 500;
const WINDOW = 32;
/** The record of another key behind the burst. */
const OTHER = BURST;

const fair: Partial<StageOptions> = {
  fairnessKeyOf: (record) => (numberOf(record) === OTHER ? 'other' : 'burst'),
  concurrency: 8,
  concurrencyPerKey: 6,
  limits: { window: WINDOW },
};

/** Within a key, as it has to be. */
const laneOf = (record: StreamRecord): string =>
  numberOf(record) === OTHER ? 'other' : `lane ${numberOf(record) % 40}`;

async function appendBurst(): Promise<void> {
  const records = Array.from({ length: BURST + 1 }, (_, n) => numbered(n));
  await stream('source').append(records);
}

/** Handles the other record at once, those of the burst when they are let go, and notes the order. */
function heldBurst() {
  const gate = Promise.withResolvers<void>();
  const order: number[] = [];
  return {
    order,
    letGo: gate.resolve,
    async handle(record: StreamRecord, { signal }: Pick<Attempt, 'signal'>): Promise<Outcome> {
      if (numberOf(record) !== OTHER) await Promise.race([gate.promise, never(signal)]);
      order.push(numberOf(record));
      return { kind: 'done' };
    },
  };
}

describe('a stage with fairness keys', () => {
  it('reaches the record behind a burst larger than its memory, and then goes on in order', async () => {
    await appendBurst();
    const { handle, order, letGo } = heldBurst();
    const { stage, stop } = start(handle, { ...fair, laneOf });
    await settled(1);
    expect(order).toEqual([OTHER]);
    expect(stage.stats()).toMatchObject({ position: BURST + 1 });
    expect(stage.stats().inMemory).toBeLessThan(WINDOW);
    letGo();
    await settled(BURST + 1);
    await stop();
    for (let lane = 0; lane < 40; lane++) {
      const ofLane = order.filter((n) => n % 40 === lane && n !== OTHER);
      expect(ofLane).toEqual(ofLane.toSorted((a, b) => a - b));
    }
    expect(order.toSorted((a, b) => a - b)).toEqual(Array.from({ length: BURST + 1 }, (_, n) => n));
    expect(stage.stats()).toMatchObject({ inMemory: 0, aside: 0 });
  });

  it('keeps the order of a lane whose key changes while its first record is passed over', async () => {
    await appendBurst();
    const [first, second] = [BURST + 1, BURST + 2];
    let served = false;
    let known = served;
    const held = heldBurst();
    const isAnn = (n: number): boolean => n === first || n === second;
    const { stage, stop } = start(
      async (record, attempt) => {
        if (!isAnn(numberOf(record))) return held.handle(record, attempt);
        held.order.push(numberOf(record));
        return { kind: 'done' };
      },
      {
        ...fair,
        laneOf: (record) => (isAnn(numberOf(record)) ? 'ann' : laneOf(record)),
        fairnessKeyOf: (record) =>
          numberOf(record) === second && known ? 'served' : fair.fairnessKeyOf!(record),
        keysMayChange: () => void (known = served),
      },
    );
    await stream('source').append([numbered(first)]);
    await expect.poll(() => stage.stats().position, { timeout: 10_000 }).toBe(first + 1);
    served = true;
    await stream('source').append([numbered(second)]);
    await expect.poll(() => stage.stats().position, { timeout: 10_000 }).toBe(second + 1);
    held.letGo();
    await settled(BURST + 3);
    await stop();
    expect(held.order.filter(isAnn)).toEqual([first, second]);
  });

  it('meets what it passed over again after a restart, each once', async () => {
    await appendBurst();
    const first = heldBurst();
    const { stop } = start(first.handle, { ...fair, drainMs: 0 });
    await settled(1);
    await stop();
    const second = heldBurst();
    second.letGo();
    const again = start(second.handle, fair);
    await settled(BURST + 1);
    await again.stop();
    expect(second.order.toSorted((a, b) => a - b)).toEqual(Array.from({ length: BURST }, (_, n) => n));
    expect(new Set((await final()).map(({ outcome }) => outcome))).toEqual(new Set(['done']));
  });

  it('lets one that is due pass many of another key that were due before it, also after a restart', async () => {
    await appendBurst();
    const { handle, order } = heldBurst();
    let putOff = 0;
    const untilMs = Date.now() + 1_000;
    const putOffOnce = async (record: StreamRecord): Promise<Outcome> => {
      putOff++;
      const dueMs = untilMs + (numberOf(record) === OTHER ? 1 : 0);
      return { kind: 'deferred', untilMs: dueMs, reason: 'test', holdsLane: false };
    };
    const first = start(putOffOnce, { ...fair, concurrency: 50, concurrencyPerKey: 50 });
    await expect.poll(() => putOff, { timeout: 20_000 }).toBeGreaterThan(BURST);
    await first.stop();
    const second = start(handle, { ...fair, drainMs: 0 });
    await settled(1);
    expect(order).toEqual([OTHER]);
    await second.stop();
  });

  it('gives no key all slots', async () => {
    await stream('source').append(Array.from({ length: 20 }, (_, n) => numbered(n)));
    const { handle, order, letGo } = heldBurst();
    let most = 0;
    let running = 0;
    const counted: StageOptions['handle'] = async (record, attempt) => {
      most = Math.max(most, ++running);
      return handle(record, attempt).finally(() => running--);
    };
    const { stop } = start(counted, fair);
    await expect.poll(() => running).toBe(6);
    await stream('source').append([numbered(OTHER)]);
    await settled(1);
    expect(order).toEqual([OTHER]);
    letGo();
    await settled(21);
    await stop();
    expect(most).toBe(7);
  });
});
