/**
 * After a restore nobody knows what the lost streams went on to do. What the journal of the outbox has as not settled
 * may have gone out since the backup was made: it is marked as attempted at that time, so that the outbox treats it as
 * it treats an attempt whose answer was lost. Within 24 h the provider recognises its key; after that it is asked first.
 */
import type { OutcomeRecord } from './journal-records.ts';
import { readProgress } from './journal.ts';
import { KEY_HEADER, headerOf, jsonRecord, streamNames } from './records.ts';
import { limits } from './stream-store.ts';
import type { NewRecord, StreamStore } from './stream-store.ts';

const BATCH_BYTES = 512 * 1024;

/** @returns how many were marked */
export async function markInDoubt(
  store: StreamStore,
  { since, signal }: { since: string; signal: AbortSignal },
): Promise<number> {
  const journal = store.stream(streamNames.sent);
  const outbox = store.stream(streamNames.outbox);
  const progress = await readProgress(journal, signal);
  const marks: NewRecord[] = [];
  for (const aside of progress.aside.values()) {
    const { seqNum, key, attempts } = aside;
    const doubtSinceMs = aside.doubtSinceMs ?? Date.parse(since);
    const outcome: OutcomeRecord = {
      kind: 'outcome',
      version: 1,
      seqNum,
      key,
      outcome: 'deferred',
      attempts,
      reason: 'restored',
      error: null,
      at: since,
      durationMs: 0,
      aside: { ...aside, doubtSinceMs },
      facts: {},
    };
    marks.push(jsonRecord(outcome));
  }
  for (let next = progress.low; ;) {
    const batch = await outbox.read({ fromSeqNum: next, signal });
    for (const record of batch.records) {
      const { seqNum } = record;
      if (progress.settled.has(seqNum) || progress.aside.has(seqNum) || progress.doubts.has(seqNum)) continue;
      const key = headerOf(record, KEY_HEADER) ?? `${streamNames.outbox}#${seqNum}`;
      marks.push(jsonRecord({ kind: 'attempt', version: 1, seqNum, key, at: since }));
    }
    if (batch.nextSeqNum === next) break;
    next = batch.nextSeqNum;
  }
  for (let first = 0; first < marks.length;) {
    let bytes = 0;
    let end = first;
    while (end < marks.length && end - first < limits.batchRecords && bytes < BATCH_BYTES)
      bytes += Buffer.byteLength(marks[end++]!.body);
    await journal.append(marks.slice(first, end), { signal });
    first = end;
  }
  return marks.length;
}
