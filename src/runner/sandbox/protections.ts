/**
 * What the machine lends us to hold a child process down beyond Node's own permissions: a network namespace
 * without a network, no privileges to gain, limits on files. Each is a small program that wraps the next; one
 * that does not work here (a container may forbid namespaces) is left out, and the log says so.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

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

const PROBE_TIMEOUT_MS = 5_000;

const layers: readonly Layer[] = [
  {
    name: 'no network',
    alternatives: [
      ['/usr/bin/unshare', '--net', '--'],
      ['/usr/bin/unshare', '--user', '--map-current-user', '--net', '--'],
    ],
  },
  {
    name: 'no privileges',
    alternatives: [
      ['/usr/bin/setpriv', '--no-new-privs', '--bounding-set=-all', '--inh-caps=-all', '--'],
      ['/usr/bin/setpriv', '--no-new-privs', '--'],
    ],
  },
  { name: 'dies with its parent', alternatives: [['/usr/bin/setpriv', '--pdeathsig', 'KILL', '--']] },
  {
    name: 'no files',
    alternatives: [['/usr/bin/prlimit', '--core=0', '--fsize=0', '--nofile=64', '--']],
  },
];

/** Tries each layer once, on top of those that worked. */
export async function probeProtections(): Promise<Protections> {
  const protections: Protections = { command: [], inForce: [], missing: [] };
  for (const { name, alternatives } of layers) {
    const working = await firstWorking(alternatives.map((layer) => [...protections.command, ...layer]));
    if (working) protections.command = working;
    (working ? protections.inForce : protections.missing).push(name);
  }
  return protections;
}

async function firstWorking(commands: string[][]): Promise<string[] | null> {
  for (const command of commands) {
    const [program = '', ...args] = command;
    try {
      await promisify(execFile)(program, [...args, '/bin/true'], { env: {}, timeout: PROBE_TIMEOUT_MS });
      return command;
    } catch {
      // Not on this machine: the next alternative, or none.
    }
  }
  return null;
}
