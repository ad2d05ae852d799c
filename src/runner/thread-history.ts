/**
 * The earlier mails of a conversation, for a tool that asks: what came into its inbox, and what it answered.
 *
 * Which they are is a view of the journal `runs/<name>`, made when a tool of this inbox asks for the first time,
 * from its last 20,000 records, and kept up to date from then on; the mails themselves are read from `inbox/<name>`
 * and `outbox`, by their numbers, at most 20 for one run. What has expired is left out.
 *
 * The sender chooses which conversation a mail belongs to, by its references. So that nobody can ask a tool about
 * mail of others, only those are shown that the person whom a reply would go to wrote or got.
 */
import { normaliseAddress } from '../mail/address.ts';
import { allRecipients, providerRequestSchema } from '../mail/email.ts';
import type { ParsedEmail, ProviderRequest } from '../mail/email.ts';
import type { Clock } from '../platform/clock.ts';
import { hasCode } from '../platform/errors.ts';
import { readBlob } from '../streams/blob.ts';
import { outcomeSchema } from '../streams/journal-records.ts';
import type { OutcomeRecord } from '../streams/journal-records.ts';
import { inboxRecordSchema, outboxRecordSchema, parseJsonRecord, streamNames } from '../streams/records.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import type { PlainThreadEmail } from './sandbox/sandbox.ts';

export interface ThreadHistory {
  /** Takes note of an outcome, once anybody has asked. */
  add(outcome: OutcomeRecord): void;
  /** Oldest first. */
  earlier(
    mail: { thread: string; seqNum: number; emailId: string; person: string },
    signal: AbortSignal,
  ): Promise<PlainThreadEmail[]>;
}

interface Run {
  readonly seqNum: number;
  /** Where its requests stand on `outbox`. */
  readonly outbox: readonly number[];
}

const LOOK_BACK_RECORDS = 20_000;
const MAX_RUNS = 20_000;
const MAX_RUNS_OF_THREAD = 50;
const MAX_EMAILS = 20;
/** Of each text that is shown. */
const MAX_TEXT_CHARS = 10_000;
/** A request whose files make it larger is shown without its text. */
const MAX_READ_BYTES = 4 * 1024 * 1024;

export function createThreadHistory(
  { store, clock }: { store: StreamStore; clock: Clock },
  { inbox }: { inbox: string },
): ThreadHistory {
  /** Runs by conversation; the one that was heard of longest ago is the first to go. */
  const threads = new Map<string, Run[]>();
  let runs = 0;
  let restored: Promise<void> | null = null;

  function add(outcome: OutcomeRecord): void {
    const { thread } = outcome.facts;
    if (typeof thread !== 'string') return;
    const known = threads.get(thread) ?? [];
    if (known.some(({ seqNum }) => seqNum === outcome.seqNum)) return;
    known.push({ seqNum: outcome.seqNum, outbox: outcome.outputs?.[streamNames.outbox] ?? [] });
    known.sort((a, b) => a.seqNum - b.seqNum);
    runs += known.length > MAX_RUNS_OF_THREAD ? 0 : 1;
    threads.delete(thread);
    threads.set(thread, known.slice(-MAX_RUNS_OF_THREAD));
    for (const [oldest, forgotten] of threads) {
      if (runs <= MAX_RUNS) break;
      threads.delete(oldest);
      runs -= forgotten.length;
    }
  }

  /** Serves all runs, so that none of them can end it. */
  async function restore(): Promise<void> {
    const journal = store.stream(streamNames.runs(inbox));
    const tail = await journal.tail();
    for (let next = Math.max(0, tail - LOOK_BACK_RECORDS); next < tail;) {
      const { records, nextSeqNum } = await journal.read({ fromSeqNum: next });
      for (const record of records) {
        const outcome = outcomeSchema.safeParse(JSON.parse(Buffer.from(record.body).toString('utf8'))).data;
        if (outcome) add(outcome);
      }
      if (nextSeqNum === next) break;
      next = nextSeqNum;
    }
  }

  async function recordAt(stream: string, seqNum: number, signal: AbortSignal): Promise<StreamRecord | null> {
    const { records } = await store.stream(stream).read({ fromSeqNum: seqNum, maxRecords: 1, signal });
    return records[0]?.seqNum === seqNum ? records[0] : null;
  }

  async function inbound(
    seqNum: number,
    { person, emailId }: { person: string; emailId: string },
    signal: AbortSignal,
  ): Promise<PlainThreadEmail[]> {
    const record = await recordAt(streamNames.inbox(inbox), seqNum, signal);
    if (!record) return [];
    const mail = parseJsonRecord(inboxRecordSchema, record);
    if (mail.emailId === emailId || !tookPart(mail.email, person)) return [];
    const { from, to, subject, text, newText, messageId } = mail.email;
    const at = mail.receivedAt;
    return [
      { direction: 'inbound', from, to, subject, text: cut(text), newText: cut(newText), messageId, at },
    ];
  }

  async function outbound(seqNum: number, person: string, signal: AbortSignal): Promise<PlainThreadEmail[]> {
    const record = await recordAt(streamNames.outbox, seqNum, signal);
    if (!record) return [];
    const { request: frozen, notBefore } = parseJsonRecord(outboxRecordSchema, record);
    if (notBefore !== null && Date.parse(notBefore) > clock.nowMs()) return [];
    const request = 'blob' in frozen ? await readRequest(frozen.blob, signal) : frozen;
    if (!request || !allRecipients(request).some((address) => isSame(address, person))) return [];
    const text = cut(request.text);
    return [
      {
        direction: 'outbound',
        from: { name: '', address: request.from },
        to: [request.to].flat().map((address) => ({ name: '', address })),
        subject: request.subject,
        text,
        newText: text,
        messageId: null,
        at: notBefore ?? new Date(record.timestampMs).toISOString(),
      },
    ];
  }

  async function readRequest(
    pointer: Parameters<typeof readBlob>[1],
    signal: AbortSignal,
  ): Promise<ProviderRequest | null> {
    if (pointer.bytes > MAX_READ_BYTES) return null;
    try {
      const bytes = await readBlob(store, pointer, signal);
      return providerRequestSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
    } catch (error) {
      if (hasCode(error, 'streams.blob_missing')) return null;
      throw error;
    }
  }

  return {
    add: (outcome) => void (restored && add(outcome)),
    async earlier({ thread, seqNum, emailId, person }, signal) {
      restored ??= restore();
      try {
        await restored;
      } catch (error) {
        restored = null;
        throw error;
      }
      const emails: PlainThreadEmail[] = [];
      const before = (threads.get(thread) ?? []).filter((run) => run.seqNum < seqNum);
      for (const run of before.toReversed()) {
        const of = await inbound(run.seqNum, { person, emailId }, signal);
        for (const place of run.outbox) of.push(...(await outbound(place, person, signal)));
        emails.unshift(...of);
        if (emails.length >= MAX_EMAILS) break;
      }
      return emails.slice(-MAX_EMAILS);
    },
  };
}

function tookPart({ from, replyTo, to, cc }: ParsedEmail, person: string): boolean {
  return [...(from ? [from] : []), ...replyTo, ...to, ...cc].some(({ address }) => isSame(address, person));
}

function isSame(address: string, person: string): boolean {
  return (normaliseAddress(address) ?? address) === (normaliseAddress(person) ?? person);
}

function cut(text: string): string {
  return text.slice(0, MAX_TEXT_CHARS).toWellFormed();
}
