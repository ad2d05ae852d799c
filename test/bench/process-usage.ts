/**
 * What a tree of processes uses, from /proc (Linux): CPU time with that of children that are gone, and
 * memory. RSS counts what processes share once for each, PSS once in all.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

const CLOCK_TICK_MS = 10;

interface Stat {
  readonly parent: number;
  /** Its own, and that of its children that are gone. */
  readonly cpuMs: number;
  readonly ownCpuMs: number;
}

function statOf(pid: number): Stat | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name, in brackets, may contain anything; behind it the fields start with the third, the state.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const ms = (...indexes: number[]): number =>
      indexes.reduce((sum, index) => sum + Number(fields[index]), 0) * CLOCK_TICK_MS;
    return { parent: Number(fields[1]), cpuMs: ms(11, 12, 13, 14), ownCpuMs: ms(11, 12) };
  } catch {
    return null;
  }
}

/** These processes and their descendants. */
function processTree(roots: readonly number[]): Map<number, Stat> {
  const all = new Map<number, Stat>();
  for (const name of readdirSync('/proc')) {
    const stat = /^\d+$/.test(name) ? statOf(Number(name)) : null;
    if (stat) all.set(Number(name), stat);
  }
  const isWithin = (pid: number | undefined): boolean =>
    pid !== undefined && pid > 1 && (roots.includes(pid) || isWithin(all.get(pid)?.parent));
  return new Map([...all].filter(([pid]) => isWithin(pid)));
}

/** Of one process without its children. */
export function ownCpuMs(pid: number): number {
  return statOf(pid)?.ownCpuMs ?? 0;
}

export function treeCpuMs(roots: readonly number[]): number {
  return [...processTree(roots).values()].reduce((sum, { cpuMs }) => sum + cpuMs, 0);
}

function memoryMb(pid: number, field: 'Rss' | 'Pss'): number {
  try {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

export interface PeakMemory {
  /** RSS of the first root alone: the daemon without its sandboxes. */
  readonly mainRssMb: number;
  /** PSS of everything else in the tree. */
  readonly restPssMb: number;
}

/** Looks twice a second; `stop` gives the highest that was seen of each. */
export function watchMemory(roots: readonly number[]): { stop(): Promise<PeakMemory> } {
  const stopping = new AbortController();
  let peak: PeakMemory = { mainRssMb: 0, restPssMb: 0 };
  const look = (): void => {
    const main = roots[0]!;
    const rest = [...processTree(roots).keys()].filter((pid) => pid !== main);
    peak = {
      mainRssMb: Math.max(peak.mainRssMb, memoryMb(main, 'Rss')),
      restPssMb: Math.max(
        peak.restPssMb,
        rest.reduce((sum, pid) => sum + memoryMb(pid, 'Pss'), 0),
      ),
    };
  };
  const watching = (async () => {
    while (!stopping.signal.aborted) {
      look();
      await delay(500, undefined, { signal: stopping.signal }).catch(() => {});
    }
  })();
  return {
    async stop() {
      look();
      stopping.abort();
      await watching;
      return peak;
    },
  };
}
