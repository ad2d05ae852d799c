/**
 * How fast the sandbox is: `npm run bench:sandbox`. Not part of the tests: figures depend on the machine and
 * on what else it does, so CPU time is printed beside the wall clock.
 *
 * Each line is a pool of two children with the example `reverser` and an email of 2 KB: the cold start (from
 * nothing to the first answer), runs a second through the whole border, and the time of a run at half of that
 * load, where runs begin by the clock and not when the one before has ended.
 */
import { readFileSync } from 'node:fs';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { bundleTools } from '../../src/runner/bundle.ts';
import type { ToolBundle } from '../../src/runner/bundle.ts';
import { createSandboxPool } from '../../src/runner/sandbox/pool.ts';
import type { SandboxPool } from '../../src/runner/sandbox/sandbox.ts';
import { email, limits } from '../runner/example-email.ts';

const WARM_UP_RUNS = 100;
const RUNS = 3_000;
const HALF_LOAD_RUNS = 1_500;
const CONCURRENCY = 8;
const INBOXES = 4;
const MS_PER_TICK = 10;

for (const usesJit of [false, true]) {
  const started = systemClock.monotonicMs();
  const options = { minChildren: 2, maxChildren: 2, maxRunsPerKey: 2, usesJit };
  const pool = createSandboxPool({ clock: systemClock, log: createLog('silent') }, options);
  const bundle = await bundleTools({ directory: 'tools', pool });
  await timeOfRun(pool, bundle, 0);
  const coldStartMs = Math.round(systemClock.monotonicMs() - started);
  await saturate(pool, bundle, WARM_UP_RUNS);
  const cpuBefore = cpuMs();
  const runsPerSecond = await saturate(pool, bundle, RUNS);
  const cpuMsPerRun = round((cpuMs() - cpuBefore) / RUNS);
  const atHalfLoad = await paced(pool, bundle, runsPerSecond / 2);
  await pool.close();
  const figures = { jit: usesJit, coldStartMs, runsPerSecond, cpuMsPerRun, atHalfLoad };
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}

async function timeOfRun(pool: SandboxPool, bundle: ToolBundle, index: number): Promise<number> {
  const began = systemClock.monotonicMs();
  const result = await pool.run({
    bundle,
    exportName: 'reverser',
    email: { ...email, text: 'Hello world. '.repeat(150) },
    limits,
    capabilities: {},
    secrets: {},
    fairnessKey: `inbox-${index % INBOXES}`,
    signal: new AbortController().signal,
  });
  if (result.status !== 'returned') throw new Error(result.message);
  return systemClock.monotonicMs() - began;
}

/** @returns runs a second while there is always one that waits. */
async function saturate(pool: SandboxPool, bundle: ToolBundle, runs: number): Promise<number> {
  const began = systemClock.monotonicMs();
  let next = 0;
  const lanes = Array.from({ length: CONCURRENCY }, async () => {
    while (next < runs) await timeOfRun(pool, bundle, next++);
  });
  await Promise.all(lanes);
  return Math.round((runs / (systemClock.monotonicMs() - began)) * 1_000);
}

async function paced(
  pool: SandboxPool,
  bundle: ToolBundle,
  perSecond: number,
): Promise<{ perSecond: number; p50Ms: number; p99Ms: number }> {
  const began = systemClock.monotonicMs();
  const pending: Promise<number>[] = [];
  while (pending.length < HALF_LOAD_RUNS) {
    await systemClock.sleep(1);
    const due = ((systemClock.monotonicMs() - began) / 1_000) * perSecond;
    while (pending.length < due) pending.push(timeOfRun(pool, bundle, pending.length));
  }
  const times = (await Promise.all(pending)).sort((a, b) => a - b);
  const quantile = (share: number): number => round(times[Math.floor(times.length * share)]!);
  return { perSecond: Math.round(perSecond), p50Ms: quantile(0.5), p99Ms: quantile(0.99) };
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
