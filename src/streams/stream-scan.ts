/**
 * Reading a stream for a question that somebody has: forwards, up to the tail as it was at the beginning, and never more
 * than a given number of records in one go. Whoever asks is told where the scan stopped and can go on there.
 */
import { outcomeSchema } from './journal-records.ts';
import type { OutcomeRecord } from './journal-records.ts';
import type { Stream, StreamRecord } from './stream-store.ts';

export interface ScanRange {
  fromSeqNum: number;
  /** Not this one and what is above; default: the tail. */
  untilSeqNum?: number;
  maxRecords: number;
  signal: AbortSignal;
}

/**
 * Gives every record of the range to `see`, in order; `see` ends the scan by returning false.
 * @returns where to go on, or null when the range is done
 */
export async function scan(
  stream: Stream,
  range: ScanRange,
  see: (record: StreamRecord) => boolean | void,
): Promise<number | null> {
  const { maxRecords, signal } = range;
  const until = Math.min(range.untilSeqNum ?? Infinity, await stream.tail(signal));
  let seen = 0;
  for (let next = range.fromSeqNum; next < until;) {
    const batch = await stream.read({ fromSeqNum: next, signal });
    for (const record of batch.records) {
      if (record.seqNum >= until) return null;
      const goOn = see(record) !== false && ++seen < maxRecords;
      if (!goOn) return record.seqNum + 1 < until ? record.seqNum + 1 : null;
    }
    if (batch.nextSeqNum === next) return null;
    next = batch.nextSeqNum;
  }
  return null;
}

/** The one record with this number, or undefined where it has expired or never was. */
export async function recordAt(
  stream: Stream,
  seqNum: number,
  signal: AbortSignal,
): Promise<StreamRecord | undefined> {
  const { records } = await stream.read({ fromSeqNum: seqNum, maxRecords: 1, signal });
  return records[0]?.seqNum === seqNum ? records[0] : undefined;
}

/** Journals hold other records too. */
export function outcomeOf(record: StreamRecord): OutcomeRecord | null {
  return outcomeSchema.safeParse(jsonOf(record)).data ?? null;
}

/** Undefined for what is no JSON. */
export function jsonOf(record: StreamRecord): unknown {
  try {
    return JSON.parse(Buffer.from(record.body).toString('utf8'));
  } catch {
    return undefined;
  }
}

/** Whether a record's body has one of these texts in it: much cheaper than to parse every body. */
export function mentions(record: StreamRecord, texts: readonly string[]): boolean {
  const body = Buffer.from(record.body.buffer, record.body.byteOffset, record.body.byteLength);
  return texts.some((text) => body.includes(text));
}
