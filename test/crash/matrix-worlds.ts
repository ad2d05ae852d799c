/**
 * The matrix as worlds: in each, on one store, a few kills at every point, then the count. What a world has seen is
 * plain data, so that it can be kept in a file, and a matrix that was cut off goes on where it was.
 */
import { readFileSync } from 'node:fs';
import type { Streams } from './crash-world.ts';
import type { DaemonProgram } from './daemon-bundle.ts';
import type { KillPoint } from './kill-points.ts';
import { UnansweredError, startMatrixRun } from './matrix-run.ts';
import type { MatrixRow } from './matrix-table.ts';
import { addTally, emptyTally } from './tally.ts';

/** What is to be done in a world. */
export interface PlannedWorld {
  readonly streams: Streams;
  readonly points: readonly KillPoint[];
  /** Each point gives another kill for every round. */
  readonly rounds: readonly number[];
}

/** What was seen in one. */
export interface SeenWorld {
  readonly streams: Streams;
  readonly rounds: readonly number[];
  readonly rows: readonly MatrixRow[];
}

export interface WorldWatch {
  onKill(row: MatrixRow): void;
  onFault(row: MatrixRow, fault: string): void;
}

/** So many kills at every point before the world is made anew. */
const KILLS_PER_WORLD = 2;

/** The stores take turns, and the rounds go on for all points: so a part of it says as much about each. */
export function planWorlds(
  stores: readonly Streams[],
  points: readonly KillPoint[],
  kills: number,
): PlannedWorld[] {
  const worlds: PlannedWorld[] = [];
  for (let first = 0; first < kills; first += KILLS_PER_WORLD) {
    const rounds = Array.from({ length: Math.min(KILLS_PER_WORLD, kills - first) }, (_, i) => first + i);
    for (const streams of stores)
      worlds.push({ streams, rounds, points: points.filter((point) => point.stores.includes(streams)) });
  }
  return worlds;
}

/** Those that are still to be done. */
export function worldsLeft(planned: readonly PlannedWorld[], seen: readonly SeenWorld[]): PlannedWorld[] {
  const nameOf = ({ streams, rounds }: Pick<SeenWorld, 'streams' | 'rounds'>): string =>
    `${streams} ${rounds.join()}`;
  const done = new Set(seen.map(nameOf));
  return planned.filter((world) => !done.has(nameOf(world)));
}

export function killsOf(worlds: readonly PlannedWorld[]): number {
  return worlds.reduce((sum, { points, rounds }) => sum + points.length * rounds.length, 0);
}

/** A world in which something is never answered ends there: that is a fault of the point. */
export async function runWorld(
  { streams, points, rounds }: PlannedWorld,
  program: DaemonProgram,
  watch: WorldWatch,
): Promise<SeenWorld> {
  const rows = new Map(points.map(({ name }) => [name, emptyRow(streams, name)]));
  const rowOf = (point: string): MatrixRow => {
    const row = rows.get(point) ?? emptyRow(streams, point);
    rows.set(point, row);
    return row;
  };
  const run = await startMatrixRun(streams, program);
  let row: MatrixRow | undefined;
  try {
    for (const round of rounds) {
      for (const point of points) {
        row = rowOf(point.name);
        row.recoveries.push(await run.kill(point, round));
        row.kills++;
        watch.onKill(row);
      }
    }
    row = rowOf('the end');
    for (const [point, tally] of await run.count()) {
      addTally(rowOf(point).tally, tally);
      for (const fault of tally.faults) watch.onFault(rowOf(point), fault);
    }
  } catch (error) {
    row ??= rowOf('the end');
    const fault = error instanceof Error ? error.message : String(error);
    row.tally.faults.push(fault);
    watch.onFault(row, fault);
    if (error instanceof UnansweredError) row.tally.lost += error.count;
  } finally {
    await run.stop();
  }
  return { streams, rounds, rows: [...rows.values()] };
}

/** The rows of all worlds together, one for each store and point, in the order of the stores. */
export function rowsOf(worlds: readonly SeenWorld[]): MatrixRow[] {
  const sums = new Map<string, MatrixRow>();
  for (const { streams, point, kills, tally, recoveries } of worlds.flatMap(({ rows }) => rows)) {
    const name = `${streams} ${point}`;
    const sum = sums.get(name) ?? emptyRow(streams, point);
    sums.set(name, sum);
    sum.kills += kills;
    sum.recoveries.push(...recoveries);
    addTally(sum.tally, tally);
  }
  return [...sums.values()].toSorted((a, b) => a.streams.localeCompare(b.streams));
}

/** What an earlier matrix has seen. */
export function readWorlds(path: string): SeenWorld[] {
  return JSON.parse(readFileSync(path, 'utf8')) as SeenWorld[];
}

function emptyRow(streams: Streams, point: string): MatrixRow {
  return { streams, point, kills: 0, tally: emptyTally(), recoveries: [] };
}
