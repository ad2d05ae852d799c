/**
 * The name of a process by which others on the same machine can tell, for sure, that it is gone: boot, process
 * namespace, pid and start time, as Linux shows them in /proc. Elsewhere there is no such name, and nobody is
 * ever said to be gone.
 */
import { existsSync, readFileSync, readlinkSync } from 'node:fs';

export interface Processes {
  /** Of this process; null where the system does not tell. */
  readonly own: string | null;
  /** True only where it is certain: the process was on this machine and has ended. */
  isGone(identity: string): boolean;
}

const START_TIME_FIELD = 22;

export const systemProcesses: Processes = {
  own: ownIdentity(),
  isGone(identity) {
    const [boot, namespace, pid, startTime] = identity.split(' ');
    const [ownBoot, ownNamespace] = systemProcesses.own?.split(' ') ?? [];
    if (ownBoot === undefined || boot !== ownBoot || namespace !== ownNamespace) return false;
    if (pid === undefined || !/^\d+$/.test(pid)) return false;
    return startTimeOf(Number(pid)) !== startTime && !isHidden(Number(pid));
  },
};

function ownIdentity(): string | null {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    const startTime = startTimeOf(process.pid);
    return startTime === null
      ? null
      : `${boot} ${readlinkSync('/proc/self/ns/pid')} ${process.pid} ${startTime}`;
  } catch {
    return null;
  }
}

/**
 * A service with `ProtectProc=invisible` does not see other services' processes in /proc. Only that a signal
 * would find one, or is forbidden, tells that there is a process which it may not judge.
 */
function isHidden(pid: number): boolean {
  if (existsSync(`/proc/${pid}`)) return false;
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** In ticks since the boot; null for a process that is not there, or is dead and not yet waited for. */
function startTimeOf(pid: number): string | null {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return null;
  }
  // The second field is the program's name in brackets, which may hold anything: count from behind it.
  const [state, ...rest] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return state === 'Z' || state === 'X' ? null : (rest[START_TIME_FIELD - 4] ?? null);
}
