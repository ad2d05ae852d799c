/**
 * How fast the sandbox is: `node test/bench/sandbox.bench.ts`. Not part of the tests: figures depend on the
 * machine and on what else it does. Prints the cold start, runs a second through the whole border with the
 * example `reverser`, and the time of one run after another.
 */
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { bundleTools } from '../../src/runner/bundle.ts';
import { createSandboxPool } from '../../src/runner/sandbox/pool.ts';
import { email, limits } from '../runner/example-email.ts';

const RUNS = 600;
const INBOXES = 4;

for (const usesJit of [false, true]) {
  const started = systemClock.monotonicMs();
  const options = { minChildren: 2, maxChildren: 2, maxRunsPerKey: 2, usesJit };
  const pool = createSandboxPool({ clock: systemClock, log: createLog('silent') }, options);
  await pool.start();
  const startMs = systemClock.monotonicMs() - started;
  const bundle = await bundleTools({ directory: 'tools', pool });
  const run = async (index: number): Promise<number> => {
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
  };
  const times: number[] = [];
  for (let index = 0; index < RUNS / 3; index++) times.push(await run(index));
  times.sort((a, b) => a - b);
  const parallel = systemClock.monotonicMs();
  await Promise.all(Array.from({ length: RUNS }, (_, index) => run(index)));
  const perSecond = (RUNS / (systemClock.monotonicMs() - parallel)) * 1_000;
  await pool.close();
  const figures = {
    jit: usesJit,
    startMs: Math.round(startMs),
    runsPerSecond: Math.round(perSecond),
    p50Ms: Number(times[Math.floor(times.length / 2)]!.toFixed(2)),
    p99Ms: Number(times[Math.floor(times.length * 0.99)]!.toFixed(2)),
  };
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}
