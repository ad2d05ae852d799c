/**
 * Appends without a condition to one stream share requests: those of one turn of the event loop, and those that
 * come while `MAX_ON_THEIR_WAY` requests of that stream are. So a burst costs a few requests instead of one an
 * append, and an append on an idle stream waits for nobody.
 *
 * - A group is one atomic batch. When it is refused as a whole, which says nothing about whose records are at
 *   fault, each of its appends is sent on its own; any other failure is the failure of each of them.
 * - An append whose signal is aborted leaves at once. Its group goes on for the others, and is aborted with the
 *   last of them: as with every append that is aborted under way, nobody knows then whether it happened.
 */
import { addAbortListener } from 'node:events';
import { MillraceError, hasCode } from '../platform/errors.ts';
import { limits, meteredBytes } from './stream-store.ts';
import type { AppendAck, NewRecord } from './stream-store.ts';

/** Requests of one stream at a time: the next group is under way before the answer to the last one is here. */
const MAX_ON_THEIR_WAY = 2;
/** Of all streams; beyond it the store is so slow that more memory will not mend it. */
const MAX_WAITING_BYTES = 64 * 1024 * 1024;

interface Member {
  readonly records: readonly NewRecord[];
  readonly bytes: number;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (ack: AppendAck) => void;
  readonly reject: (error: unknown) => void;
}

/** Of one stream; gone when nothing waits and nothing is on its way. */
interface Line {
  readonly waiting: Member[];
  onTheirWay: number;
  isFlushScheduled: boolean;
}

type SendGroup = (stream: string, records: readonly NewRecord[], signal: AbortSignal) => Promise<AppendAck>;

export type AppendGrouped = (
  stream: string,
  records: readonly NewRecord[],
  signal?: AbortSignal,
) => Promise<AppendAck>;

export function createS2Groups(send: SendGroup): AppendGrouped {
  const lines = new Map<string, Line>();
  let waitingBytes = 0;

  function flush(stream: string, line: Line): void {
    line.isFlushScheduled = false;
    while (line.onTheirWay < MAX_ON_THEIR_WAY && line.waiting.length > 0) {
      const group = takeGroup(line.waiting);
      for (const { bytes } of group) waitingBytes -= bytes;
      line.onTheirWay += 1;
      void sendGroup(stream, group).finally(() => {
        line.onTheirWay -= 1;
        flush(stream, line);
      });
    }
    if (line.onTheirWay === 0 && line.waiting.length === 0) lines.delete(stream);
  }

  async function sendGroup(stream: string, group: readonly Member[]): Promise<void> {
    const members = group.filter(({ signal }) => !signal?.aborted);
    if (members.length === 0) return;
    using sending = abortedWithTheLast(members);
    try {
      const { startSeqNum } = await send(
        stream,
        members.flatMap(({ records }) => records),
        sending.signal,
      );
      let next = startSeqNum;
      for (const { records, resolve } of members) {
        resolve({ startSeqNum: next, endSeqNum: next + records.length });
        next += records.length;
      }
    } catch (error) {
      if (members.length > 1 && hasCode(error, 'streams.refused'))
        for (const member of members) await sendGroup(stream, [member]);
      else for (const { reject } of members) reject(error);
    }
  }

  return async (stream, records, signal) => {
    const bytes = records.reduce((sum, record) => sum + meteredBytes(record), 0);
    if (waitingBytes + bytes > MAX_WAITING_BYTES)
      throw new MillraceError('transient', 'streams.unavailable', 'too many appends wait for S2');
    waitingBytes += bytes;
    const line = lines.get(stream) ?? { waiting: [], onTheirWay: 0, isFlushScheduled: false };
    lines.set(stream, line);
    const { promise, resolve, reject } = Promise.withResolvers<AppendAck>();
    line.waiting.push({ records, bytes, signal, resolve, reject });
    using _leaving = signal && addAbortListener(signal, () => reject(signal.reason));
    if (!line.isFlushScheduled && line.onTheirWay < MAX_ON_THEIR_WAY) {
      line.isFlushScheduled = true;
      setImmediate(() => flush(stream, line));
    }
    return await promise;
  };
}

/** The first of those that wait, as many as fit into one batch. */
function takeGroup(waiting: Member[]): Member[] {
  let bytes = 0;
  let records = 0;
  let count = 0;
  for (const member of waiting) {
    bytes += member.bytes;
    records += member.records.length;
    if (count > 0 && (bytes > limits.batchBytes || records > limits.batchRecords)) break;
    count += 1;
  }
  return waiting.splice(0, count);
}

/** A signal that is aborted when those of all members are. */
function abortedWithTheLast(members: readonly Member[]): Disposable & { signal: AbortSignal } {
  const abort = new AbortController();
  const listeners = new DisposableStack();
  let left = members.length;
  for (const { signal } of members)
    if (signal)
      listeners.use(
        addAbortListener(signal, () => {
          left -= 1;
          if (left === 0) abort.abort(signal.reason);
        }),
      );
  return { signal: abort.signal, [Symbol.dispose]: () => listeners.dispose() };
}
