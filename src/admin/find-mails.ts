/**
 * Finding mail that somebody asks about, when all that is known is who wrote it or what about: `events` is read
 * backwards, newest mail first, a bounded number of records in one request.
 */
import { streamNames } from '../streams/records.ts';
import { scan } from '../streams/stream-scan.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import { arrivalOf } from './arrival.ts';
import type { ArrivedMail } from './arrival.ts';

export type FoundMail = Pick<
  ArrivedMail,
  'emailId' | 'seqNum' | 'at' | 'from' | 'to' | 'subject' | 'messageId'
>;

export interface MailPage {
  readonly mails: readonly FoundMail[];
  /** Where the next page ends; null when there is nothing before. */
  readonly next: number | null;
}

export interface MailQuery {
  /** Stands in the sender, an address of ours, the subject or the Message-ID, whatever the case. */
  text: string;
  /** On `events`: only what stands below this number. */
  before?: number | undefined;
  limit: number;
}

/** Of `events`, in one request. */
const MAX_SCANNED = 20_000;
const CHUNK = 500;

export async function findMails(
  store: StreamStore,
  { text, before, limit }: MailQuery,
  signal: AbortSignal,
): Promise<MailPage> {
  const events = store.stream(streamNames.events);
  const top = Math.min(before ?? Infinity, await events.tail(signal));
  const bottom = Math.max(0, top - MAX_SCANNED);
  const wanted = text.toLowerCase();
  const mails: FoundMail[] = [];
  for (let end = top; end > bottom; end -= CHUNK) {
    const range = { fromSeqNum: Math.max(bottom, end - CHUNK), untilSeqNum: end, maxRecords: CHUNK, signal };
    const found: FoundMail[] = [];
    await scan(events, range, (record) => {
      const mail = arrivalOf(record);
      if (mail && isWanted(mail, wanted)) found.push(shown(mail));
    });
    for (const mail of found.toReversed()) {
      mails.push(mail);
      if (mails.length === limit) return { mails, next: mail.seqNum > 0 ? mail.seqNum : null };
    }
  }
  return { mails, next: bottom > 0 ? bottom : null };
}

function isWanted({ from, to, subject, messageId }: ArrivedMail, wanted: string): boolean {
  return [from, ...to, subject, messageId ?? ''].some((field) => field.toLowerCase().includes(wanted));
}

function shown({ emailId, seqNum, at, from, to, subject, messageId }: ArrivedMail): FoundMail {
  return { emailId, seqNum, at, from, to, subject, messageId };
}
