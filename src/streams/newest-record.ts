/** The newest record of a stream that fits, found from its tail backwards: what is old costs a start nothing. */
import type { Stream, StreamRecord } from './stream-store.ts';

const READ_BACK_RECORDS = 200;

/**
 * Looks back in growing steps, so that what lies far behind is found in a few reads.
 * @param fit what is looked for in a record, or undefined
 */
export async function newestThat<T>(
  stream: Stream,
  { before, signal }: { before: number; signal: AbortSignal },
  fit: (record: StreamRecord) => T | undefined,
): Promise<T | undefined> {
  let until = before;
  for (let back = READ_BACK_RECORDS; until > 0; back *= 4) {
    const from = Math.max(0, until - back);
    let newest: T | undefined;
    for (let next = from; next < until;) {
      const batch = await stream.read({ fromSeqNum: next, maxRecords: until - next, signal });
      for (const record of batch.records) if (record.seqNum < until) newest = fit(record) ?? newest;
      if (batch.nextSeqNum <= next) break;
      next = batch.nextSeqNum;
    }
    if (newest !== undefined) return newest;
    until = from;
  }
  return undefined;
}
