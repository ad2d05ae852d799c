/**
 * The stream store in one file: what `npm start` uses, and enough for one server. It keeps the contract of
 * `stream-store.ts` on SQLite (`local-database.ts` opens the file, `local-records.ts` reads and writes it).
 *
 * - Appends of one turn of the event loop are committed together (`group-commit.ts`).
 * - A follower sleeps until an append to its stream wakes it; nothing polls. Only the read-only store, which
 *   shares the file with a writer in another process, has to look for changes.
 * - What has expired is deleted in small batches, with the loop free in between (`local-sweep.ts`).
 */
import type { DatabaseSync } from 'node:sqlite';
import type { Clock } from '../platform/clock.ts';
import { MillraceError, errorKind } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import {
  assertBatch,
  assertFencingToken,
  assertSeqNum,
  assertSkip,
  assertStreamName,
} from './append-rules.ts';
import { createGroupCommit } from './group-commit.ts';
import type { GroupCommit } from './group-commit.ts';
import { createReadTurn } from './local-read-turn.ts';
import { localError, openLocalDatabase, openLocalDatabaseReadOnly } from './local-database.ts';
import type { LocalDatabase } from './local-database.ts';
import { createLocalRecords } from './local-records.ts';
import type { LocalRecords, LocalWrite } from './local-records.ts';
import { startSweep } from './local-sweep.ts';
import { limits } from './stream-store.ts';
import type {
  AppendAck,
  AppendOptions,
  ReadBatch,
  RetentionFor,
  Stream,
  StreamStore,
} from './stream-store.ts';

export interface LocalStoreOptions {
  /** Where `streams.db` lies; made when it is not there. */
  directory: string;
  retentionFor: RetentionFor;
  /** Streams that are gone when all their records have expired, name and numbers: the next record is number 0 again. */
  endsWithItsRecords?: (streamName: string) => boolean;
}

interface Deps {
  clock: Clock;
  log: Log;
}

/** After a read that the disk failed. */
const READ_AGAIN_MS = 1000;
/** How often the read-only store looks for what another process wrote. */
const WATCH_INTERVAL_MS = 200;

/**
 * @throws MillraceError `streams.locked`, `streams.newer_schema` (invalid), `streams.unavailable` (transient)
 */
export async function openLocalStore(deps: Deps, options: LocalStoreOptions): Promise<StreamStore> {
  const database = openLocalDatabase(options.directory);
  const records = createLocalRecords(database.db, {
    nowMs: () => deps.clock.nowMs(),
    retentionFor: options.retentionFor,
    endsWithItsRecords: options.endsWithItsRecords,
  });
  const followers = createFollowers(deps.clock);
  const committer = createGroupCommit(database.db, { records, wake: followers.wake });
  const stopSweep = startSweep(deps, { db: database.db, records });
  return createStore(database, {
    records,
    followers,
    submit: committer.submit,
    onClose() {
      stopSweep();
      committer.flush();
    },
  });
}

/** Reads next to a daemon that writes: for the command line. Appends are refused (`streams.read_only`, invalid). */
export async function openLocalStoreReadOnly(
  deps: Pick<Deps, 'clock'>,
  options: { directory: string },
): Promise<StreamStore> {
  const database = openLocalDatabaseReadOnly(options.directory);
  const records = createLocalRecords(database.db, {
    nowMs: () => deps.clock.nowMs(),
    retentionFor: () => 'forever',
  });
  const followers = createFollowers(deps.clock);
  const stopWatching = watchOtherWriters(deps.clock, { db: database.db, wakeAll: followers.wakeAll });
  return createStore(database, {
    records,
    followers,
    submit() {
      throw new MillraceError('invalid', 'streams.read_only', 'this process only reads the streams', {
        hint: 'Ask the daemon that owns the directory to write.',
      });
    },
    onClose: stopWatching,
  });
}

interface StoreParts {
  records: LocalRecords;
  followers: Followers;
  submit: GroupCommit['submit'];
  onClose: () => void;
}

