/**
 * What the effects of a run are keyed by: its cause, so that whoever runs the same mail again names the same. There
 * are two keys, because two remember them:
 *
 * - the *settlement key* (inbox, number, effect, email) is the outbox record's own: the outbox stage settles it once.
 *   The number is that of the inbox record, of a redriven one that of the record which it stands for.
 * - the *idempotency key* (inbox, the inbox record's key, effect) goes to the provider, which outlives our streams.
 *   It holds no number: a mail that is routed again after a restore may get another one, and must not be answered
 *   under another key. A replay's copies have keys of their own, and so have their replies.
 *
 * Why, and what of mails that an older release has half done: docs/adr/0042-two-keys-of-a-reply.md.
 */
import { createHash } from 'node:crypto';
import type { Restore } from '../streams/format.ts';
import { COPY_HEADERS, causeKeyOf, headerOf, originSeqNum, settlementPrefix } from '../streams/records.ts';
import type { InboxRecord } from '../streams/records.ts';
import { fingerprint } from '../streams/settled-keys.ts';
import type { StreamRecord } from '../streams/stream-store.ts';

export interface RunCause {
  /** On the inbox's stream; of a redriven mail the number of its copy. */
  readonly seqNum: number;
  settlementKey(effect: number): string;
  idempotencyKey(effect: number): string;
  /** No later than when the inbox record came (ms since the epoch), that these effects are keyed by. */
  readonly atMs: number;
  /** What the tool's `random` begins with. */
  readonly seed: string;
  /** Since when (ms since the epoch) the provider may have had these requests, unknown to our streams; null for never. */
  readonly doubtSinceMs: number | null;
}

/** @param lost what streams of before a restore went on to do without our knowing, where there was one */
export function causeOfRun(
  record: StreamRecord,
  mail: Pick<InboxRecord, 'emailId' | 'receivedAt' | 'arrivedAt'>,
  { inbox, lost }: { inbox: string; lost: Restore | null },
): RunCause {
  const { emailId } = mail;
  const name = encodeURIComponent(inbox);
  const origin = originSeqNum(record);
  const settlementKey = (effect: number): string => `${settlementPrefix(inbox, origin)}${effect}/${emailId}`;
  const cause = causeKeyOf(record);
  const mailKey = cause === emailId ? emailId : `${emailId}/${fingerprint(cause ?? '')}`;
  return {
    seqNum: record.seqNum,
    settlementKey,
    // Without a key of its own, a record is known by its number alone.
    idempotencyKey: cause === null ? settlementKey : (effect) => `${name}/${mailKey}/${effect}`,
    seed: seedOf(cause === null ? [inbox, origin, emailId] : [inbox, cause]),
    atMs: causedAtMs(record, mail),
    doubtSinceMs: doubtOf(record, mail, lost),
  };
}

/**
 * The provider's time of a mail is by another clock than ours, which may have been ahead once: on `local` all records of
 * a stream then keep that time until it has come. A copy that a person asked for came about later than its mail.
 */
function causedAtMs(
  record: StreamRecord,
  { receivedAt, arrivedAt = receivedAt }: Pick<InboxRecord, 'receivedAt' | 'arrivedAt'>,
): number {
  const isCopy = headerOf(record, COPY_HEADERS.of) !== undefined;
  return isCopy ? record.timestampMs : Math.min(record.timestampMs, Date.parse(arrivedAt));
}

function doubtOf(
  record: StreamRecord,
  { receivedAt, arrivedAt = receivedAt }: Pick<InboxRecord, 'receivedAt' | 'arrivedAt'>,
  lost: Restore | null,
): number | null {
  const redriven = headerOf(record, COPY_HEADERS.doubtSince);
  // A copy that a person asked for was there from then on, however old the mail is: a restore keeps the times of records.
  const isReplay = headerOf(record, COPY_HEADERS.of) !== undefined && !headerOf(record, COPY_HEADERS.origin);
  const thereMs = isReplay ? record.timestampMs : Date.parse(arrivedAt);
  const wasThere = lost !== null && thereMs <= lost.restoredAtMs;
  const since = [
    ...(redriven === undefined ? [] : [Number(redriven)]),
    ...(wasThere ? [lost.backupAtMs] : []),
  ];
  return since.length === 0 ? null : Math.min(...since);
}

function seedOf(cause: readonly (string | number)[]): string {
  return createHash('sha256').update(JSON.stringify(cause)).digest('hex').slice(0, 32);
}
