/**
 * Whom mail must not be sent to, as the outbox asks before each send: a view of `delivery`, in memory. It is made at
 * each turn of the outbox and follows the streams while that lasts.
 *
 * What it finds on `delivery` it tells the stream `suppressions`, and from time to time how far it has got: a start
 * reads that, and of `delivery` only the rest, whatever the length of its history. Nothing hangs on it: what is not
 * there is read on `delivery` again.
 */
import { normaliseAddress } from '../mail/address.ts';
import type { Clock } from '../platform/clock.ts';
import { runTogether } from '../platform/abort.ts';
import type { Log } from '../platform/log.ts';
import { createOutputAppender } from '../streams/stage/output-appender.ts';
import { jsonRecord, streamNames } from '../streams/records.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import type { SuppressionRecord } from '../streams/suppression-records.ts';
import { SuppressionList, readSuppressions } from './suppression-list.ts';

export interface Suppressions {
  /** Reads the streams up to where they end now. */
  restore(signal: AbortSignal): Promise<void>;
  /** Follows them from there until the signal is aborted. */
  follow(signal: AbortSignal): Promise<void>;
  /** What forbids to write to any of these; empty for nothing. */
  against(addresses: readonly string[]): SuppressionRecord[];
  /** How many addresses are on the list. */
  size(): number;
}

/** Of `delivery`, which a start reads at most, on top of what came while nobody looked. */
const POSITION_RECORDS = 10_000;

export function createSuppressions(
  deps: { store: StreamStore; clock: Clock; log: Log },
  options: { keptMs: number },
): Suppressions {
  const { store, clock } = deps;
  const list = new SuppressionList(deps, options);
  const append = createOutputAppender(deps);
  const streams = {
    suppressions: store.stream(streamNames.suppressions),
    delivery: store.stream(streamNames.delivery),
  };
  let nextDigest = 0;
  let told = 0;

  async function tell(found: readonly SuppressionRecord[], signal: AbortSignal): Promise<void> {
    const records = found.map((suppression) =>
      jsonRecord(suppression, `suppression/${suppression.deliverySeqNum}`),
    );
    told = Math.max(told, list.digested, (found.at(-1)?.deliverySeqNum ?? -1) + 1);
    if (list.nextDelivery - told >= POSITION_RECORDS) {
      told = list.nextDelivery;
      const at = new Date(clock.nowMs()).toISOString();
      records.push(jsonRecord({ kind: 'suppression-position', version: 1, nextDeliverySeqNum: told, at }));
    }
    if (records.length === 0) return;
    await append([records.map((record) => ({ stream: streamNames.suppressions, record }))], signal);
  }

  async function followDigest(signal: AbortSignal): Promise<void> {
    for await (const batch of streams.suppressions.follow({ fromSeqNum: nextDigest, signal })) {
      list.takeDigest(batch);
      nextDigest = batch.nextSeqNum;
    }
  }

  async function followDelivery(signal: AbortSignal): Promise<void> {
    for await (const batch of streams.delivery.follow({ fromSeqNum: list.nextDelivery, signal }))
      await tell(list.takeDelivery(batch), signal);
  }

  return {
    async restore(signal) {
      nextDigest = await readSuppressions(list, streams, { signal, see: (found) => tell(found, signal) });
    },
    follow: (signal) => runTogether([followDigest, followDelivery], signal),
    against: (addresses) =>
      [...new Set(addresses.map((address) => normaliseAddress(address) ?? address))].flatMap(
        (address) => list.find(address) ?? [],
      ),
    size: () => list.size,
  };
}
