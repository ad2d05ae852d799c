/**
 * How fast the sandbox is: `npm run bench:sandbox`. Not part of the tests: figures depend on the machine and
 * on what else it does. So CPU time is printed beside the wall clock, and beside both the floor
 * (`sandbox-floor.ts`), in turns with the sandbox: their ratio says what the sandbox itself takes, on any machine.
 *
 * Each line is a pool of two children with the example `reverser` and an email of 2 KB: the cold start (from
 * nothing to the first answer), runs a second through the whole border, and the time of a run at half of the
 * sandbox's load, where runs begin by the clock and not when the one before has ended.
 */
import { readFileSync } from 'node:fs';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { bundleTools } from '../../src/runner/bundle.ts';
import type { ToolBundle } from '../../src/runner/bundle.ts';
import { createSandboxPool } from '../../src/runner/sandbox/pool.ts';
import type { SandboxPool } from '../../src/runner/sandbox/sandbox.ts';
import { email, limits } from '../runner/example-email.ts';
import { startFloor } from './sandbox-floor.ts';

const WARM_UP_RUNS = 100;
const TURNS = 3;
const RUNS_A_TURN = 1_000;
const HALF_LOAD_RUNS_A_TURN = 500;
const CONCURRENCY = 8;
const INBOXES = 4;
const CHILDREN = 2;
const MS_PER_TICK = 10;
const mail = { ...email, text: 'Hello world. '.repeat(150) };

/** Runs the tool once. */
type RunOnce = (index: number) => Promise<unknown>;

for (const usesJit of [false, true]) {
  const started = systemClock.monotonicMs();
  const options = { minChildren: CHILDREN, maxChildren: CHILDREN, maxRunsPerKey: CHILDREN, usesJit };
  const pool = createSandboxPool({ clock: systemClock, log: createLog('silent') }, options);
  const bundle = await bundleTools({ directory: 'tools', clock: systemClock, pool });
  await runIn(pool, bundle, 0);
  const coldStartMs = Math.round(systemClock.monotonicMs() - started);
  const floor = await startFloor({ code: bundle.code, children: CHILDREN, usesJit });
  const figures = await inTurns({
    sandbox: (index) => runIn(pool, bundle, index),
    floor: () => floor.run(mail),
  });
  floor.close();
  await pool.close();
  process.stdout.write(`${JSON.stringify({ jit: usesJit, coldStartMs, ...figures })}\n`);
}

async function runIn(pool: SandboxPool, bundle: ToolBundle, index: number): Promise<void> {
  const result = await pool.run({
    bundle,
    exportName: 'reverser',
    email: mail,
    limits,
    capabilities: {},
    secrets: {},
    fairnessKey: `inbox-${index % INBOXES}`,
    signal: new AbortController().signal,
  });
  if (result.status !== 'returned') throw new Error(result.message);
}

async function inTurns(subjects: Record<'sandbox' | 'floor', RunOnce>): Promise<Record<string, unknown>> {
  const all = Object.entries(subjects).map(([name, once]) => ({
    name,
    once,
    wallMs: 0,
    cpu: 0,
    times: [] as number[],
  }));
  for (const { once } of all) await saturate(once, WARM_UP_RUNS);
  for (let turn = 0; turn < TURNS; turn++) {
    for (const subject of all) {
      const cpuBefore = cpuMs();
      subject.wallMs += await saturate(subject.once, RUNS_A_TURN);
      subject.cpu += cpuMs() - cpuBefore;
    }
  }
  const runs = TURNS * RUNS_A_TURN;
  const perSecondAtHalf = (runs / all[0]!.wallMs) * 500;
  for (let turn = 0; turn < TURNS; turn++) {
    for (const { once, times } of all) times.push(...(await paced(once, perSecondAtHalf)));
  }
  const figuresOf = ({ wallMs, cpu, times }: (typeof all)[number]): object => ({
    runsPerSecond: Math.round((runs / wallMs) * 1_000),
    cpuMsPerRun: round(cpu / runs),
    atHalfLoad: { perSecond: Math.round(perSecondAtHalf), ...quantiles(times) },
  });
  const cpuRatio = round(all[0]!.cpu / all[1]!.cpu);
  return { ...Object.fromEntries(all.map((subject) => [subject.name, figuresOf(subject)])), cpuRatio };
}

/** @returns how long it takes while there is always one that waits. */
async function saturate(once: RunOnce, runs: number): Promise<number> {
  const began = systemClock.monotonicMs();
  let next = 0;
  const lanes = Array.from({ length: CONCURRENCY }, async () => {
    while (next < runs) await once(next++);
  });
  await Promise.all(lanes);
  return systemClock.monotonicMs() - began;
}

/** @returns the time of each run. */
async function paced(once: RunOnce, perSecond: number): Promise<number[]> {
  const began = systemClock.monotonicMs();
  const pending: Promise<number>[] = [];
  while (pending.length < HALF_LOAD_RUNS_A_TURN) {
    await systemClock.sleep(1);
    const due = ((systemClock.monotonicMs() - began) / 1_000) * perSecond;
    while (pending.length < due) pending.push(timeOf(once, pending.length));
  }
  return Promise.all(pending);
}

async function timeOf(once: RunOnce, index: number): Promise<number> {
  const began = systemClock.monotonicMs();
  await once(index);
  return systemClock.monotonicMs() - began;
}

function quantiles(times: number[]): { p50Ms: number; p99Ms: number } {
  const sorted = times.toSorted((a, b) => a - b);
  const quantile = (share: number): number => round(sorted[Math.floor(sorted.length * share)]!);
  return { p50Ms: quantile(0.5), p99Ms: quantile(0.99) };
}

/** Of this process and its children, those that have ended included; from proc(5). */
function cpuMs(): number {
  const task = `/proc/self/task/${process.pid}/children`;
  const children = readFileSync(task, 'utf8').trim().split(' ').filter(Boolean);
  const ticksOf = (pid: string): number => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0);
  };
  return [...children, 'self'].reduce((sum, pid) => sum + ticksOf(pid), 0) * MS_PER_TICK;
}

function round(ms: number): number {
  return Number(ms.toFixed(2));
}
