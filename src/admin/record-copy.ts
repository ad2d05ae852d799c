/**
 * A copy of a record, to be put back: the same body under a key that says what it is a copy of and why. Keys of ours
 * hold no `#` besides, so that the key of the first record can be told from that of any copy.
 */
import { COPY_HEADERS, KEY_HEADER, headerOf } from '../streams/records.ts';
import type { NewRecord, RecordHeader, StreamRecord } from '../streams/stream-store.ts';

export interface Copy {
  /** On the stream that it comes from. */
  readonly seqNum: number;
  readonly key: string;
  readonly record: NewRecord;
}

const RERUN_SUFFIX = /#(?:redrive|replay|routed)-.*$/s;

/** The key of a record, without what earlier copying has added to it. */
export function causeKey(stream: string, record: StreamRecord): string {
  return baseKey(headerOf(record, KEY_HEADER) ?? `${stream}#${record.seqNum}`);
}

/** The same of a key. */
export function baseKey(key: string): string {
  return key.replace(RERUN_SUFFIX, '');
}

/** The same body under another key, with the headers of a copy. */
export function copyOf(
  stream: string,
  record: StreamRecord,
  change: { key: string; headers?: readonly RecordHeader[] },
): Copy {
  const replaced: readonly string[] = [KEY_HEADER, ...Object.values(COPY_HEADERS)];
  const headers: RecordHeader[] = [
    ...record.headers.filter(([name]) => !replaced.includes(name)),
    [KEY_HEADER, change.key],
    [COPY_HEADERS.of, `${stream}#${record.seqNum}`],
    ...(change.headers ?? []),
  ];
  return { seqNum: record.seqNum, key: change.key, record: { headers, body: record.body } };
}
