/** What a stage was in the middle of when it was stopped goes on in the next one, as if it had not been. */
import { describe, expect, it } from 'vitest';
import type { Outcome } from '../../src/streams/stage.ts';
import { createManualClock } from './manual-clock.ts';
import { numbered, useStages } from './stage-fixture.ts';

const { stream, start, outcomes, settled } = useStages();

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const done = async (): Promise<Outcome> => ({ kind: 'done' });
const append = (...numbers: number[]) => stream('source').append(numbers.map((n) => numbered(n)));

describe('a stage that is stopped and started again', () => {
  it('handles every record, also where it held all that it may set aside', async () => {
    const clock = createManualClock();
    const limits = { aside: 4, window: 1 };
    const total = 20;
    await append(...Array.from({ length: total }, (_, n) => n));
    const untilMs = clock.nowMs() + HOUR_MS;
    const first = start(async () => ({ kind: 'deferred', untilMs, reason: 'test', holdsLane: false }), {
      clock,
      limits,
    });
    await expect.poll(() => first.stage.stats().aside).toBeGreaterThanOrEqual(limits.aside);
    await first.stop();
    const second = start(done, { clock, limits });
    await second.stage.ready;
    clock.advance(HOUR_MS);
    const handled = await settled(total);
    await second.stop();
    expect(new Set(handled.map(({ seqNum }) => seqNum)).size).toBe(total);
  });

  it('waits for what is left of a backoff, and not for all of it again', async () => {
    const clock = createManualClock();
    await append(0);
    let calls = 0;
    const handle = async (): Promise<Outcome> =>
      ++calls === 1
        ? { kind: 'deferred', untilMs: clock.nowMs() + HOUR_MS, reason: 'test', holdsLane: true }
        : { kind: 'done' };
    const first = start(handle, { clock });
    await expect.poll(async () => (await outcomes()).length).toBe(1);
    await first.stop();
    clock.advance(HOUR_MS - MINUTE_MS);
    const second = start(handle, { clock });
    await second.stage.ready;
    expect(calls).toBe(1);
    clock.advance(MINUTE_MS);
    expect(await settled(1)).toMatchObject([{ outcome: 'done' }]);
    await second.stop();
  });

  it('remembers a key for its horizon of running time, which goes on from one run to the next', async () => {
    const clock = createManualClock();
    const became: string[] = [];
    for (const run of [1, 2, 3, 4, 5]) {
      const { stop } = start(done, { clock, horizonMs: HOUR_MS });
      await append(0);
      became.push((await settled(run)).at(-1)!.outcome);
      clock.advance(25 * MINUTE_MS);
      // Saved now, so the key counts as settled now.
      await stop();
      // While nothing runs, nothing is forgotten.
      clock.advance(10 * HOUR_MS);
    }
    expect(became).toEqual(['done', 'duplicate', 'duplicate', 'duplicate', 'done']);
  });
});
