/**
 * The outbox consumer: `outbox` → the provider. The handler of the outbox stage, whose journal is `sent`.
 *
 * A request goes out as it was frozen, under its idempotency key, at every attempt. Within 24 h the provider
 * itself recognises the key. An attempt whose outcome stayed unknown for longer than that (a lost answer,
 * a crash before the record, a long stop) may not simply be repeated: the provider is asked first whether it
 * has sent this request; each carries a fingerprint of its key as a tag. So it is where that time lies ahead: the clock
 * was wrong then or is now, and nobody knows how long ago it was. An attempt that is stopped for long before its
 * call, from before it was written down, is begun again. Of a request that stands for an earlier one our own journal is asked before,
 * which knows longer than the stage remembers keys (`find-settled.ts`).
 *
 * Mail to whom it must not be sent (`suppressions.ts`) is skipped, at the latest moment: when it would go out. A request
 * to several is skipped as a whole: it is frozen, and under its key goes out as it is or not at all. Where an earlier
 * attempt may have sent it, it is looked for first, so that the outcome tells the truth.
 */
import { allRecipients } from '../mail/email.ts';
import type { ProviderRequest } from '../mail/email.ts';
import { createBudget } from '../platform/budget.ts';
import type { Budget } from '../platform/budget.ts';
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import { readBlob } from '../streams/blob.ts';
import {
  CAUSED_AT_HEADER,
  COPY_HEADERS,
  headerOf,
  outboxRecordSchema,
  parseJsonRecord,
} from '../streams/records.ts';
import type { Attempt, Outcome } from '../streams/stage.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { CLOCK_MARGIN_MS } from './find-sent.ts';
import { findSettled } from './find-settled.ts';
import { refuseStale } from './resend-outbound.ts';
import type { Suppressions } from './suppressions.ts';

/** Who takes outbound mail: Resend, or the local mailbox in its place. */
export interface OutboundProvider {
  /**
   * Hands over a request; the same key again within 24 h has no second effect.
   * Errors by kind; `resend.outcome_unknown` (transient) where the mail may have been accepted.
   */
  send(
    request: ProviderRequest,
    idempotencyKey: string,
    signal: AbortSignal,
  ): Promise<{ providerId: string }>;
  /** The id of a mail that was sent since `sinceMs` with this request's tags, or null. */
  findSent(
    request: ProviderRequest,
    sinceMs: number,
    signal: AbortSignal,
  ): Promise<{ providerId: string } | null>;
}

/** The provider forgets a key after 24 h; less by as much as clocks may be wrong. */
const KEY_LIFETIME_MS = 24 * 3_600_000 - CLOCK_MARGIN_MS;
/** Of requests too large for their record, at once. As text, and on its way out, one is in memory a few times. */
const MEMORY_BYTES = 128 * 1024 * 1024;

export function createOutbox(deps: {
  store: StreamStore;
  outbound: OutboundProvider;
  suppressions: Pick<Suppressions, 'against'>;
  clock: Clock;
  /** Bytes of large requests in memory. Default: of its own. */
  memory?: Budget;
}): (record: StreamRecord, attempt: Attempt) => Promise<Outcome> {
  const { store, outbound, suppressions, clock, memory = createBudget(MEMORY_BYTES) } = deps;
  return async (record, attempt) => {
    const frozen = parseJsonRecord(outboxRecordSchema, record);
    const facts = { idempotencyKey: frozen.idempotencyKey, cause: frozen.cause };
    const notBeforeMs = frozen.notBefore === null ? 0 : Date.parse(frozen.notBefore);
    if (notBeforeMs > clock.nowMs()) {
      return { kind: 'deferred', untilMs: notBeforeMs, reason: 'outbox.scheduled', holdsLane: false };
    }
    const bytes = 'blob' in frozen.request ? frozen.request.blob.bytes : 0;
    // Until the provider has it.
    using _room = await memory.take(bytes, attempt.signal);
    const request =
      'blob' in frozen.request
        ? await readRequest(store, frozen.request.blob, attempt.signal)
        : frozen.request;
    const doubtSinceMs = earliestDoubtMs(record, attempt, notBeforeMs);
    const suppressed = suppressions.against(allRecipients(request));
    const isInDoubt = doubtSinceMs !== Infinity;
    const search = searchOf(record, doubtSinceMs, clock.nowMs());
    if (isInDoubt && (search.isDue || suppressed.length > 0)) {
      const range = { sinceMs: search.sinceMs, signal: attempt.signal };
      const sent =
        (mayBeSettledElsewhere(record) ? await findSettled(store, record, range) : null) ??
        (await outbound.findSent(request, search.sinceMs, attempt.signal));
      if (sent) return { kind: 'done', facts: { ...facts, providerId: sent.providerId, foundSent: true } };
    }
    if (suppressed.length > 0) {
      const because = suppressed.map(({ address, reason, at, deliverySeqNum }) => ({
        address,
        reason,
        at,
        deliverySeqNum,
      }));
      return { kind: 'skipped', reason: 'suppressed', facts: { ...facts, suppressed: because } };
    }
    refuseStale(attempt.ageMs());
    try {
      const { providerId } = await outbound.send(request, frozen.idempotencyKey, attempt.signal);
      return { kind: 'done', facts: { ...facts, providerId } };
    } catch (error) {
      if (!(error instanceof MillraceError) || error.kind !== 'permanent') throw error;
      return { kind: 'dead-letter', reason: error.code, error, facts };
    }
  };
}

