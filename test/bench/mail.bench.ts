/**
 * The benchmark: from a signed webhook to the reply at the far end, Millrace and its peers side by side.
 *
 *   npm run bench                       everything, three rounds (some hours)
 *   npm run bench -- --quick            one short round
 *   npm run bench -- --systems millrace-local,bullmq --cases closed,open-50 --rounds 5
 *
 *   npm run bench -- --together --systems millrace-local,bullmq-whole --cases open-25
 *
 * A peer is measured at two jobs, `bullmq-whole` and `bullmq-text`; `bullmq` is both (`systems.ts`). A round takes the
 * systems in turn, every second one backwards, so that what else the machine does meets all alike. With `--together`
 * they run at the same time, each under a load of its own: on a machine that is shared with others, only so do their
 * figures differ by what they are.
 *
 * Prints Markdown and writes the same with every single measurement as JSON into `--out` (default: a new folder). It
 * fails where mail was lost or answered twice, or a system did not run. Nothing of it is a test: figures depend on the
 * machine. `docs/benchmarks.md` says what they mean.
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
import type { PeakMemory } from './process-usage.ts';
import { ownCpuMs, treeCpuMs, watchMemory } from './process-usage.ts';
import { installPeers, startSystem, systemNames } from './systems.ts';
import type { RunningSystem, SystemName } from './systems.ts';

interface Case {
  readonly name: string;
  readonly shape: LoadShape;
  readonly count: number;
  readonly inboxes: number;
  /** Of several inboxes only Millrace has something to say: a peer has one queue. */
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
    together: { type: 'boolean', default: false },
  },
});

const OUTSTANDING = 64;
/** Before anything counts: V8 compiles what is hot for thousands of mails, and a daemon lives for weeks. */
const WARM_UP_MAILS = 2_000;
const WARM_UP: LoadOrder['shape'] = { kind: 'closed', outstanding: 32 };

const QUICK_CASES = ['open-50', 'closed', 'inboxes-10'];
const ALL_CASES = [
  'open-10',
  'open-50',
  'open-200',
  'closed',
  'burst-1000',
  'burst-10000',
  'inboxes-10',
  'inboxes-100',
];

/** `open-N`, `closed`, `burst-N` or `inboxes-N`, with any number. */
function caseNamed(name: string): Case {
  const [kind, number] = name.split('-');
  const n = Number(number ?? 1);
  if (!(n > 0)) throw new Error(`there is no case ${name}`);
  if (kind === 'open')
    return { name, shape: { kind, perSecond: n }, count: n * (flags.quick ? 5 : 15), inboxes: 1 };
  if (kind === 'burst') return { name, shape: { kind, connections: OUTSTANDING }, count: n, inboxes: 1 };
  if (kind !== 'closed' && kind !== 'inboxes') throw new Error(`there is no case ${name}`);
  const shape = { kind: 'closed', outstanding: OUTSTANDING } as const;
  return { name, shape, count: flags.quick ? 600 : 3_000, inboxes: n, ownOnly: kind === 'inboxes' };
}

function chosenCases(): Case[] {
  const names = flags.cases?.split(',') ?? (flags.quick ? QUICK_CASES : ALL_CASES);
  return names.map(caseNamed);
}

/** Where those who run at the same time wait for each other before a case. */
interface StartLine {
  /** Resolves when all who have not left have come. */
  come(): Promise<void>;
  leave(): void;
}

function createStartLine(runners: number): StartLine {
  let here: (() => void)[] = [];
  const look = (): void => {
    if (here.length < runners) return;
    for (const go of here) go();
    here = [];
  };
  return {
    come: () =>
      new Promise((resolve) => {
        here.push(resolve);
        look();
      }),
    leave() {
      runners--;
      look();
    },
  };
}

/** One system, started once for each number of inboxes, through its cases. */
async function measureSystem(
  system: SystemName,
  round: number,
  startLine: StartLine,
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
      const warmUp = await load({ shape: WARM_UP, count: WARM_UP_MAILS, inboxes });
      if (warmUp.answered < warmUp.sent) throw new Error('mail of the warm-up was not answered');
      for (const one of wanted.filter((each) => each.inboxes === inboxes)) {
        await startLine.come();
        measurements.push(
          await measure({ system, round, one, pids: running.pids, loadPid: generator.pid!, load }),
        );
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
  startLine.leave();
  return measurements;
}

/** All systems once. */
async function measureRound(round: number): Promise<Measurement[]> {
  const inTurn = round % 2 === 1 ? systems : systems.toReversed();
  if (flags.together) {
    const startLine = createStartLine(inTurn.length);
    return (await Promise.all(inTurn.map((system) => measureSystem(system, round, startLine)))).flat();
  }
  const measurements: Measurement[] = [];
  for (const system of inTurn) measurements.push(...(await measureSystem(system, round, createStartLine(1))));
  return measurements;
}

async function measure(given: {
  system: SystemName;
  round: number;
  one: Case;
  pids: readonly number[];
  loadPid: number;
  load: (order: Omit<LoadOrder, 'webhookUrl'>) => Promise<LoadResult>;
}): Promise<Measurement> {
  const { system, round, one, pids, loadPid } = given;
  const memory = watchMemory(pids);
  const loadMemory = watchMemory([loadPid]);
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
    loadMb: totalMb(await loadMemory.stop()),
  };
  const { sent, acknowledged, answered, answeredTwice } = result;
  if (answered < sent || answeredTwice > 0)
    faults.push(
      `${system}, ${one.name}: of ${sent} mails ${acknowledged} were taken, ${answered} answered, ${answeredTwice} twice`,
    );
  process.stderr.write(
    `${new Date().toISOString().slice(11, 19)} ${round} ${one.name} ${system}: ${Math.round((result.answered * 1000) / result.durationMs)}/s p50 ${result.latencyMs.p50.toFixed(1)} p99 ${result.latencyMs.p99.toFixed(1)} ms, ${(cpuMs / result.answered).toFixed(2)} ms CPU a mail (${(mainCpuMs / result.answered).toFixed(2)} in the program), ${measurement.mainRssMb.toFixed(0)} MB + ${measurement.restPssMb.toFixed(0)} MB, load ${((result.generatorCpuMs + result.farEndCpuMs) / result.durationMs).toFixed(2)} cores ${measurement.loadMb.toFixed(0)} MB, ${result.answered}/${result.sent} twice ${result.answeredTwice}\n`,
  );
  return measurement;
}

function totalMb({ mainRssMb, restPssMb }: PeakMemory): number {
  return mainRssMb + restPssMb;
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
  measurements.push(...(await measureRound(round)));
  await writeFile(join(outDirectory, 'figures.json'), JSON.stringify(measurements, null, 1));
}
const markdown = markdownOf(measurements);
await writeFile(join(outDirectory, 'figures.md'), markdown);
process.stdout.write(`${markdown}\nWritten to ${outDirectory}\n`);
process.stdout.write(faults.map((fault) => `${fault}\n`).join(''));
process.exit(faults.length > 0 ? 1 : 0);
