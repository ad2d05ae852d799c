/**
 * Lets the event loop turn while the local store is read. Its reads are synchronous: who reads a stream of a million
 * records in a loop would hold up webhooks and heartbeats until the last of them. So what is read in one turn, by all
 * readers together, is bounded; who comes later waits for the next. A reader that reads now and then waits for nothing.
 */
import { limits, meteredBytes } from './stream-store.ts';
import type { StreamRecord } from './stream-store.ts';

/** As much as one batch, which takes a few milliseconds. */
const MAX_RECORDS = limits.batchRecords;
const MAX_BYTES = limits.batchBytes;

export interface ReadTurn {
  /** Before a read: resolves when this turn has room for another. */
  begin(): Promise<void>;
  /** What was read. */
  count(records: readonly StreamRecord[]): void;
}

export function createReadTurn(): ReadTurn {
  let read = { records: 0, bytes: 0 };
  let next: Promise<void> | undefined;

  function nextTurn(): Promise<void> {
    next ??= new Promise((resolve) => {
      setImmediate(() => {
        next = undefined;
        read = { records: 0, bytes: 0 };
        resolve();
      });
    });
    return next;
  }

  return {
    async begin() {
      while (read.records >= MAX_RECORDS || read.bytes >= MAX_BYTES) await nextTurn();
    },
    count(records) {
      if (records.length === 0) return;
      read.records += records.length;
      for (const record of records) read.bytes += meteredBytes(record);
      // The turn ends, whether or not anybody waits for that.
      void nextTurn();
    },
  };
}
