/**
 * The benchmark: from a signed webhook to the reply at the far end, Millrace and its peers side by side.
 *
 *   npm run bench                       everything, three rounds (about an hour)
 *   npm run bench -- --quick            one short round
 *   npm run bench -- --systems millrace-local,bullmq --cases closed,open-50 --rounds 5
 *
 * A peer is measured at two jobs, `bullmq-whole` and `bullmq-text`; `bullmq` is both (`systems.ts`).
 * A round takes the systems in turn, so that what else the machine does meets all alike. Prints Markdown and
 * writes the same with every single measurement as JSON into `--out` (default: a new folder). Fails
 * where mail was lost or answered twice, or a system did not run. Nothing of it is a test: figures depend on the machine.
 * `docs/benchmarks.md` says what they mean.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { markdownOf } from './bench-report.ts';
import type { Measurement } from './bench-report.ts';
import type { LoadOrder, LoadResult, LoadShape } from './load.ts';
import { ownCpuMs, treeCpuMs, watchMemory } from './process-usage.ts';
import { installPeers, startSystem, systemNames } from './systems.ts';
import type { RunningSystem, SystemName } from './systems.ts';

interface Case {
  readonly name: string;
  readonly shape: LoadShape;
  readonly count: number;
  readonly inboxes: number;
  /** Of several inboxes and of long backlogs only Millrace has something to say. */
  readonly ownOnly?: boolean;
}

const { values: flags } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    systems: { type: 'string', default: systemNames.join(',') },
    cases: { type: 'string' },
    rounds: { type: 'string' },
    out: { type: 'string' },
    profile: { type: 'boolean', default: false },
  },
});

const OUTSTANDING = 64;
const WARM_UP: LoadOrder['shape'] = { kind: 'closed', outstanding: 8 };

function allCases(quick: boolean): Case[] {
  const seconds = quick ? 5 : 15;
  const closed = { kind: 'closed', outstanding: OUTSTANDING } as const;
  const burst = { kind: 'burst', connections: OUTSTANDING } as const;
  const closedCount = quick ? 600 : 3_000;
  return [
    ...[10, 50, 200].map((perSecond) => ({
      name: `open-${perSecond}`,
      shape: { kind: 'open' as const, perSecond },
      count: perSecond * seconds,
      inboxes: 1,
    })),
    { name: 'closed', shape: closed, count: closedCount, inboxes: 1 },
    { name: 'burst-1000', shape: burst, count: 1_000, inboxes: 1 },
    { name: 'burst-10000', shape: burst, count: 10_000, inboxes: 1 },
    { name: 'burst-100000', shape: burst, count: 100_000, inboxes: 1, ownOnly: true },
    { name: 'inboxes-10', shape: closed, count: closedCount, inboxes: 10, ownOnly: true },
    { name: 'inboxes-100', shape: closed, count: closedCount, inboxes: 100, ownOnly: true },
  ];
}

/** The long ones are run when they are asked for. */
const QUICK_CASES = ['open-50', 'closed', 'inboxes-10'];
const ON_REQUEST = ['burst-100000'];

function chosenCases(): Case[] {
  const names = flags.cases?.split(',') ?? (flags.quick ? QUICK_CASES : undefined);
  const cases = allCases(flags.quick);
  return names
    ? cases.filter(({ name }) => names.includes(name))
    : cases.filter(({ name }) => !ON_REQUEST.includes(name));
}

