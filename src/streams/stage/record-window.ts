/**
 * The records that a stage has in memory, by number, and how much they hold. It is full by their count or by
 * their bytes: five hundred small records are a fraction of a megabyte, five hundred large ones half a gigabyte.
 * It takes what it is given also when it is full; who asks before stays below the limits by one record at most.
 *
 * A fairness key has room while it holds less than is free. So one alone gets half of the window, ten get a twelfth
 * each, and the first record of another key always finds a place but where there are more keys than places.
 */
import type { StreamRecord } from '../stream-store.ts';

/** What may stand in the window; without its record it takes a place and no bytes. */
export interface Held {
  readonly seqNum: number;
  readonly fairnessKey: string;
  readonly record: StreamRecord | undefined;
}

export interface RecordWindow<T extends Held> {
  readonly size: number;
  readonly bytes: number;
  readonly isFull: boolean;
  hasRoomFor(fairnessKey: string): boolean;
  has(seqNum: number): boolean;
  seqNums(): Iterable<number>;
  /** Takes it in; once more when its record has come or gone. */
  hold(item: T): void;
  release(seqNum: number): void;
}

export function createRecordWindow<T extends Held>(limits: {
  readonly window: number;
  readonly windowBytes: number;
}): RecordWindow<T> {
  const held = new Map<number, { bytes: number; fairnessKey: string }>();
  const shares = new Map<string, { records: number; bytes: number }>();
  let bytes = 0;

  function count(fairnessKey: string, change: { records: number; bytes: number }): void {
    const share = shares.get(fairnessKey) ?? { records: 0, bytes: 0 };
    share.records += change.records;
    share.bytes += change.bytes;
    bytes += change.bytes;
    if (share.records > 0) shares.set(fairnessKey, share);
    else shares.delete(fairnessKey);
  }

  function release(seqNum: number): void {
    const item = held.get(seqNum);
    if (!item) return;
    held.delete(seqNum);
    count(item.fairnessKey, { records: -1, bytes: -item.bytes });
  }

  return {
    get size() {
      return held.size;
    },
    get bytes() {
      return bytes;
    },
    get isFull() {
      return held.size >= limits.window || bytes >= limits.windowBytes;
    },
    hasRoomFor(fairnessKey) {
      const share = shares.get(fairnessKey) ?? { records: 0, bytes: 0 };
      return share.records < limits.window - held.size && share.bytes < limits.windowBytes - bytes;
    },
    has: (seqNum) => held.has(seqNum),
    seqNums: () => held.keys(),
    hold({ seqNum, fairnessKey, record }) {
      release(seqNum);
      const bytesHeld = record?.body.length ?? 0;
      held.set(seqNum, { bytes: bytesHeld, fairnessKey });
      count(fairnessKey, { records: 1, bytes: bytesHeld });
    },
    release,
  };
}
