/**
 * Some thousand simulated lives of the three stages. A seed that fails is named with the command that shows
 * what happens in it. Many more run by `npm run sim`.
 */
import { describe, expect, it } from 'vitest';
import { simulate } from './simulate.ts';

// Thousands of simulated faults are errors too, and a stack costs more than all else about them.
Error.stackTraceLimit = 0;

const BLOCKS = 8;
const SEEDS_PER_BLOCK = 225;

describe('simulation', () => {
  it('is decided by its seed alone', async () => {
    const first = await simulate(7);
    const again = await simulate(7);
    const other = await simulate(8);
    expect(again).toEqual(first);
    expect(other.traceHash).not.toBe(first.traceHash);
    expect(first.kills).toBeGreaterThan(0);
  });

  it.each(Array.from({ length: BLOCKS }, (_, block) => block * SEEDS_PER_BLOCK))(
    'nothing is lost, nothing leaves twice, order is kept: seeds from %i',
    async (from) => {
      const failures: string[] = [];
      for (let seed = from; seed < from + SEEDS_PER_BLOCK; seed++) {
        const { faults } = await simulate(seed);
        if (faults.length > 0) failures.push(`npm run sim -- --seed ${seed}: ${faults[0]}`);
      }
      expect(failures).toEqual([]);
    },
    120_000,
  );
});
