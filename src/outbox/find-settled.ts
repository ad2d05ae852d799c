/**
 * Looks on the journal `sent` whether a request with this record's key has gone out. The stage itself remembers
 * keys for its horizon only; the journal is kept for as long as people may look at it, and says it for good.
 */
import { firstSince } from '../streams/first-since.ts';
import { KEY_HEADER, headerOf, streamNames } from '../streams/records.ts';
import { mentions, outcomeOf, scan } from '../streams/stream-scan.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';

/** Beyond this the provider is the better one to ask. */
const MAX_RECORDS = 1_000_000;

/** The provider's id of what was sent since `sinceMs` under the key of `record`, or null. */
export async function findSettled(
  store: StreamStore,
  record: StreamRecord,
  { sinceMs, signal }: { sinceMs: number; signal: AbortSignal },
): Promise<{ providerId: string } | null> {
  const key = headerOf(record, KEY_HEADER);
  if (key === undefined) return null;
  const journal = store.stream(streamNames.sent);
  const line = `"key":${JSON.stringify(key)}`;
  const fromSeqNum = await firstSince(journal, sinceMs, signal);
  let found: { providerId: string } | null = null;
  await scan(journal, { fromSeqNum, maxRecords: MAX_RECORDS, signal }, (candidate) => {
    if (!mentions(candidate, [line])) return true;
    const outcome = outcomeOf(candidate);
    const providerId = outcome?.key === key && outcome.outcome === 'done' && outcome.facts['providerId'];
    if (typeof providerId === 'string') found = { providerId };
    return found === null;
  });
  return found;
}
