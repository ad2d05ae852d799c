/**
 * `npm run sim -- --seeds 1000 --from 0` runs that many simulations, `npm run sim -- --seed 17` runs one and
 * prints what happens in it. It ends with 1 when a seed fails, and prints how to see that seed again.
 */
import { parseArgs } from 'node:util';
import { simulate } from './simulate.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '0' },
  },
});
const print = (line: string): void => void process.stdout.write(`${line}\n`);
const PROGRESS_SEEDS = 500;
const MAX_FAILURES = 20;

async function runOne(seed: number): Promise<number> {
  const { faults, ...result } = await simulate(seed, print);
  print(JSON.stringify(result));
  for (const fault of faults) print(`fault: ${fault}`);
  return faults.length;
}

async function runMany(from: number, seeds: number): Promise<number> {
  Error.stackTraceLimit = 0;
  const startedMs = performance.now();
  const sum = { seeds: 0, failures: 0, events: 0, mails: 0, kills: 0, simulatedDays: 0 };
  for (let seed = from; seed < from + seeds && sum.failures < MAX_FAILURES; seed++) {
    const result = await simulate(seed);
    sum.seeds++;
    sum.events += result.events;
    sum.mails += result.mails;
    sum.kills += result.kills;
    sum.simulatedDays += result.simulatedMs / 86_400_000;
    if (result.faults.length > 0) {
      sum.failures++;
      print(`seed ${seed}: ${result.faults[0]} (npm run sim -- --seed ${seed})`);
    }
    if (sum.seeds % PROGRESS_SEEDS === 0) progress();
  }
  progress();
  return sum.failures;

  function progress(): void {
    const seconds = (performance.now() - startedMs) / 1000;
    print(
      JSON.stringify({
        ...sum,
        simulatedDays: Math.round(sum.simulatedDays),
        seconds: Math.round(seconds * 10) / 10,
      }),
    );
  }
}

const failures =
  values.seed === undefined
    ? await runMany(Number(values.from), Number(values.seeds))
    : await runOne(Number(values.seed));
process.exitCode = failures > 0 ? 1 : 0;
