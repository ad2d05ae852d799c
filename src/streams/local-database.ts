/**
 * The file under the local store: opens `streams.db` (WAL, synchronous=FULL), takes the lock, brings the
 * schema up, and turns SQLite's errors into ours.
 *
 * - One process writes: a second file, `writer.lock`, is held under an exclusive transaction for life. The
 *   operating system lets go of it with the process, also after SIGKILL. `streams.db` itself stays readable.
 * - Everything is small and narrow: a stream is an integer, and there may be one for every email ever received.
 * - Commands (fence, trim) leave no row, only the number they used up: a hole above `first_seq_num` is a command.
 */
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { makeDataDir } from '../platform/data-dir.ts';
import { MillraceError, errorMessage } from '../platform/errors.ts';
import { takeFileLock } from '../platform/file-lock.ts';
import type { FileLock } from '../platform/file-lock.ts';
import { makePrivateFile } from '../platform/private-file.ts';

/** The schema below. A file with a higher number was written by a newer release. */
const SCHEMA_VERSION = 1;

const SCHEMA = `
  CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- All below were trimmed or have expired.
    first_seq_num INTEGER NOT NULL DEFAULT 0,
    next_seq_num INTEGER NOT NULL DEFAULT 0,
    last_timestamp_ms INTEGER NOT NULL DEFAULT 0,
    fencing_token TEXT NOT NULL DEFAULT '',
    -- NULL keeps records for ever.
    retention_seconds INTEGER,
    -- When the sweep has to look at it: the oldest record expires, or trimmed ones (0) are still there.
    sweep_at_ms INTEGER
  ) STRICT;
  CREATE INDEX streams_to_sweep ON streams (sweep_at_ms) WHERE sweep_at_ms IS NOT NULL;
  CREATE TABLE records (
    stream_id INTEGER NOT NULL,
    seq_num INTEGER NOT NULL,
    timestamp_ms INTEGER NOT NULL,
    -- JSON pairs, or NULL for none.
    headers TEXT,
    body BLOB NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX records_by_seq_num ON records (stream_id, seq_num);
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

/** How long another process's write to the file (a person with `sqlite3`) may hold us up. */
const BUSY_TIMEOUT_MS = 1000;
const WAL_LIMIT_BYTES = 64 * 1024 * 1024;

export interface LocalDatabase {
  readonly db: DatabaseSync;
  /** Closes the file and lets go of the lock. */
  close(): void;
}

/**
 * @throws MillraceError `streams.locked`, `streams.newer_schema`, `config.data_dir` (invalid), `streams.unavailable` (transient)
 */
export function openLocalDatabase(directory: string): LocalDatabase {
  try {
    makeDataDir(directory);
    const lock = takeLock(directory);
    try {
      const path = join(directory, 'streams.db');
      // What SQLite puts beside it has its mode and its owner.
      makePrivateFile(path);
      const db = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
      try {
        prepareSchema(db);
      } catch (error) {
        db.close();
        throw error;
      }
      return {
        db,
        close() {
          db.close();
          lock.release();
        },
      };
    } catch (error) {
      lock.release();
      throw error;
    }
  } catch (error) {
    throw localError(error);
  }
}

/** A connection that only reads, next to whoever writes. */
export function openLocalDatabaseReadOnly(directory: string): LocalDatabase {
  try {
    const db = new DatabaseSync(join(directory, 'streams.db'), { readOnly: true, timeout: BUSY_TIMEOUT_MS });
    assertKnownSchema(db);
    return { db, close: () => db.close() };
  } catch (error) {
    throw localError(error);
  }
}

function takeLock(directory: string): FileLock {
  const lock = takeFileLock(join(directory, 'writer.lock'));
  if (lock) return lock;
  throw new MillraceError('invalid', 'streams.locked', `another process writes to ${directory}`, {
    hint: `Stop the other millrace that uses ${directory}, or set DATA_DIR to another directory.`,
  });
}

function prepareSchema(db: DatabaseSync): void {
  const version = assertKnownSchema(db);
  db.exec(
    `PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = ${WAL_LIMIT_BYTES}`,
  );
  if (version === SCHEMA_VERSION) return;
  db.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT`);
}

function assertKnownSchema(db: DatabaseSync): number {
  const version = Number(db.prepare('PRAGMA user_version').get()?.['user_version']);
  if (version <= SCHEMA_VERSION) return version;
  throw new MillraceError(
    'invalid',
    'streams.newer_schema',
    `streams.db has schema ${version}, this release knows ${SCHEMA_VERSION}`,
    { hint: 'Run the release that wrote it, or a newer one.' },
  );
}

/** SQLite's primary result codes, https://www.sqlite.org/rescode.html. */
const SQLITE_BUSY = 5;
const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;
/** BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN: the world around the file, which may recover. */
const RECOVERABLE: readonly number[] = [SQLITE_BUSY, 6, 7, 8, 10, 13, 14];

/** BUSY, LOCKED, READONLY, CANTOPEN: whatever is written next meets the same. */
const OF_EVERY_WRITE: readonly number[] = [SQLITE_BUSY, 6, 8, 14];

/** Whether a failed write says something about that write, such as that there is no room for so much. */
export function concernsOneWrite(error: unknown): boolean {
  const code = sqliteCode(error);
  return code === undefined || !OF_EVERY_WRITE.includes(code);
}

function sqliteCode(error: unknown): number | undefined {
  const code = error instanceof Error && 'errcode' in error ? error.errcode : undefined;
  return typeof code === 'number' ? code & 0xff : undefined;
}

/** The file system's own refusals (from `mkdir`) that a person can mend while we run. */
const FILE_SYSTEM_CODES = ['EACCES', 'EPERM', 'EROFS', 'ENOSPC', 'EIO', 'EDQUOT', 'EMFILE', 'ENFILE'];

/** Our error for anything that SQLite or the file system threw; what is ours or not foreseen stays as it is. */
export function localError(error: unknown): unknown {
  if (error instanceof MillraceError) return error;
  const code = sqliteCode(error);
  const fileCode = error instanceof Error && 'code' in error ? String(error.code) : '';
  if ((code !== undefined && RECOVERABLE.includes(code)) || FILE_SYSTEM_CODES.includes(fileCode)) {
    return new MillraceError('transient', 'streams.unavailable', `streams.db: ${errorMessage(error)}`, {
      hint: 'Look at the disk of DATA_DIR: space left, permissions, errors in the kernel log.',
      cause: error,
    });
  }
  if (code === SQLITE_CORRUPT || code === SQLITE_NOTADB) {
    return new MillraceError('bug', 'streams.corrupt', `streams.db: ${errorMessage(error)}`, {
      hint: 'Stop the daemon, keep a copy of DATA_DIR, and restore streams.db from a backup.',
      cause: error,
    });
  }
  return error;
}
