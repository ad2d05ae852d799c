/**
 * The records that a stage has in memory, by number, and how much they hold. It is full by their count or by
 * their bytes: five hundred small records are a fraction of a megabyte, five hundred large ones half a gigabyte.
 * It takes what it is given also when it is full; who asks before stays below the limits by one record at most.
 */
import type { StreamRecord } from '../stream-store.ts';

/** What may stand in the window; without its record it takes a place and no bytes. */
export interface Held {
  readonly seqNum: number;
  readonly record: StreamRecord | undefined;
}

export interface RecordWindow<T extends Held> {
  readonly size: number;
  readonly bytes: number;
  readonly isFull: boolean;
  seqNums(): Iterable<number>;
  /** Takes it in; once more when its record has come or gone. */
  hold(item: T): void;
  release(seqNum: number): void;
}

export function createRecordWindow<T extends Held>(limits: {
  readonly window: number;
  readonly windowBytes: number;
}): RecordWindow<T> {
  const bytesOf = new Map<number, number>();
  let bytes = 0;

  function release(seqNum: number): void {
    bytes -= bytesOf.get(seqNum) ?? 0;
    bytesOf.delete(seqNum);
  }

  return {
    get size() {
      return bytesOf.size;
    },
    get bytes() {
      return bytes;
    },
    get isFull() {
      return bytesOf.size >= limits.window || bytes >= limits.windowBytes;
    },
    seqNums: () => bytesOf.keys(),
    hold({ seqNum, record }) {
      release(seqNum);
      const held = record?.body.length ?? 0;
      bytesOf.set(seqNum, held);
      bytes += held;
    },
    release,
  };
}
