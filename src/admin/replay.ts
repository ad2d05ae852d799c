/**
 * `replay`: runs past mail again on purpose. The copies have new keys, so they really run and really answer;
 * within one replay (its `id`) each mail runs once, also where the command is repeated or the mail is there twice.
 *
 * Mail of `inbox/unrouted` has never run. It is handed over to an inbox once: its key is the same for every
 * replay. From there on it is mail of that inbox like any other, and can be replayed as such.
 *
 * A replay is asked for in pages and ends where the stream ended when it began: it never meets its own copies.
 */
import { z } from 'zod';
import { DEFAULT_INBOX } from '../streams/live-tools.ts';
import { KEY_HEADER, headerOf, streamNames } from '../streams/records.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { causeKey, copyOf } from './record-copy.ts';
import type { Copy } from './record-copy.ts';
import { MAX_COPIES } from './rerun.ts';
import type { Rerun } from './rerun.ts';
import { firstSince } from '../streams/first-since.ts';
import { jsonOf, scan } from '../streams/stream-scan.ts';

export interface ReplayRequest {
  /** Names this replay: 1 to 64 letters, digits and hyphens. */
  readonly id: string;
  /** An inbox, or mail for no tool and the inbox that takes it. */
  readonly of: { readonly inbox: string } | { readonly unroutedTo: string };
  readonly select: MailSelection;
  /** Where the page before ended; null for the first. */
  readonly page: { readonly fromSeqNum: number; readonly untilSeqNum: number } | null;
  /** Only says what would run again. */
  readonly isDryRun: boolean;
}

/** All that is given must hold. Unless numbers or an email are named, unrouted mail is that for the inbox's name. */
export interface MailSelection {
  readonly seqNums?: { readonly from: number; readonly to: number } | undefined;
  readonly sinceMs?: number | undefined;
  readonly emailId?: string | undefined;
}

export interface ReplayedMail {
  readonly seqNum: number;
  /** Of the mail, whatever copies of it there are. */
  readonly key: string;
  readonly at: string;
  readonly status: 'replayed' | 'already-replayed' | 'selected';
}

export interface ReplayPage {
  readonly mails: readonly ReplayedMail[];
  readonly next: { readonly fromSeqNum: number; readonly untilSeqNum: number } | null;
}

/** Of an inbox, in one request. */
const MAX_SCANNED = 20_000;

/**
 * Runs the next `MAX_COPIES` of the selected mails again.
 * @throws MillraceError what the store throws; the same request again goes on where it stopped
 */
export async function replay(
  deps: { store: StreamStore; rerun: Rerun },
  request: ReplayRequest,
  signal: AbortSignal,
): Promise<ReplayPage> {
  const isUnrouted = 'unroutedTo' in request.of;
  const inbox = 'unroutedTo' in request.of ? request.of.unroutedTo : request.of.inbox;
  const to = streamNames.inbox(inbox);
  const from = isUnrouted ? streamNames.unrouted : to;
  const source = deps.store.stream(from);
  const page = request.page ?? (await firstPage(deps.store, { from, select: request.select, signal }));
  const isSelected = selector(request);
  const copies = new Map<string, Copy & { at: string }>();
  const next = await scan(source, { ...page, maxRecords: MAX_SCANNED, signal }, (record) => {
    if (!isSelected(record)) return true;
    const cause = causeKey(from, record);
    const suffix = isUnrouted ? `#routed-${inbox}` : `#replay-${request.id}`;
    const copy = copyOf(from, record, { key: `${cause}${suffix}` });
    if (!copies.has(cause)) copies.set(cause, { ...copy, at: new Date(record.timestampMs).toISOString() });
    return copies.size < MAX_COPIES;
  });
  const put = request.isDryRun
    ? null
    : await deps.rerun.putBack({ action: 'replay', from, to, copies: [...copies.values()] }, signal);
  const statusOf = (key: string): ReplayedMail['status'] => {
    if (put === null) return 'selected';
    return put.has(key) ? 'replayed' : 'already-replayed';
  };
  return {
    mails: [...copies].map(([cause, { seqNum, key, at }]) => ({
      seqNum,
      key: cause,
      at,
      status: statusOf(key),
    })),
    next: next === null ? null : { fromSeqNum: next, untilSeqNum: page.untilSeqNum },
  };
}

async function firstPage(
  store: StreamStore,
  { from, select, signal }: { from: string; select: MailSelection; signal: AbortSignal },
): Promise<{ fromSeqNum: number; untilSeqNum: number }> {
  const stream = store.stream(from);
  const tail = await stream.tail(signal);
  const since = select.sinceMs === undefined ? 0 : await firstSince(stream, select.sinceMs, signal);
  const { seqNums } = select;
  return {
    fromSeqNum: Math.max(since, seqNums?.from ?? 0),
    untilSeqNum: seqNums === undefined ? tail : Math.min(tail, seqNums.to + 1),
  };
}

const addressedSchema = z.object({ inbox: z.string() });

function selector({ of, select }: ReplayRequest): (record: StreamRecord) => boolean {
  const { emailId, seqNums } = select;
  const byName = 'unroutedTo' in of && emailId === undefined && seqNums === undefined ? of.unroutedTo : null;
  return (record) => {
    if (emailId !== undefined && !isOfEmail(record, emailId)) return false;
    if (byName === null || byName === DEFAULT_INBOX) return true;
    return addressedSchema.safeParse(jsonOf(record)).data?.inbox === byName;
  };
}

/** The key of an inbox record begins with the email's id: what follows is an address, or says that it is a copy. */
export function isOfEmail(record: StreamRecord, emailId: string): boolean {
  const key = headerOf(record, KEY_HEADER) ?? '';
  return key === emailId || key.startsWith(`${emailId}/`) || key.startsWith(`${emailId}#`);
}
