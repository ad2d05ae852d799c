/**
 * The short version of the crash matrix: one kill at some of the points, on both stores. `npm run
 * crash-matrix` is the long one, with all points; its table is docs/crash-matrix.md.
 */
import { describe, expect, it } from 'vitest';
import { s2Binary } from '../streams/s2-lite.ts';
import { runMatrix } from './crash-matrix.ts';
import type { Streams } from './crash-world.ts';
import { killPoints } from './kill-points.ts';
import { rowsOf } from './matrix-worlds.ts';

/** Where each promise would break first; the other points are neighbours of these. */
const shortPoints: Record<Streams, readonly string[]> = {
  local: [
    'before inbox record',
    'after outbox record',
    'after the send',
    'between keys and checkpoint',
    'during the tool',
    'after taking over a journal',
  ],
  s2: ['after inbox record', 'after the send', 'the stream store'],
};
const TIMEOUT_MS = 180_000;

async function expectNoFaults(streams: Streams): Promise<void> {
  const points = killPoints.filter(({ name }) => shortPoints[streams].includes(name));
  const rows = rowsOf(await runMatrix({ stores: [streams], kills: 1, points }));
  expect(rows.flatMap(({ tally }) => tally.faults)).toEqual([]);
  const killed = rows.filter(({ kills, tally }) => kills > 0 && tally.answeredOnce > 0);
  expect(killed.map(({ point }) => point).toSorted()).toEqual(shortPoints[streams].toSorted());
}

describe('killed at named points, the daemon answers each mail once', () => {
  it('on local', () => expectNoFaults('local'), TIMEOUT_MS);

  // Where there is no `s2`, `s2Binary` says loudly that this was not run.
  it.skipIf(s2Binary() === null)('on s2 lite, which is killed too', () => expectNoFaults('s2'), TIMEOUT_MS);
});
