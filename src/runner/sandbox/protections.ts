/**
 * What the machine lends us to hold a child process down beyond Node's own permissions: a network namespace
 * without a network, no privileges to gain, limits on files, few system calls. Each is a small program that wraps the next; one
 * that does not work here (a container may forbid namespaces) is left out, and the log says so.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { fewSystemCalls, onlyItsOwnFiles } from './confinement.ts';
import { PROBE } from './programs.ts';

export interface Protections {
  /** The wrapping command, before the child's own. */
  command: string[];
  inForce: string[];
  missing: string[];
}

interface Layer {
  name: string;
  /** Tried in order; the first that works is used. */
  alternatives: string[][];
}

/** As long as a start may take on the busiest machine: what is only slow must not count as missing. */
const PROBE_TIMEOUT_MS = 30_000;

/** What is likely to work is tried first; a user without privileges may still have namespaces of his own. */
const rootFirst = (forRoot: string[], forOthers: string[]): string[][] =>
  process.getuid?.() === 0 ? [forRoot, forOthers] : [forOthers, forRoot];

/** Each wraps those behind it. The last two are for Node itself: they leave nothing to start another program with. */
const layersFor = (usesJit: boolean): readonly Layer[] => [
  {
    name: 'no network',
    alternatives: rootFirst(
      ['/usr/bin/unshare', '--net', '--'],
      ['/usr/bin/unshare', '--user', '--map-current-user', '--net', '--'],
    ),
  },
  {
    name: 'no privileges',
    alternatives: rootFirst(
      ['/usr/bin/setpriv', '--no-new-privs', '--bounding-set=-all', '--inh-caps=-all', '--'],
      ['/usr/bin/setpriv', '--no-new-privs', '--'],
    ),
  },
  { name: 'dies with its parent', alternatives: [['/usr/bin/setpriv', '--pdeathsig', 'KILL', '--']] },
  {
    name: 'no files',
    alternatives: [['/usr/bin/prlimit', '--core=0', '--fsize=0', '--nofile=64', '--']],
  },
  { name: 'few system calls', alternatives: fewSystemCalls(usesJit) },
  { name: 'only its own files', alternatives: onlyItsOwnFiles() },
];

/** All layers, each by its first alternative, as they work on most machines; whether here shows when a child starts. */
export function allProtections(usesJit: boolean): Protections {
  const layers = layersFor(usesJit);
  return {
    command: layers.flatMap(({ alternatives }) => alternatives[0] ?? ['missing']),
    inForce: layers.map(({ name }) => name),
    missing: [],
  };
}

/** Where they do not work all together: tries each on top of those that worked. */
export async function probeProtections(usesJit: boolean): Promise<Protections> {
  const protections: Protections = { command: [], inForce: [], missing: [] };
  for (const { name, alternatives } of layersFor(usesJit)) {
    const commands = alternatives.map((layer) => [...protections.command, ...layer]);
    const working = await firstWorking(commands, usesJit);
    if (working) protections.command = working;
    (working ? protections.inForce : protections.missing).push(name);
  }
  return protections;
}

async function firstWorking(commands: string[][], usesJit: boolean): Promise<string[] | null> {
  for (const command of commands) if (await works(command, usesJit)) return command;
  return null;
}

/** Whether Node and isolated-vm start under it. */
async function works(command: string[], usesJit: boolean): Promise<boolean> {
  const node = [process.execPath, '--no-node-snapshot', ...(usesJit ? [] : ['--jitless']), '-e', PROBE];
  const [program = '', ...args] = [...command, ...node];
  try {
    await promisify(execFile)(program, args, { env: {}, cwd: '/', timeout: PROBE_TIMEOUT_MS });
    return true;
  } catch {
    return false;
  }
}
