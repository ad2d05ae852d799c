/**
 * The crash matrix: `npm run crash-matrix -- [--kills N] [--store local|s2|both] [--point NAME] [--minutes M] [--out FILE]`.
 *
 * Kills the daemon (and `s2 lite`) at every named point so many times, and prints a table of what the far end
 * counted. Its exit code is 1 when a mail was lost, answered twice or out of order. It goes round over the
 * points, a few kills at each in one world, then a new world: so the table after every world, which `--out`
 * keeps, says as much about every point.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { Streams } from './crash-world.ts';
import { killPoints } from './kill-points.ts';
import type { KillPoint } from './kill-points.ts';
import { matrixTable } from './matrix-table.ts';
import type { MatrixRow } from './matrix-table.ts';
import { UnansweredError, startMatrixRun } from './matrix-run.ts';
import { addTally, tallyOf } from './tally.ts';

/** So many kills at every point before the world is made anew. */
const KILLS_PER_WORLD = 2;

export interface MatrixOptions {
  readonly kills: number;
  readonly points: readonly KillPoint[];
  /** No new world is begun after this. */
  readonly deadlineMs?: number;
  onProgress?(line: string): void;
  /** After each world, with all rows so far. */
  onWorld?(rows: readonly MatrixRow[]): void;
}

/** The rows of one store, one for each point. */
export async function runMatrix(streams: Streams, options: MatrixOptions): Promise<MatrixRow[]> {
  const points = options.points.filter(({ stores }) => stores.includes(streams));
  const rows = new Map<string, MatrixRow>();
  const rowOf = (point: string): MatrixRow => {
    const row = rows.get(point) ?? {
      streams,
      point,
      kills: 0,
      tally: tallyOf([], [], { reasons: new Map(), places: new Map() }),
      recoveries: [],
    };
    rows.set(point, row);
    return row;
  };
  for (const { name } of points) rowOf(name);
  for (let round = 0; round < options.kills && performance.now() < (options.deadlineMs ?? Infinity);) {
    const rounds = Array.from(
      { length: Math.min(KILLS_PER_WORLD, options.kills - round) },
      (_, i) => round + i,
    );
    round += rounds.length;
    await runWorld(streams, { ...options, points, rounds, rowOf });
    options.onWorld?.([...rows.values()]);
    const faults = [...rows.values()].flatMap(({ tally }) => tally.faults);
    options.onProgress?.(
      `${streams}: ${round} kills at each of ${points.length} points, ${faults.length} faults`,
    );
  }
  return [...rows.values()];
}

interface WorldOptions extends Pick<MatrixOptions, 'points' | 'onProgress'> {
  readonly rounds: readonly number[];
  rowOf(point: string): MatrixRow;
}

/** A world in which something is never answered ends there: that is a fault of the point, and the next world begins. */
async function runWorld(
  streams: Streams,
  { points, rounds, rowOf, onProgress }: WorldOptions,
): Promise<void> {
  const run = await startMatrixRun(streams);
  let row: MatrixRow | undefined;
  try {
    for (const round of rounds) {
      for (const point of points) {
        row = rowOf(point.name);
        const recovery = await run.kill(point, round);
        row.kills++;
        row.recoveries.push(recovery);
        onProgress?.(
          `${streams}, ${point.name}: kill ${row.kills}, settled in ${Math.round(recovery.settledMs)} ms`,
        );
      }
    }
    row = rowOf('the end');
    for (const [point, tally] of await run.count()) {
      addTally(rowOf(point).tally, tally);
      for (const fault of tally.faults) onProgress?.(`${streams}, ${point}: FAULT: ${fault}`);
    }
  } catch (error) {
    row ??= rowOf('the end');
    const fault = error instanceof Error ? error.message : String(error);
    row.tally.faults.push(fault);
    onProgress?.(`${streams}, ${row.point}: FAULT: ${fault}`);
    if (error instanceof UnansweredError) row.tally.lost += error.count;
  } finally {
    await run.stop();
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      kills: { type: 'string', default: '10' },
      store: { type: 'string', default: 'both' },
      point: { type: 'string' },
      minutes: { type: 'string' },
      out: { type: 'string' },
    },
  });
  const points = killPoints.filter(({ name }) => values.point === undefined || name.includes(values.point));
  const stores = (['local', 's2'] as const).filter(
    (name) => values.store === 'both' || values.store === name,
  );
  if (points.length === 0 || stores.length === 0) throw new Error('there is no such point or store');
  const rows: MatrixRow[] = [];
  for (const streams of stores) {
    rows.push(
      ...(await runMatrix(streams, {
        kills: Number(values.kills),
        points,
        ...(values.minutes && {
          deadlineMs: performance.now() + (Number(values.minutes) * 60_000) / stores.length,
        }),
        onWorld: (soFar) => values.out && writeFileSync(values.out, `${matrixTable([...rows, ...soFar])}\n`),
        onProgress: (line) => process.stderr.write(`${line}\n`),
      })),
    );
  }
  process.stdout.write(`${matrixTable(rows)}\n`);
  const faults = rows.flatMap(({ tally }) => tally.faults);
  for (const fault of faults) process.stderr.write(`${fault}\n`);
  if (faults.length > 0) process.exitCode = 1;
}

if (import.meta.main) await main();
