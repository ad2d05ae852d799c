/** Short ways to write a record and to read a whole stream, for tests. */
import type { NewRecord, Stream, StreamRecord } from '../../src/streams/stream-store.ts';

export function text(body: string): NewRecord {
  return { body };
}

/** Everything from `fromSeqNum` to the tail. */
export async function readAll(stream: Stream, fromSeqNum = 0): Promise<StreamRecord[]> {
  const records: StreamRecord[] = [];
  for (let next = fromSeqNum; ;) {
    const batch = await stream.read({ fromSeqNum: next });
    records.push(...batch.records);
    if (batch.nextSeqNum === next) return records;
    next = batch.nextSeqNum;
  }
}

export async function readBodies(stream: Stream): Promise<string[]> {
  return (await readAll(stream)).map((record) => Buffer.from(record.body).toString());
}

export async function readSeqNums(stream: Stream, fromSeqNum = 0): Promise<number[]> {
  return (await readAll(stream, fromSeqNum)).map((record) => record.seqNum);
}
