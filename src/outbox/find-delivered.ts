/**
 * Looks on our own stream `delivery` whether a request went out: the provider's webhooks (sent, delivered,
 * bounced, …) carry the tags that it was sent with. It needs no key that may read, and costs the provider
 * nothing. That nothing is found proves nothing: a webhook may be late, or not subscribed.
 */
import { deliveryRecordSchema, parseJsonRecord, streamNames } from '../streams/records.ts';
import { firstSince } from '../streams/first-since.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import { CLOCK_MARGIN_MS } from './find-sent.ts';
import type { FindSent } from './find-sent.ts';

/** Beyond this the provider is the better one to ask. */
const MAX_RECORDS = 200_000;

export function createFindDelivered({ store }: { store: StreamStore }): FindSent {
  return async ({ tags = [] }, sinceMs, signal) => {
    if (tags.length === 0) return null;
    const stream = store.stream(streamNames.delivery);
    let next = await firstSince(stream, sinceMs - CLOCK_MARGIN_MS, signal);
    for (const end = next + MAX_RECORDS; next < end;) {
      const batch = await stream.read({ fromSeqNum: next, signal });
      for (const record of batch.records) {
        const delivery = parseJsonRecord(deliveryRecordSchema, record);
        if (tags.every(({ name, value }) => delivery.tags[name] === value))
          return { providerId: delivery.providerId };
      }
      if (batch.nextSeqNum === next) break;
      next = batch.nextSeqNum;
    }
    return null;
  };
}
