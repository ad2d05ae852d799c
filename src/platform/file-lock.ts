/**
 * A lock that the operating system lets go of with its process, also after SIGKILL: an exclusive transaction of
 * SQLite on a file of its own. Nothing is written to it, and it is never removed.
 */
import { DatabaseSync } from 'node:sqlite';
import { makePrivateFile } from './private-file.ts';

const SQLITE_BUSY = 5;

export interface FileLock extends Disposable {
  release(): void;
}

/** Null where another process (or another part of this one) holds it. Throws where the file cannot be opened. */
export function takeFileLock(path: string): FileLock | null {
  makePrivateFile(path);
  const lock = new DatabaseSync(path, { timeout: 0 });
  try {
    lock.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    lock.close();
    if (error instanceof Error && 'errcode' in error && Number(error.errcode) % 256 === SQLITE_BUSY)
      return null;
    throw error;
  }
  const release = (): void => {
    if (lock.isOpen) lock.close();
  };
  return { release, [Symbol.dispose]: release };
}
