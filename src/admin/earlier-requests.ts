/**
 * Whether a mail that is to be put back has requests on `outbox` already. A run that froze them and was cut off before
 * its outcome was run again, and may have been parked then. Within its horizon the outbox drops the second request by
 * its key; for what is older this looks.
 */
import { z } from 'zod';
import type { Clock } from '../platform/clock.ts';
import { firstSince } from '../streams/first-since.ts';
import { KEY_HEADER, headerOf, originSeqNum, settlementPrefix, streamNames } from '../streams/records.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import type { StageStreams } from './stage-streams.ts';
import { jsonOf, scan } from '../streams/stream-scan.ts';

/** The outbox remembers keys for 72 h of its running time, which is no less by the calendar; clocks may jump. */
const REMEMBERED_MS = 48 * 3_600_000;
/** Whoever wrote when it came may have another clock. */
const CLOCK_MARGIN_MS = 3_600_000;
/** On `outbox`, in one request: beyond, a person would wait for longer than the client does. */
const MAX_SEARCHED = 100_000;
const PREFIX = /^[^/]*\/\d+\//;

/** `arrivedAt` is by the provider's clock, where that said much less than ours. */
const mailSchema = z.object({ receivedAt: z.iso.datetime(), arrivedAt: z.iso.datetime().optional() });

/** By the number of the record: since when there is a request of it. Empty but for the runner. */
export async function earlierRequests(
  { store, clock }: { store: StreamStore; clock: Clock },
  { inbox }: StageStreams,
  { records, signal }: { records: readonly StreamRecord[]; signal: AbortSignal },
): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  const seqNums = new Map<string, number>();
  const nowMs = clock.nowMs();
  let sinceMs = Infinity;
  for (const record of inbox === null ? [] : records) {
    const mail = mailSchema.safeParse(jsonOf(record)).data;
    if (!mail) continue;
    const { receivedAt, arrivedAt = receivedAt } = mail;
    const ageMs = nowMs - Date.parse(arrivedAt);
    // What lies ahead came while a clock was wrong: nobody knows how long ago that was.
    const isAhead = ageMs < -CLOCK_MARGIN_MS;
    if (ageMs < REMEMBERED_MS && !isAhead) continue;
    sinceMs = Math.min(sinceMs, isAhead ? 0 : Date.parse(arrivedAt));
    seqNums.set(settlementPrefix(inbox!, originSeqNum(record)), record.seqNum);
  }
  if (seqNums.size === 0) return found;
  const outbox = store.stream(streamNames.outbox);
  const range = { fromSeqNum: await firstSince(outbox, sinceMs, signal), maxRecords: MAX_SEARCHED, signal };
  const rest = await scan(outbox, range, (request) => {
    const seqNum = seqNums.get(PREFIX.exec(headerOf(request, KEY_HEADER) ?? '')?.[0] ?? '');
    if (seqNum === undefined || found.has(seqNum)) return;
    found.set(seqNum, request.timestampMs <= nowMs ? request.timestampMs : sinceMs);
  });
  // Where not all could be looked at, any of them may have one.
  if (rest !== null)
    for (const seqNum of seqNums.values()) if (!found.has(seqNum)) found.set(seqNum, sinceMs);
  return found;
}
