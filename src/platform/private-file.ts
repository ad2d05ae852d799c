/**
 * A file that only its folder's owner reads. What root makes in the folder of a service (a restore, a lock) belongs
 * to that service all the same; the file that is there, or the link that somebody put there, stays as it is.
 */
import { closeSync, constants, fchownSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;

/** Makes an empty one, unless there is something of that name. Throws what the file system says otherwise. */
export function makePrivateFile(path: string): void {
  let file: number;
  try {
    file = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return;
    throw error;
  }
  try {
    if (process.getuid?.() !== 0) return;
    const { uid, gid } = statSync(dirname(path));
    fchownSync(file, uid, gid);
  } finally {
    closeSync(file);
  }
}
