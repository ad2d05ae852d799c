/**
 * What the service manager tells a process that it starts, by the variables of systemd's protocols: where to
 * report (sd_notify(3)), how often to show that it is alive (sd_watchdog_enabled(3)), and the socket that it
 * listens on in our place (sd_listen_fds(3)). What is meant for another process, by its pid, is not for us.
 */
import type { Fault } from './config-contradictions.ts';

export interface Supervisor {
  /** Where readiness is reported; null where nobody asks. */
  readonly notifySocket: string | null;
  /** Without a sign of life for so long the process is killed; null for never. */
  readonly watchdogMs: number | null;
  /** The file descriptor of a socket that listens already; null where this process opens its own. */
  readonly listenFd: number | null;
  /** A folder in memory that is gone with the service; null where there is none. */
  readonly runtimeDir: string | null;
}

/** The protocol counts from here. */
const FIRST_LISTEN_FD = 3;

type Environment = Readonly<Record<string, string | undefined>>;

/** What is not to be understood is a fault of the unit, not of a person's settings. */
export function supervisorFrom(env: Environment, pid: number): { supervisor: Supervisor; faults: Fault[] } {
  const isForUs = (variable: string): boolean => [undefined, String(pid)].includes(env[variable]);
  const sockets = env['LISTEN_PID'] !== undefined && isForUs('LISTEN_PID') ? Number(env['LISTEN_FDS']) : 0;
  const watchdogMs = isForUs('WATCHDOG_PID') ? Number(env['WATCHDOG_USEC']) / 1000 : 0;
  const supervisor = {
    notifySocket: env['NOTIFY_SOCKET'] ?? null,
    watchdogMs: watchdogMs > 0 ? watchdogMs : null,
    listenFd: sockets > 0 ? FIRST_LISTEN_FD : null,
    runtimeDir: env['RUNTIME_DIRECTORY']?.split(':')[0] ?? null,
  };
  const message = 'hands over more than one socket: leave one ListenStream in the socket unit.';
  return { supervisor, faults: sockets > 1 ? [{ variable: 'LISTEN_FDS', message }] : [] };
}
