/** What a stage was in the middle of when it was stopped goes on in the next one, as if it had not been. */
import { describe, expect, it } from 'vitest';
import type { Outcome } from '../../src/streams/stage.ts';
import { createManualClock } from './manual-clock.ts';
import { numbered, useStages } from './stage-fixture.ts';

const { stream, start, settled } = useStages();

const HOUR_MS = 3_600_000;
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
});
