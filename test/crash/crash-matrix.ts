/**
 * The crash matrix: `npm run crash-matrix -- [--kills N] [--store local|s2|both] [--point NAME] [--parallel N]
 * [--minutes M] [--out FILE] [--resume FILE]`.
 *
 * Kills the daemon (and `s2 lite`) at every named point so many times, and prints a table of what the far end counted.
 * Its exit code is 1 when a mail was lost, answered twice or out of order. After every world `--out` has the table so
 * far, and beside it, as FILE.json, what each world has seen; `--resume` takes that file and does the rest.
 */
import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { Streams } from './crash-world.ts';
import { bundleDaemon } from './daemon-bundle.ts';
import { killPoints } from './kill-points.ts';
import type { KillPoint } from './kill-points.ts';
import { matrixTable } from './matrix-table.ts';
import { killsOf, planWorlds, readWorlds, rowsOf, runWorld, worldsLeft } from './matrix-worlds.ts';
import type { SeenWorld, WorldWatch } from './matrix-worlds.ts';

/** While one world waits for a stage to start, another has the processor. */
const DEFAULT_PARALLEL = 3;
/** Of the long run, so often a line says how far it is. */
const KILLS_PER_LINE = 20;

export interface MatrixOptions {
  readonly stores: readonly Streams[];
  readonly kills: number;
  readonly points: readonly KillPoint[];
  /** Worlds side by side. */
  readonly parallel?: number;
  /** No new world is begun after this. */
  readonly deadlineMs?: number;
  /** What an earlier run has seen: it is not done again, and is part of the result. */
  readonly seen?: readonly SeenWorld[];
  onProgress?(line: string): void;
  /** After each world, with all so far. */
  onWorld?(worlds: readonly SeenWorld[]): void;
}

export async function runMatrix(options: MatrixOptions): Promise<SeenWorld[]> {
  const { stores, points, kills, parallel = DEFAULT_PARALLEL, deadlineMs = Infinity } = options;
  const seen = [...(options.seen ?? [])];
  const left = worldsLeft(planWorlds(stores, points, kills), seen);
  const watch = progressOf(killsOf(left), options.onProgress ?? (() => {}));
  await using program = await bundleDaemon();
  const workOff = async (): Promise<void> => {
    for (let world; performance.now() < deadlineMs && (world = left.shift());) {
      seen.push(await runWorld(world, program, watch));
      options.onWorld?.(seen);
    }
  };
  await Promise.all(Array.from({ length: parallel }, workOff));
  return seen;
}

/** Says faults as they occur, and now and then how far it is and when it will be done. */
function progressOf(all: number, say: (line: string) => void): WorldWatch {
  const startMs = performance.now();
  let kills = 0;
  let faults = 0;
  return {
    onKill() {
      kills++;
      if (kills % KILLS_PER_LINE !== 0 && kills !== all) return;
      const secondsEach = (performance.now() - startMs) / 1000 / kills;
      const minutes = Math.round(((all - kills) * secondsEach) / 60);
      say(
        `${kills} of ${all} kills, ${faults} faults, ${secondsEach.toFixed(2)} s each, ${minutes} min left`,
      );
    },
    onFault({ streams, point }, fault) {
      faults++;
      say(`${streams}, ${point}: FAULT: ${fault}`);
    },
  };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      kills: { type: 'string', default: '10' },
      store: { type: 'string', default: 'both' },
      point: { type: 'string' },
      parallel: { type: 'string', default: String(DEFAULT_PARALLEL) },
      minutes: { type: 'string' },
      out: { type: 'string' },
      resume: { type: 'string' },
    },
  });
  const points = killPoints.filter(({ name }) => values.point === undefined || name.includes(values.point));
  const stores = (['local', 's2'] as const).filter(
    (name) => values.store === 'both' || values.store === name,
  );
  if (points.length === 0 || stores.length === 0) throw new Error('there is no such point or store');
  const keep = (worlds: readonly SeenWorld[]): void => {
    if (values.out === undefined) return;
    writeWhole(values.out, `${matrixTable(rowsOf(worlds))}\n`);
    writeWhole(`${values.out}.json`, JSON.stringify(worlds));
  };
  const worlds = await runMatrix({
    stores,
    kills: Number(values.kills),
    points,
    parallel: Number(values.parallel),
    ...(values.minutes && { deadlineMs: performance.now() + Number(values.minutes) * 60_000 }),
    ...(values.resume && existsSync(values.resume) && { seen: readWorlds(values.resume) }),
    onWorld: keep,
    onProgress: (line) => process.stderr.write(`${line}\n`),
  });
  const rows = rowsOf(worlds);
  process.stdout.write(`${matrixTable(rows)}\n`);
  const faults = rows.flatMap(({ tally }) => tally.faults);
  for (const fault of faults) process.stderr.write(`${fault}\n`);
  if (faults.length > 0) process.exitCode = 1;
}

/** The file is there as it was or as it is to be: the run may be cut off here, too. */
function writeWhole(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

if (import.meta.main) await main();
