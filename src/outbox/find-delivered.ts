/**
 * Looks on our own stream `delivery` whether a request went out: the provider's webhooks (sent, delivered,
 * bounced, …) carry the tags that it was sent with. It needs no key that may read, and costs the provider
 * nothing. That nothing is found proves nothing: a webhook may be late, or not subscribed.
 */
import { deliveryRecordSchema, parseJsonRecord, streamNames } from '../streams/records.ts';
import { firstSince } from '../streams/first-since.ts';
import { mentions, scan } from '../streams/stream-scan.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import { CLOCK_MARGIN_MS } from './find-sent.ts';
import type { FindSent } from './find-sent.ts';

/** Beyond this the provider is the better one to ask. */
const MAX_RECORDS = 200_000;

export function createFindDelivered({ store }: { store: StreamStore }): FindSent {
  return async ({ tags = [] }, sinceMs, signal) => {
    if (tags.length === 0) return null;
    const stream = store.stream(streamNames.delivery);
    const fromSeqNum = await firstSince(stream, sinceMs - CLOCK_MARGIN_MS, signal);
    let found: { providerId: string } | null = null;
    const values = tags.map(({ value }) => JSON.stringify(value));
    await scan(stream, { fromSeqNum, maxRecords: MAX_RECORDS, signal }, (record) => {
      // Nearly all tell of other mail: they are not parsed.
      if (!mentions(record, values)) return true;
      const { tags: sent, providerId } = parseJsonRecord(deliveryRecordSchema, record);
      if (tags.every(({ name, value }) => sent[name] === value)) found = { providerId };
      return found === null;
    });
    return found;
  };
}