/**
 * Begin of the first attempt whose effect is not known, also of the record that this one was put back for; Infinity for
 * none. An attempt at this record that began before it was due, and was cut off, has not sent it before that.
 */
function earliestDoubtMs(record: StreamRecord, { doubtSinceMs }: Attempt, notBeforeMs: number): number {
  const inherited = Number(inheritedDoubt(record) ?? Infinity);
  return Math.min(inherited, doubtSinceMs === null ? Infinity : Math.max(doubtSinceMs, notBeforeMs));
}

/**
 * Whether the provider may have forgotten the key of a request that is in doubt, and since when to look for it. A doubt
 * that lies ahead is of unknown age: then the time of the cause may tell, but of a copy nothing does.
 */
function searchOf(
  record: StreamRecord,
  doubtSinceMs: number,
  nowMs: number,
): { isDue: boolean; sinceMs: number } {
  const ageMs = nowMs - doubtSinceMs;
  if (ageMs >= -CLOCK_MARGIN_MS) return { isDue: ageMs > KEY_LIFETIME_MS, sinceMs: doubtSinceMs };
  const isInherited = inheritedDoubt(record) !== undefined;
  const causedAtMs = isInherited ? 0 : Number(headerOf(record, CAUSED_AT_HEADER) ?? 0);
  return { isDue: true, sinceMs: causedAtMs <= nowMs ? causedAtMs : 0 };
}

function inheritedDoubt(record: StreamRecord): string | undefined {
  return headerOf(record, COPY_HEADERS.doubtSince);
}

/**
 * Whether another record can have been settled under this one's key: a run that was put back gave it the key of the run
 * before. The copy of a request has a key of its own; and of a record's own attempts the stage would know, while in an
 * outage of a day each of thousands that wait would read all of the journal at each of its attempts.
 */
function mayBeSettledElsewhere(record: StreamRecord): boolean {
  return inheritedDoubt(record) !== undefined && headerOf(record, COPY_HEADERS.of) === undefined;
}

async function readRequest(
  store: StreamStore,
  pointer: Parameters<typeof readBlob>[1],
  signal: AbortSignal,
): Promise<ProviderRequest> {
  return JSON.parse(Buffer.from(await readBlob(store, pointer, signal)).toString('utf8')) as ProviderRequest;
}

/** Mail of one conversation leaves in order; inboxes take turns, so that a burst of one does not delay another's reply. */
export const outboxOrder = {
  laneOf: (record: StreamRecord): string => parseJsonRecord(outboxRecordSchema, record).thread,
  fairnessKeyOf: (record: StreamRecord): string => parseJsonRecord(outboxRecordSchema, record).cause.inbox,
};

/** A run that was cut off days ago may have made the request already. A copy that a person had put back has its own key. */
export function requestCausedAtMs(record: StreamRecord): number | null {
  const causedAt = headerOf(record, CAUSED_AT_HEADER);
  return causedAt === undefined || headerOf(record, COPY_HEADERS.of) !== undefined ? null : Number(causedAt);
}

/** Refusals: after them it is certain that the mail was not taken. */
const REFUSALS: readonly string[] = [
  'resend.rate_limited',
  'resend.quota_exceeded',
  'resend.unauthorized',
  'platform.rate_gate_full',
  'outbox.attempt_too_old',
];

/** After all other failures, a 5xx among them, the mail may have been taken all the same. */
export function leavesDoubt(error: MillraceError): boolean {
  return !REFUSALS.includes(error.code);
}
