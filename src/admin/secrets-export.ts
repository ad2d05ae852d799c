/**
 * Hands secrets out to the roles of this machine: a folder for each, with one file for each secret that it
 * needs and no other, readable by their owner alone. `millrace-secrets.service` does this at each start, and
 * systemd gives every unit the folder of its role as credentials.
 *
 * It writes into memory only: a folder that is not on tmpfs is refused. What stands under `to` is a link to
 * the folders, so that new ones take the place of the old ones at once; who reads sees all old or all new.
 */
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { MillraceError } from '../platform/errors.ts';
import { makeFolder } from '../platform/make-folder.ts';
import { roles, secretsOfRole } from '../platform/roles.ts';

/** statfs(2): TMPFS_MAGIC, RAMFS_MAGIC. */
const MEMORY_FILE_SYSTEMS: readonly number[] = [0x01021994, 0x858458f6];

interface ExportForm {
  /** Before the name of each file. */
  readonly filePrefix?: string;
  /** Who may read; default: who writes. */
  readonly userId?: number;
}

/** What is other for a container, whose user is not root and which mounts the folder as its credentials itself. */
export const forContainers: ExportForm = { filePrefix: 'secret_', userId: 10_001 };

/**
 * Writes the secrets as `to`/ROLE/NAME; `all` stands beside the roles.
 * @throws MillraceError (invalid) `secrets.not_in_memory`, `secrets.export_blocked`
 */
export function exportSecrets(secrets: ReadonlyMap<string, string>, to: string, form: ExportForm = {}): void {
  const target = resolve(to);
  const parent = dirname(target);
  makeFolder(parent, 0o700);
  if (!MEMORY_FILE_SYSTEMS.includes(statfsSync(parent).type))
    throw new MillraceError('invalid', 'secrets.not_in_memory', `${parent} is on a disk`, {
      hint: 'Secrets in the clear are written to tmpfs alone: give a folder under /run.',
    });
  makeWay(target);
  // mkdtemp makes it with 0700.
  const folders = mkdtempSync(`${target}.`);
  try {
    for (const role of [...roles, 'all' as const]) {
      const needed = secretsOfRole(role, [...secrets.keys()]).map(
        (name) => [`${form.filePrefix ?? ''}${name}`, secrets.get(name) ?? ''] as const,
      );
      writeRole(join(folders, role), new Map(needed), form.userId);
    }
    swap(target, folders);
  } catch (error) {
    rmSync(folders, { recursive: true, force: true });
    throw error;
  }
  removeOlder(target, folders);
}

function writeRole(folder: string, files: ReadonlyMap<string, string>, userId: number | undefined): void {
  mkdirSync(folder, { mode: 0o700 });
  for (const [name, value] of files) {
    const path = join(folder, name);
    writeFileSync(path, value, { flag: 'wx', mode: 0o400 });
    chmodSync(path, 0o400);
    if (userId !== undefined) chownSync(path, userId, userId);
  }
  if (userId !== undefined) chownSync(folder, userId, userId);
}

/** An empty folder may stand in the way, such as one that a unit makes; nothing else that is not ours. */
function makeWay(target: string): void {
  const found = lstatSync(target, { throwIfNoEntry: false });
  if (found === undefined || found.isSymbolicLink()) return;
  try {
    rmdirSync(target);
  } catch (cause) {
    throw new MillraceError('invalid', 'secrets.export_blocked', `${target} is in the way`, {
      hint: 'Something that Millrace did not write stands there: move it, or give another folder.',
      cause,
    });
  }
}

function swap(target: string, folders: string): void {
  const link = `${folders}.link`;
  symlinkSync(basename(folders), link);
  renameSync(link, target);
}

/** What was there before, and what a command that broke off left behind. The new ones count whether or not it goes. */
function removeOlder(target: string, folders: string): void {
  for (const name of readdirSync(dirname(target))) {
    if (!name.startsWith(`${basename(target)}.`) || name === basename(folders)) continue;
    try {
      rmSync(join(dirname(target), name), { recursive: true, force: true });
    } catch {
      // It is in memory, and of the same user; the next export tries again.
    }
  }
}
