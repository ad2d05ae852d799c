/** Nobody comes back too early, nor all at once. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { retryDelayMs } from '../../src/platform/retry.ts';

const backoff = { baseMs: 1_000, maxMs: 300_000 };

it('never comes before the time that was asked for, and soon after it', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 0, max: 86_400_000 }),
      fc.double({ min: 0, max: 0.999_999, noNaN: true }),
      (attempts, askedMs, drawn) => {
        const delayMs = retryDelayMs({ attempts, askedMs }, backoff, () => drawn);
        expect(delayMs).toBeGreaterThanOrEqual(askedMs);
        expect(delayMs).toBeLessThanOrEqual(Math.max(askedMs + 60_000, backoff.maxMs));
      },
    ),
  );
});

it('spreads those who were told the same time', () => {
  const delays = [0, 0.5, 0.99].map((drawn) =>
    retryDelayMs({ attempts: 1, askedMs: 3_600_000 }, backoff, () => drawn),
  );
  expect(delays).toEqual([3_600_000, 3_630_000, 3_659_400]);
});
