/**
 * Tells systemd how this process is (sd_notify(3)). Node has no datagram sockets of the file system, so the
 * words go through systemd's own little program, which is there wherever systemd is; it ends before the next.
 * The unit allows that with `NotifyAccess=all`.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const TIMEOUT_MS = 5_000;

/** Reports assignments such as `READY=1`. @returns a function that rejects with what the program said */
export function systemdNotify(socket: string): (...assignments: string[]) => Promise<void> {
  const run = promisify(execFile);
  const options = {
    env: { NOTIFY_SOCKET: socket, PATH: '/usr/local/bin:/usr/bin:/bin' },
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  } as const;
  return async (...assignments) => {
    await run('systemd-notify', assignments, options);
  };
}
