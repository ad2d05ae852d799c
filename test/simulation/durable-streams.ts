/**
 * What a simulated store keeps: streams in memory, with the conditions and commands of the contract. Every
 * change happens at once and whole; when it happens, and whether anybody learns of it, is up to
 * `simulated-store.ts`. It outlives every process.
 */
import { limits, meteredBytes, StreamConditionError } from '../../src/streams/stream-store.ts';
import type { AppendOptions, NewRecord, ReadBatch, StreamRecord } from '../../src/streams/stream-store.ts';

interface Content {
  records: StreamRecord[];
  firstSeqNum: number;
  nextSeqNum: number;
  lastTimestampMs: number;
  token: string;
}

export type Write =
  | { readonly records: readonly NewRecord[] }
  | { readonly fence: string }
  | { readonly trimBefore: number }
  | { readonly skip: number };

export interface DurableStreams {
  /** Resolves to the next sequence number after it; throws what the contract says. */
  write(name: string, write: Write, options?: AppendOptions): { startSeqNum: number; endSeqNum: number };
  read(name: string, fromSeqNum: number, maxRecords: number): ReadBatch;
  tail(name: string): number;
  names(): string[];
  /** Calls `wake` at the next write to the stream; returns what takes that back. */
  onWrite(name: string, wake: () => void): () => void;
}

export function createDurableStreams(options: {
  nowMs: () => number;
  /** Sees every batch that became durable. */
  observe?: (name: string, records: readonly StreamRecord[]) => void;
}): DurableStreams {
  const streams = new Map<string, Content>();
  const sleepers = new Map<string, Set<() => void>>();

  function wakeSleepers(name: string): void {
    const woken = sleepers.get(name);
    sleepers.delete(name);
    for (const wake of woken ?? []) wake();
  }

  function insert(content: Content, records: readonly NewRecord[]): StreamRecord[] {
    content.lastTimestampMs = Math.max(options.nowMs(), content.lastTimestampMs);
    const taken = records.map(({ headers, body }) => ({
      seqNum: content.nextSeqNum++,
      timestampMs: content.lastTimestampMs,
      headers: (headers ?? []).map(([name, value]) => [name, value.toWellFormed()] as const),
      body: typeof body === 'string' ? Buffer.from(body) : Uint8Array.from(body),
    }));
    content.records.push(...taken);
    return taken;
  }

  return {
    write(name, write, conditions = {}) {
      const content = streams.get(name) ?? emptyContent();
      assertConditions(name, content, conditions);
      streams.set(name, content);
      const startSeqNum = content.nextSeqNum;
      if ('records' in write) {
        const taken = insert(content, write.records);
        options.observe?.(name, taken);
      } else {
        content.nextSeqNum += 'skip' in write ? write.skip : 1;
        if ('fence' in write) content.token = write.fence;
        if ('trimBefore' in write)
          content.firstSeqNum = Math.max(content.firstSeqNum, Math.min(write.trimBefore, startSeqNum));
        content.records = content.records.filter(({ seqNum }) => seqNum >= content.firstSeqNum);
      }
      wakeSleepers(name);
      return { startSeqNum, endSeqNum: content.nextSeqNum };
    },
    read(name, fromSeqNum, maxRecords) {
      const content = streams.get(name);
      if (!content) return { records: [], nextSeqNum: fromSeqNum };
      const start = Math.max(fromSeqNum, content.firstSeqNum);
      const { records, isComplete } = takeBatch(content.records, start, maxRecords);
      const last = records.at(-1);
      return {
        records,
        nextSeqNum: isComplete || !last ? Math.max(start, content.nextSeqNum) : last.seqNum + 1,
        ...(start > fromSeqNum && { missing: { fromSeqNum, toSeqNum: start } }),
      };
    },
    tail: (name) => streams.get(name)?.nextSeqNum ?? 0,
    names: () => [...streams.keys()],
    onWrite(name, wake) {
      const sleeping = sleepers.get(name) ?? new Set();
      sleepers.set(name, sleeping.add(wake));
      return () => sleeping.delete(wake);
    },
  };
}

function emptyContent(): Content {
  return { records: [], firstSeqNum: 0, nextSeqNum: 0, lastTimestampMs: 0, token: '' };
}

function assertConditions(name: string, content: Content, conditions: AppendOptions): void {
  const { fencingToken, matchSeqNum } = conditions;
  if (fencingToken !== undefined && fencingToken !== content.token)
    throw new StreamConditionError('streams.fenced', `${name} is held by another fencing token`);
  if (matchSeqNum !== undefined && matchSeqNum !== content.nextSeqNum)
    throw new StreamConditionError(
      'streams.seq_num_mismatch',
      `the next sequence number of ${name} is ${content.nextSeqNum}, not ${matchSeqNum}`,
      content.nextSeqNum,
    );
}

function takeBatch(
  all: readonly StreamRecord[],
  start: number,
  maxRecords: number,
): { records: StreamRecord[]; isComplete: boolean } {
  const records: StreamRecord[] = [];
  let bytes = 0;
  for (let i = indexOf(all, start); i < all.length; i++) {
    const record = all[i]!;
    bytes += meteredBytes(record);
    if (records.length === maxRecords || (records.length > 0 && bytes > limits.batchBytes))
      return { records, isComplete: false };
    records.push(record);
  }
  return { records, isComplete: true };
}

/** Index of the first record at or above a number. */
function indexOf(records: readonly StreamRecord[], seqNum: number): number {
  let [low, high] = [0, records.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (records[middle]!.seqNum < seqNum) low = middle + 1;
    else high = middle;
  }
  return low;
}
