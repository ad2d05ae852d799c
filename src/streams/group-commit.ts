/**
 * Group commit: the writes of one turn of the event loop share one transaction, and so one fsync.
 *
 * - One that is refused by its condition leaves the others alone: it has written nothing.
 * - When there is no room for the group, each of its writes is tried on its own, so that only those fail for which
 *   there is none. What every write would meet, such as another process's lock, fails the group: the wait for it
 *   blocks the event loop, and is done once.
 */
import type { DatabaseSync } from 'node:sqlite';
import { MillraceError } from '../platform/errors.ts';
import { concernsOneWrite, localError } from './local-database.ts';
import type { LocalRecords, LocalWrite } from './local-records.ts';
import { meteredBytes } from './stream-store.ts';
import type { AppendAck } from './stream-store.ts';

/** Writes that wait for one turn; beyond it something is broken that more memory will not mend. */
const MAX_PENDING_BYTES = 256 * 1024 * 1024;
/** One transaction; a larger group takes several. */
const MAX_GROUP_BYTES = 16 * 1024 * 1024;

interface PendingWrite {
  readonly write: LocalWrite;
  readonly bytes: number;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (ack: AppendAck) => void;
  readonly reject: (error: unknown) => void;
}

type Outcome = { ack: AppendAck } | { error: unknown };

export interface GroupCommit {
  /** Resolves when the write is durable. */
  submit: (write: LocalWrite, signal?: AbortSignal) => Promise<AppendAck>;
  /** Commits what waits, now. */
  flush: () => void;
}

/** @param parts `wake` is called for each stream that was written, once its write is durable */
export function createGroupCommit(
  db: DatabaseSync,
  parts: { records: LocalRecords; wake: (stream: string) => void },
): GroupCommit {
  let pending: PendingWrite[] = [];
  let pendingBytes = 0;

  function flush(): void {
    const due = pending.filter(({ signal, reject }) => {
      if (signal?.aborted) reject(signal.reason);
      return !signal?.aborted;
    });
    pending = [];
    pendingBytes = 0;
    for (const group of groupsOf(due)) settle(group, commit(group));
  }

  /** One transaction; when there is no room for all of it, one each. */
  function commit(group: readonly PendingWrite[]): Outcome[] {
    try {
      return transaction(db, () => group.map(({ write }) => attempt(write)));
    } catch (error) {
      if (group.length > 1 && concernsOneWrite(error)) return group.flatMap((one) => commit([one]));
      return group.map(() => ({ error: localError(error) }));
    }
  }

  /** A refused condition is this write's outcome; anything else fails the transaction. */
  function attempt(write: LocalWrite): Outcome {
    try {
      return { ack: parts.records.write(write) };
    } catch (error) {
      if (error instanceof MillraceError) return { error };
      throw error;
    }
  }

  function settle(group: readonly PendingWrite[], outcomes: readonly Outcome[]): void {
    for (const [i, { write, resolve, reject }] of group.entries()) {
      const outcome = outcomes[i];
      if (!outcome) throw new MillraceError('bug', 'streams.lost_outcome', 'a write has no outcome');
      if ('error' in outcome) {
        reject(outcome.error);
        continue;
      }
      resolve(outcome.ack);
      parts.wake(write.stream);
    }
  }

  return {
    flush,
    submit(write, signal) {
      signal?.throwIfAborted();
      const bytes = bytesOf(write);
      if (pendingBytes + bytes > MAX_PENDING_BYTES) {
        throw new MillraceError('transient', 'streams.unavailable', 'too many appends wait for the disk');
      }
      pendingBytes += bytes;
      if (pending.length === 0) setImmediate(flush);
      return new Promise((resolve, reject) => pending.push({ write, bytes, signal, resolve, reject }));
    },
  };
}

/** Runs `body` in a transaction: all of it is durable, or none of it happened. */
export function transaction<T>(db: DatabaseSync, body: () => T): T {
  db.exec('BEGIN IMMEDIATE');
  try {
    const result = body();
    db.exec('COMMIT');
    return result;
  } catch (error) {
    // SQLite has already rolled back after some errors (disk full) and not after others.
    if (db.isTransaction) db.exec('ROLLBACK');
    throw error;
  }
}

function bytesOf({ content }: LocalWrite): number {
  if (!('records' in content)) return 8;
  return content.records.reduce((bytes, record) => bytes + meteredBytes(record), 0);
}

function groupsOf(writes: readonly PendingWrite[]): PendingWrite[][] {
  const groups: PendingWrite[][] = [];
  let bytes = Infinity;
  for (const write of writes) {
    bytes += write.bytes;
    if (bytes > MAX_GROUP_BYTES) {
      groups.push([]);
      bytes = write.bytes;
    }
    groups.at(-1)?.push(write);
  }
  return groups;
}
