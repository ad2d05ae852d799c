/** What one fairness key puts off for weeks leaves room for all that others have to do. */
import { describe, expect, it } from 'vitest';
import type { Outcome, StageOptions } from '../../src/streams/stage.ts';
import type { StreamRecord } from '../../src/streams/stream-store.ts';
import { numberOf, numbered, useStages } from './stage-fixture.ts';

const { stream, start, final, outcomes, settled } = useStages();

const WEEK_MS = 7 * 86_400_000;
const later = (ms: number): Outcome => ({
  kind: 'deferred',
  untilMs: Date.now() + ms,
  reason: 'scheduled',
  holdsLane: false,
});

/** Those below a hundred are one inbox's, and all of them are for next week; so is the hundred and first. */
const options: Partial<StageOptions> = {
  fairnessKeyOf: (record) => (numberOf(record) < 100 ? 'busy' : 'quiet'),
  limits: { scheduled: 8, aside: 16 },
};
const handle = async (record: StreamRecord): Promise<Outcome> =>
  numberOf(record) <= 100 ? later(WEEK_MS) : { kind: 'done' };
const append = (...numbers: number[]) => stream('source').append(numbers.map((n) => numbered(n)));

describe('a stage with scheduled records', () => {
  it('parks what is beyond the share of its key, and handles what stands behind it', async () => {
    await append(...Array.from({ length: 20 }, (_, n) => n), 100, 101);
    const { stage, stop } = start(handle, options);
    const ended = await settled(17);
    expect(ended.filter(({ reason }) => reason === 'stage.too_many_scheduled')).toHaveLength(16);
    expect(ended.find(({ outcome }) => outcome === 'done')).toMatchObject({ seqNum: 21 });
    expect(stage.stats()).toMatchObject({ aside: 5 });
    await stop();
    const waiting = (await outcomes()).filter(({ outcome }) => outcome === 'deferred');
    expect(waiting.map(({ seqNum }) => seqNum)).toEqual([0, 1, 2, 3, 20]);
  });

  it('counts what waits after a restart, too', async () => {
    await append(0, 1, 2, 3);
    const first = start(handle, options);
    await expect.poll(() => first.stage.stats().aside).toBe(4);
    await first.stop();
    await append(4);
    const second = start(handle, options);
    expect(await settled(1)).toMatchObject([{ seqNum: 4, reason: 'stage.too_many_scheduled' }]);
    await second.stop();
  });

  it('has room again when one is settled, and keeps the place of one that is put off again', async () => {
    await append(0, 1);
    let calls = 0;
    const { stop } = start(
      async (record) => {
        if (numberOf(record) > 0) return later(WEEK_MS);
        return ++calls < 4 ? later(1) : { kind: 'done' };
      },
      { ...options, concurrency: 1, limits: { scheduled: 2 } },
    );
    await settled(2);
    expect(await final()).toMatchObject([
      { seqNum: 1, outcome: 'dead-letter' },
      { seqNum: 0, outcome: 'done' },
    ]);
    await append(2, 3);
    await settled(3);
    expect((await final()).at(-1)).toMatchObject({ seqNum: 3, outcome: 'dead-letter' });
    await stop();
  });
});
