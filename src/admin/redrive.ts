/**
 * `redrive`: puts dead letters back on the stream that they came from, each once. A copy stands for its dead
 * letter: what it leads to has the same idempotency keys, so that whatever an earlier attempt has done after all
 * is not done again.
 *
 * - A mail's copy carries the number and the key of the record that it stands for: its replies are keyed by these. The
 *   outbox forgets keys after a time. Where it may have, and a run that was cut off has put requests there, the copy
 *   says since when, and its requests are looked for before they are sent.
 * - A request's copy goes to the provider under the key that the request was frozen with. It may have been taken
 *   at an attempt whose answer was lost: the copy says since when, and the outbox asks the provider first where
 *   that is too long ago for the key to be remembered. Only a person who has looked can say otherwise
 *   (`isKnownUnsent`), and even then the key stays.
 *
 * It is asked for in pages and ends where the journal ended when it began: what was put back and has failed again
 * meanwhile stands behind, and is left to the next redrive.
 */
import type { Clock } from '../platform/clock.ts';
import {
  CAUSED_AT_HEADER,
  COPY_HEADERS,
  causeKeyOf,
  headerOf,
  originSeqNum,
  outboxRecordSchema,
  parseJsonRecord,
} from '../streams/records.ts';
import type { RecordHeader, StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { listDeadLetters, redriveKey } from './dead-letters.ts';
import type { DeadLetter } from './dead-letters.ts';
import { earlierRequests } from './earlier-requests.ts';
import { copyOf } from './record-copy.ts';
import type { Copy } from './record-copy.ts';
import { MAX_COPIES } from './rerun.ts';
import type { Rerun } from './rerun.ts';
import type { StageStreams } from './stage-streams.ts';
import { recordAt } from '../streams/stream-scan.ts';

/** The store's clock and ours may differ. */
const CLOCK_MARGIN_MS = 3_600_000;

export interface JournalRange {
  readonly fromSeqNum: number;
  readonly untilSeqNum: number;
}

export interface RedriveRequest {
  /** On the source, both included; null for all. */
  readonly seqNums: { readonly from: number; readonly to: number } | null;
  /** On the journal: `next` of the page before; for the first, where it begins. */
  readonly from: number | JournalRange;
  /** Of requests: a person has seen that the provider did not send them. */
  readonly isKnownUnsent: boolean;
}

export interface RedrivenDeadLetter extends Pick<DeadLetter, 'seqNum' | 'emailId'> {
  /** `expired`: its record is not kept any more. */
  readonly status: 'redriven' | 'already-redriven' | 'expired';
}

export interface RedrivePage {
  readonly deadLetters: readonly RedrivenDeadLetter[];
  readonly next: JournalRange | null;
}

/**
 * Puts back the next `MAX_COPIES` of the dead letters that are asked for.
 * @throws MillraceError what the store throws; the same request again goes on where it stopped
 */
export async function redrive(
  deps: { store: StreamStore; rerun: Rerun; clock: Clock },
  streams: StageStreams,
  { request, signal }: { request: RedriveRequest; signal: AbortSignal },
): Promise<RedrivePage> {
  const { from, seqNums } = request;
  const journal = deps.store.stream(streams.journal);
  const page =
    typeof from === 'number' ? { fromSeqNum: from, untilSeqNum: await journal.tail(signal) } : from;
  // Of those that are named, each is answered for; of all, those that are left.
  const which = seqNums === null ? { isOpen: true } : { seqNums };
  const range = { ...page, limit: MAX_COPIES, signal, ...which };
  const { deadLetters, next } = await listDeadLetters(deps, streams, range);
  const source = deps.store.stream(streams.source);
  const found: { deadLetter: DeadLetter; record: StreamRecord }[] = [];
  for (const deadLetter of deadLetters) {
    if (deadLetter.redrivenAt !== null) continue;
    const record = await recordAt(source, deadLetter.seqNum, signal);
    if (record) found.push({ deadLetter, record });
  }
  const records = found.map(({ record }) => record);
  const earlier = await earlierRequests(deps, streams, { records, signal });
  const copies = found.map(({ deadLetter, record }): Copy => {
    const frozenMs = earlier.get(record.seqNum);
    const { isKnownUnsent } = request;
    const parkedMs = Date.parse(deadLetter.at);
    const headers = inherited(streams, { record, frozenMs, parkedMs, isKnownUnsent });
    return copyOf(streams.source, record, { key: redriveKey(deadLetter), headers });
  });
  const { source: stream } = streams;
  await deps.rerun.putBack({ action: 'redrive', from: stream, to: stream, copies }, signal);
  const put = new Set(copies.map(({ seqNum }) => seqNum));
  const statusOf = ({ seqNum, redrivenAt }: DeadLetter): RedrivenDeadLetter['status'] => {
    if (redrivenAt !== null) return 'already-redriven';
    return put.has(seqNum) ? 'redriven' : 'expired';
  };
  return {
    deadLetters: deadLetters.map((deadLetter) => ({
      seqNum: deadLetter.seqNum,
      emailId: deadLetter.emailId,
      status: statusOf(deadLetter),
    })),
    next: next === null ? null : { ...page, fromSeqNum: next },
  };
}

/** What a copy takes over from the record that it stands for. */
function inherited(
  { stage }: StageStreams,
  of: { record: StreamRecord; frozenMs: number | undefined; parkedMs: number; isKnownUnsent: boolean },
): RecordHeader[] {
  const { record, frozenMs, parkedMs, isKnownUnsent } = of;
  if (stage === 'runner') {
    const cause = causeKeyOf(record);
    return [
      [COPY_HEADERS.origin, String(originSeqNum(record))],
      ...(cause === null ? [] : [[COPY_HEADERS.cause, cause] as const]),
      ...(frozenMs === undefined ? [] : [[COPY_HEADERS.doubtSince, String(frozenMs)] as const]),
    ];
  }
  if (stage === 'receive' || isKnownUnsent) return [];
  return [
    [
      COPY_HEADERS.doubtSince,
      headerOf(record, COPY_HEADERS.doubtSince) ?? String(firstAttemptMs(record, parkedMs)),
    ],
  ];
}

/**
 * No attempt began before: not before the request was there, nor before it was due. What says that it was there after it
 * was parked had its time from a clock that was ahead: then not before its cause, or nobody knows.
 */
function firstAttemptMs(record: StreamRecord, parkedMs: number): number {
  const { notBefore } = parseJsonRecord(outboxRecordSchema, record);
  const thereMs = Math.max(record.timestampMs, notBefore === null ? 0 : Date.parse(notBefore));
  if (thereMs <= parkedMs + CLOCK_MARGIN_MS) return thereMs;
  const causedAtMs = Number(headerOf(record, CAUSED_AT_HEADER) ?? 0);
  return causedAtMs <= parkedMs ? causedAtMs : 0;
}
