/**
 * Whom mail is not sent to, for a person who asks, and how they let mail go there again. Both read the streams
 * themselves, as the outbox does: in whatever process it runs, and whether it runs or not.
 *
 * A lift says up to which number on `delivery` it counts; so a later bounce puts the address on the list again.
 */
import { normaliseAddress } from '../mail/address.ts';
import { SuppressionList, readSuppressions } from '../outbox/suppression-list.ts';
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { firstSince } from '../streams/first-since.ts';
import { jsonRecord, outboxRecordSchema, streamNames } from '../streams/records.ts';
import type { OutboxRecord } from '../streams/records.ts';
import { outcomeOf, scan } from '../streams/stream-scan.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import type { SuppressionLift, SuppressionRecord } from '../streams/suppression-records.ts';

export interface SuppressedAddress extends Pick<
  SuppressionRecord,
  'address' | 'at' | 'reason' | 'message' | 'deliverySeqNum' | 'providerId'
> {
  /** Of the mail that it is about, as far as it was sent here, and not too long before. */
  readonly cause: OutboxRecord['cause'] | null;
}

export interface SuppressionsPage {
  readonly suppressions: readonly SuppressedAddress[];
  readonly next: number | null;
}

export interface LiftedSuppression {
  readonly address: string;
  readonly status: 'lifted' | 'not-suppressed';
}

export interface SuppressionsDeps {
  store: StreamStore;
  clock: Clock;
  log: Log;
  /** As `RETENTION_DAYS` has it. */
  keptMs: number;
}

/** How long before a bounce or complaint its mail was sent, at most, to be found. */
const CAUSE_LOOK_BACK_MS = 7 * 86_400_000;
/** Of `sent`, for one page. */
const MAX_SCANNED = 200_000;
const PROVIDER_ID = /"providerId":"([^"]{1,256})"/;
const causeSchema = outboxRecordSchema.shape.cause;

/** Oldest first, from a number on `delivery` on. */
export async function suppressionsPage(
  deps: SuppressionsDeps,
  { from, limit }: { from: number; limit: number },
  signal: AbortSignal,
): Promise<SuppressionsPage> {
  const list = await currentList(deps, signal);
  const rest = list.all().filter(({ deliverySeqNum }) => deliverySeqNum >= from);
  const page = rest.slice(0, limit);
  const causes = await causesOf(deps.store, page, signal);
  const suppressions = page.map(({ kind: _kind, version: _version, ...suppression }) => ({
    ...suppression,
    cause: causes.get(suppression.providerId) ?? null,
  }));
  return { suppressions, next: rest[limit]?.deliverySeqNum ?? null };
}

/** @throws MillraceError `admin.invalid_request` (invalid) for what is no address */
export async function liftSuppression(
  deps: SuppressionsDeps,
  input: string,
  signal: AbortSignal,
): Promise<LiftedSuppression> {
  const address = normaliseAddress(input);
  if (address === null)
    throw new MillraceError('invalid', 'admin.invalid_request', 'address: must be one bare address');
  const list = await currentList(deps, signal);
  if (list.find(address) === null) return { address, status: 'not-suppressed' };
  const lift: SuppressionLift = {
    kind: 'suppression-lift',
    version: 1,
    address,
    belowDeliverySeqNum: list.nextDelivery,
    at: new Date(deps.clock.nowMs()).toISOString(),
  };
  await deps.store.stream(streamNames.suppressions).append([jsonRecord(lift)], { signal });
  deps.log.info({ belowDeliverySeqNum: lift.belowDeliverySeqNum }, 'suppressions.lifted');
  return { address, status: 'lifted' };
}

async function currentList(
  { store, keptMs, ...deps }: SuppressionsDeps,
  signal: AbortSignal,
): Promise<SuppressionList> {
  const list = new SuppressionList(deps, { keptMs });
  const suppressions = store.stream(streamNames.suppressions);
  const delivery = store.stream(streamNames.delivery);
  await readSuppressions(list, { suppressions, delivery }, { signal });
  return list;
}

/** What the mails were sent for, by the provider's ids, as the journal `sent` tells. */
async function causesOf(
  store: StreamStore,
  suppressions: readonly SuppressionRecord[],
  signal: AbortSignal,
): Promise<Map<string, OutboxRecord['cause']>> {
  const causes = new Map<string, OutboxRecord['cause']>();
  const wanted = new Set(suppressions.map(({ providerId }) => providerId));
  const timesMs = suppressions.map(({ at }) => Date.parse(at));
  if (timesMs.length === 0) return causes;
  const newestMs = Math.max(...timesMs);
  const journal = store.stream(streamNames.sent);
  const fromSeqNum = await firstSince(journal, Math.min(...timesMs) - CAUSE_LOOK_BACK_MS, signal);
  await scan(journal, { fromSeqNum, maxRecords: MAX_SCANNED, signal }, (record) => {
    const [, providerId] = PROVIDER_ID.exec(Buffer.from(record.body).toString('utf8')) ?? [];
    if (providerId !== undefined && wanted.has(providerId)) {
      const cause = causeSchema.safeParse(outcomeOf(record)?.facts['cause']).data;
      if (cause) causes.set(providerId, cause);
    }
    return record.timestampMs <= newestMs;
  });
  return causes;
}