function createStore(database: LocalDatabase, parts: StoreParts): StreamStore {
  const closing = new AbortController();
  const { records } = parts;
  const turn = createReadTurn();

  /** Runs against the open file, with our errors. */
  function reading<T>(signal: AbortSignal | undefined, read: () => T): T {
    signal?.throwIfAborted();
    assertOpen();
    try {
      return read();
    } catch (error) {
      throw localError(error);
    }
  }

  /** The next batch of a follower; undefined when the disk fails, which it has to outlive. */
  function readOrFault(name: string, fromSeqNum: number): ReadBatch | undefined {
    try {
      return reading(undefined, () => records.read(name, { fromSeqNum, maxRecords: limits.batchRecords }));
    } catch (error) {
      if (errorKind(error) !== 'transient') throw error;
      return undefined;
    }
  }

  function assertOpen(): void {
    if (closing.signal.aborted)
      throw new MillraceError('transient', 'streams.unavailable', 'the store is closed');
  }

  function createStream(name: string): Stream {
    assertStreamName(name);
    const write = async (content: LocalWrite['content'], options: AppendOptions = {}): Promise<AppendAck> => {
      assertOpen();
      const { signal, matchSeqNum, fencingToken } = options;
      return parts.submit({ stream: name, content, matchSeqNum, fencingToken }, signal);
    };
    return {
      name,
      async append(newRecords, options) {
        assertBatch(newRecords);
        return write({ records: newRecords }, options);
      },
      async tail(signal) {
        return reading(signal, () => records.tail(name));
      },
      async read({ fromSeqNum, maxRecords, signal }) {
        assertSeqNum(fromSeqNum);
        const max = Math.max(1, Math.min(maxRecords ?? limits.batchRecords, limits.batchRecords));
        await turn.begin();
        const batch = reading(signal, () => records.read(name, { fromSeqNum, maxRecords: max }));
        turn.count(batch.records);
        return batch;
      },
      async *follow({ fromSeqNum, signal }) {
        assertSeqNum(fromSeqNum);
        const ended = AbortSignal.any([signal, closing.signal]);
        for (let next = fromSeqNum; !ended.aborted;) {
          await turn.begin();
          const batch = readOrFault(name, next);
          if (!batch) {
            await parts.followers.pause(ended);
            continue;
          }
          turn.count(batch.records);
          next = batch.nextSeqNum;
          if (batch.records.length > 0 || batch.missing) yield batch;
          // Nothing can be appended between the read and this line: both run in one turn.
          else await parts.followers.changed(name, ended);
        }
      },
      async trim(beforeSeqNum, options) {
        assertSeqNum(beforeSeqNum);
        await write({ trimBefore: beforeSeqNum }, options);
      },
      async skip(numbers, options) {
        assertSkip(numbers);
        await write({ skip: numbers }, options);
      },
      async fence(token, options) {
        assertFencingToken(token);
        return (await write({ fence: token }, options)).endSeqNum;
      },
    };
  }

  return {
    stream: createStream,
    async list({ prefix, startAfter = '', limit = limits.batchRecords, signal }) {
      const capped = Math.max(1, Math.min(limit, limits.batchRecords));
      return reading(signal, () => records.list({ prefix, startAfter, limit: capped }));
    },
    async close() {
      if (closing.signal.aborted) return;
      parts.onClose();
      closing.abort();
      database.close();
    },
  };
}

interface Followers {
  /** Waits before a read that failed is tried again; returns early when the signal is aborted. */
  pause: (signal: AbortSignal) => Promise<void>;
  /** Resolves at the next `wake` of the stream, or when the signal is aborted. */
  changed: (stream: string, signal: AbortSignal) => Promise<void>;
  wake: (stream: string) => void;
  wakeAll: () => void;
}

function createFollowers(clock: Clock): Followers {
  const sleeping = new Map<string, Set<() => void>>();

  function wake(stream: string): void {
    const awake = sleeping.get(stream);
    sleeping.delete(stream);
    for (const callback of awake ?? []) callback();
  }

  return {
    wake,
    wakeAll() {
      for (const stream of sleeping.keys()) wake(stream);
    },
    pause: (signal) => clock.sleep(READ_AGAIN_MS, signal).catch(() => undefined),
    changed(stream, signal) {
      return new Promise<void>((resolve) => {
        const sleepers = sleeping.get(stream) ?? new Set();
        const done = (): void => {
          signal.removeEventListener('abort', done);
          sleepers.delete(done);
          resolve();
        };
        if (signal.aborted) return resolve();
        sleeping.set(stream, sleepers.add(done));
        signal.addEventListener('abort', done, { once: true });
      });
    },
  };
}

/** SQLite's `data_version` changes when another connection has committed. */
function watchOtherWriters(clock: Clock, parts: { db: DatabaseSync; wakeAll: () => void }): () => void {
  const version = parts.db.prepare('PRAGMA data_version');
  let seen = version.get()?.['data_version'];
  function look(): void {
    const now = version.get()?.['data_version'];
    if (now !== seen) parts.wakeAll();
    seen = now;
    cancel = clock.after(WATCH_INTERVAL_MS, look);
  }
  let cancel = clock.after(WATCH_INTERVAL_MS, look);
  return () => cancel();
}
