/**
 * `daemon.json` in the data directory: where the running daemon listens and the token of its admin API, for
 * the command line on the same machine. Only its owner may read it. A service has it in its runtime directory
 * instead, which lies in memory: on a server no secret is on disk in the clear.
 *
 * A daemon takes it away when it stops. One that was killed leaves it behind: whoever looks for a daemon passes over
 * files of processes that have ended, because somebody else may listen at the address by now, and would be given
 * the token.
 */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { MillraceError, errorMessage } from '../platform/errors.ts';
import { makeFolder } from '../platform/make-folder.ts';
import { systemProcesses } from '../platform/process-identity.ts';

const daemonFileSchema = z.object({
  /** Without a slash at its end. */
  url: z.url(),
  token: z.string().min(1),
  pid: z.number().int().positive(),
  /** Tells a process from a later one with its pid, where the system can (`process-identity.ts`). */
  identity: z.string().nullish(),
});
export type DaemonFile = z.infer<typeof daemonFileSchema>;

const FILE_NAME = 'daemon.json';

/** Replaces the file as a whole, so that no reader sees half of it. */
export function writeDaemonFile(dataDir: string, daemon: DaemonFile): void {
  makeFolder(dataDir, 0o700);
  const temporary = join(dataDir, `${FILE_NAME}.${daemon.pid}`);
  // A left-over of the same name would keep its own permissions.
  rmSync(temporary, { force: true });
  writeFileSync(temporary, `${JSON.stringify(daemon, null, 2)}\n`, { mode: 0o600, flag: 'wx' });
  renameSync(temporary, join(dataDir, FILE_NAME));
}

/** Takes the file away at the end, unless another daemon has written its own since. */
export function removeDaemonFile(dataDir: string, pid: number): void {
  let current: DaemonFile;
  try {
    current = readDaemonFile(dataDir);
  } catch {
    // There is none, or none of ours.
    return;
  }
  if (current.pid === pid) rmSync(join(dataDir, FILE_NAME), { force: true });
}

/**
 * The file of the first of these folders that has one of a daemon that may still run.
 * @throws as `readDaemonFile` does
 */
export function findDaemonFile(folders: readonly string[]): DaemonFile {
  const there = folders.filter((folder) => existsSync(join(folder, FILE_NAME)));
  for (const folder of there) {
    const daemon = readDaemonFile(folder);
    if (!hasEnded(daemon)) return daemon;
  }
  if (there.length === 0) return readDaemonFile(folders[0] ?? '.');
  throw notRunning(`what ${there.map((folder) => join(folder, FILE_NAME)).join(' and ')} names has ended`);
}

/** Only where it is certain. */
function hasEnded({ pid, identity }: DaemonFile): boolean {
  if (identity) return systemProcesses.isGone(identity);
  try {
    return !process.kill(pid, 0);
  } catch (error) {
    // Another's process may not be signalled, but is there.
    return error instanceof Error && 'code' in error && error.code === 'ESRCH';
  }
}

/**
 * @throws MillraceError `admin.daemon_not_running` (invalid) where there is no such file, or none that makes sense;
 * `admin.needs_root` (invalid) where it is not for this user
 */
export function readDaemonFile(dataDir: string): DaemonFile {
  const path = join(dataDir, FILE_NAME);
  try {
    return daemonFileSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : null;
    if (code === 'EACCES') throw needsRoot(path, cause);
    const isMissing = code === 'ENOENT';
    const message = isMissing ? `there is no ${path}` : `${path} cannot be read: ${errorMessage(cause)}`;
    throw notRunning(message, cause);
  }
}

function needsRoot(path: string, cause: unknown): MillraceError {
  return new MillraceError('invalid', 'admin.needs_root', `${path} is not for this user`, {
    hint: "Give the command as root (sudo), or as the daemon's user.",
    cause,
  });
}

function notRunning(why: string, cause?: unknown): MillraceError {
  return new MillraceError('invalid', 'admin.daemon_not_running', `the daemon does not seem to run: ${why}`, {
    hint: 'Start it with `npm start`, or set DATA_DIR to the data directory of the one that runs.',
    ...(cause === undefined ? {} : { cause }),
  });
}
