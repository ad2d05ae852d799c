/** Measurements as Markdown: a table for each case, a line for each system, medians with their range over the rounds. */
import { availableParallelism, cpus } from 'node:os';
import type { LoadResult } from './load.ts';
import type { PeakMemory } from './process-usage.ts';
import type { SystemName } from './systems.ts';

export interface Measurement extends LoadResult, PeakMemory {
  readonly system: SystemName;
  readonly round: number;
  readonly case: string;
  /** Of the system's processes, meanwhile. */
  readonly cpuMs: number;
  /** Of the program alone. */
  readonly mainCpuMs: number;
  /** The most that load generator and far end took. */
  readonly loadMb: number;
}

interface Column {
  readonly title: string;
  readonly digits: number;
  value(measurement: Measurement): number;
}

const columns: readonly Column[] = [
  { title: 'mails/s', digits: 0, value: (m) => (m.answered * 1000) / m.durationMs },
  { title: 'p50 ms', digits: 1, value: (m) => m.latencyMs.p50 },
  { title: 'p99 ms', digits: 1, value: (m) => m.latencyMs.p99 },
  { title: '2xx p99 ms', digits: 1, value: (m) => m.acknowledgeMs.p99 },
  { title: 'CPU ms a mail', digits: 2, value: (m) => m.cpuMs / m.answered },
  { title: 'of it in the program', digits: 2, value: (m) => m.mainCpuMs / m.answered },
  { title: 'program MB', digits: 0, value: (m) => m.mainRssMb },
  { title: 'the rest MB', digits: 0, value: (m) => m.restPssMb },
  { title: 'load, cores', digits: 2, value: (m) => (m.generatorCpuMs + m.farEndCpuMs) / m.durationMs },
  { title: 'load, MB', digits: 0, value: (m) => m.loadMb },
  { title: 'unanswered', digits: 0, value: (m) => m.sent - m.answered },
  { title: 'twice', digits: 0, value: (m) => m.answeredTwice },
];

export function markdownOf(measurements: readonly Measurement[]): string {
  const cases = [...new Set(measurements.map((each) => each.case))];
  const machine = `${availableParallelism()} cores, ${cpus()[0]?.model ?? 'unknown'}, Node ${process.versions.node}`;
  return [`Machine: ${machine}.`, ...cases.map((name) => caseTable(name, measurements))].join('\n\n');
}

function caseTable(name: string, measurements: readonly Measurement[]): string {
  const ofCase = measurements.filter((each) => each.case === name);
  const systems = [...new Set(ofCase.map(({ system }) => system))];
  const lines = systems.map((system) => {
    const rounds = ofCase.filter((each) => each.system === system);
    return `| ${system} | ${columns.map((column) => cell(rounds, column)).join(' | ')} |`;
  });
  return [
    `### ${name}`,
    '',
    `| | ${columns.map(({ title }) => title).join(' | ')} |`,
    `|---|${'---|'.repeat(columns.length)}`,
    ...lines,
  ].join('\n');
}

function cell(rounds: readonly Measurement[], { value, digits }: Column): string {
  const values = rounds.map(value).sort((a, b) => a - b);
  const median = values[Math.floor((values.length - 1) / 2)]!.toFixed(digits);
  const [low, high] = [values[0]!.toFixed(digits), values.at(-1)!.toFixed(digits)];
  return low === high ? median : `${median} (${low}–${high})`;
}