/** One system, started once for each number of inboxes, through its cases. */
async function measureSystem(
  system: SystemName,
  cases: readonly Case[],
  round: number,
): Promise<Measurement[]> {
  const own = system.startsWith('millrace');
  const wanted = cases.filter(({ ownOnly }) => own || !ownOnly);
  const measurements: Measurement[] = [];
  for (const inboxes of new Set(wanted.map((one) => one.inboxes))) {
    const directory = await mkdtemp(join(tmpdir(), 'millrace-bench-'));
    const generator = fork(fileURLToPath(new URL('load-generator.ts', import.meta.url)), {
      execArgv: [],
      // JSON has no NaN, which is the latency where nothing was answered.
      serialization: 'advanced',
    });
    let running: RunningSystem | undefined;
    try {
      const [{ resendUrl }] = (await once(generator, 'message')) as [{ resendUrl: string }];
      const profile = flags.profile ? { profileInto: outDirectory } : {};
      running = await startSystem({ name: system, directory, resendUrl, inboxes, ...profile });
      const load = async (order: Omit<LoadOrder, 'webhookUrl'>): Promise<LoadResult> => {
        generator.send({ ...order, webhookUrl: running!.webhookUrl } satisfies LoadOrder);
        const [{ result }] = (await once(generator, 'message')) as [{ result: LoadResult }];
        return result;
      };
      await load({ shape: WARM_UP, count: 200, inboxes });
      for (const one of wanted.filter((each) => each.inboxes === inboxes)) {
        measurements.push(await measure({ system, round, one, pids: running.pids, load }));
      }
    } catch (error) {
      faults.push(`${system}: ${error instanceof Error ? error.message : String(error)}`);
      process.stderr.write(`${faults.at(-1)}\n`);
    } finally {
      await running?.stop();
      generator.disconnect();
      await rm(directory, { recursive: true, force: true });
    }
  }
  return measurements;
}

async function measure(given: {
  system: SystemName;
  round: number;
  one: Case;
  pids: readonly number[];
  load: (order: Omit<LoadOrder, 'webhookUrl'>) => Promise<LoadResult>;
}): Promise<Measurement> {
  const { system, round, one, pids } = given;
  const memory = watchMemory(pids);
  const cpuBefore = treeCpuMs(pids);
  const mainCpuBefore = ownCpuMs(pids[0]!);
  const { shape, count, inboxes } = one;
  const result = await given.load({ shape, count, inboxes });
  const cpuMs = treeCpuMs(pids) - cpuBefore;
  const mainCpuMs = ownCpuMs(pids[0]!) - mainCpuBefore;
  const measurement: Measurement = {
    system,
    round,
    case: one.name,
    ...result,
    cpuMs,
    mainCpuMs,
    ...(await memory.stop()),
  };
  if (result.answered !== result.sent || result.answeredTwice > 0)
    faults.push(`${system}, ${one.name}: mail was lost or answered twice`);
  process.stderr.write(
    `${new Date().toISOString().slice(11, 19)} ${round} ${one.name} ${system}: ${Math.round((result.answered * 1000) / result.durationMs)}/s p50 ${result.latencyMs.p50.toFixed(1)} p99 ${result.latencyMs.p99.toFixed(1)} ms, ${(cpuMs / result.answered).toFixed(2)} ms CPU a mail (${(mainCpuMs / result.answered).toFixed(2)} in the program), ${measurement.mainRssMb.toFixed(0)} MB + ${measurement.restPssMb.toFixed(0)} MB, load ${((result.generatorCpuMs + result.farEndCpuMs) / result.durationMs).toFixed(2)} cores, ${result.answered}/${result.sent} twice ${result.answeredTwice}\n`,
  );
  return measurement;
}

const outDirectory = flags.out ?? (await mkdtemp(join(tmpdir(), 'millrace-figures-')));
await mkdir(outDirectory, { recursive: true });
const wanted = flags.systems.split(',');
const systems = systemNames.filter((name) =>
  wanted.some((one) => name === one || name.startsWith(`${one}-`)),
);
const rounds = Number(flags.rounds ?? (flags.quick ? 1 : 3));
const cases = chosenCases();
installPeers(systems);
const measurements: Measurement[] = [];
const faults: string[] = [];
for (let round = 1; round <= rounds; round++) {
  for (const system of systems) measurements.push(...(await measureSystem(system, cases, round)));
  await writeFile(join(outDirectory, 'figures.json'), JSON.stringify(measurements, null, 1));
}
const markdown = markdownOf(measurements);
await writeFile(join(outDirectory, 'figures.md'), markdown);
process.stdout.write(`${markdown}\nWritten to ${outDirectory}\n`);
process.stdout.write(faults.map((fault) => `${fault}\n`).join(''));
process.exit(faults.length > 0 ? 1 : 0);
