import { describe, expect, it } from 'vitest';
import { killPoints } from './kill-points.ts';
import { killsOf, planWorlds, rowsOf, worldsLeft } from './matrix-worlds.ts';
import type { SeenWorld } from './matrix-worlds.ts';
import { emptyTally } from './tally.ts';

const points = killPoints.filter(({ name }) => ['at random', 'the stream store'].includes(name));

function seen(streams: 'local' | 's2', rounds: number[]): SeenWorld {
  const tally = { ...emptyTally(), accepted: 3, lost: 1, faults: ['one'] };
  const recoveries = [{ firstAnswerMs: 1, settledMs: 2 }];
  return {
    streams,
    rounds,
    rows: [{ streams, point: 'at random', kills: rounds.length, tally, recoveries }],
  };
}

describe('the worlds of a matrix', () => {
  it('kill so often at every point of each store', () => {
    const worlds = planWorlds(['local', 's2'], points, 3);
    expect(worlds.map(({ streams, rounds }) => [streams, rounds])).toEqual([
      ['local', [0, 1]],
      ['s2', [0, 1]],
      ['local', [2]],
      ['s2', [2]],
    ]);
    // The store is killed on `s2` alone.
    expect(killsOf(worlds)).toBe(3 * 1 + 3 * 2);
  });

  it('are not done again when they were seen', () => {
    const planned = planWorlds(['local', 's2'], points, 4);
    const left = worldsLeft(planned, [seen('local', [0, 1]), seen('s2', [2, 3])]);
    expect(left.map(({ streams, rounds }) => [streams, rounds])).toEqual([
      ['s2', [0, 1]],
      ['local', [2, 3]],
    ]);
  });

  it('add up to one row for each store and point', () => {
    const rows = rowsOf([seen('s2', [0, 1]), seen('local', [0, 1]), seen('s2', [2])]);
    expect(rows.map(({ streams, kills, tally }) => [streams, kills, tally.lost, tally.faults])).toEqual([
      ['local', 2, 1, ['one']],
      ['s2', 3, 2, ['one', 'one']],
    ]);
    expect(rows[1]?.recoveries).toHaveLength(2);
  });
});
