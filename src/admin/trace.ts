/**
 * The whole life of one email, gathered from the streams when a person asks: its event, what receive made of it,
 * its raw message, its record in each inbox, each run, each request, each attempt, what was sent and delivered,
 * and what a person had put back. Each step says on which stream and under which number it stands.
 *
 * Streams are read forwards from shortly before the email came, at most `MAX_SCANNED` records each; where that
 * does not reach the end, the answer says so. Texts of mails are not part of it: `millrace streams read`
 * shows the records themselves.
 */
import { z } from 'zod';
import { findBlob } from '../streams/blob.ts';
import { attemptSchema } from '../streams/journal-records.ts';
import {
  KEY_HEADER,
  deliveryRecordSchema,
  headerOf,
  inboxRecordSchema,
  mailboxRecordSchema,
  outboxRecordSchema,
  streamNames,
} from '../streams/records.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { baseKey } from './record-copy.ts';
import { isOfEmail } from './replay.ts';
import { readNotes } from './rerun.ts';
import { firstSince } from '../streams/first-since.ts';
import { jsonOf, mentions, outcomeOf, scan } from '../streams/stream-scan.ts';

/** One record on the way of an email. */
export interface TraceStep {
  /** When the store took it, ISO 8601. */
  readonly at: string;
  readonly stream: string;
  readonly seqNum: number;
  readonly step: (typeof STEPS)[number];
  readonly facts: Readonly<Record<string, unknown>>;
}

export interface EmailTrace {
  readonly emailId: string;
  /** In the order of time. */
  readonly steps: readonly TraceStep[];
  /** Streams that were not read to their end. */
  readonly partlyRead: readonly { stream: string; fromSeqNum: number; untilSeqNum: number }[];
}

/** A record of it that cannot be read: it must not hide all others. */
const MALFORMED = { isMalformed: true };
/** In the order of cause and effect. */
const STEPS = [
  'event',
  'raw',
  'inbox',
  'received',
  'rerun',
  'request',
  'run',
  'attempt',
  'mailbox',
  'sent',
  'delivery',
] as const;

/** Of one stream, for one email. */
const MAX_SCANNED = 100_000;
/** How long an email's first event can be older than its raw message: receive tries again for two days. */
const LOOK_BACK_MS = 48 * 3_600_000;
const MAX_INBOXES = 100;
/** Emails with one Message-ID: the sender chooses it. */
const MAX_SAME_MESSAGE_ID = 10;
const MAX_STEPS = 2000;

const eventSchema = z.object({
  type: z.string(),
  data: z.object({
    email_id: z.string(),
    message_id: z.string().nullish(),
    from: z.string().nullish(),
    to: z.array(z.string()).nullish(),
    received_for: z.array(z.string()).nullish(),
    subject: z.string().nullish(),
  }),
});

/** The ids of emails with this Message-ID, newest first; an id of Resend's stands for itself. */
export async function emailIdsOf(store: StreamStore, id: string, signal: AbortSignal): Promise<string[]> {
  if (!id.includes('@')) return [id.toLowerCase()];
  const events = store.stream(streamNames.events);
  const tail = await events.tail(signal);
  const found = new Set<string>();
  const bare = id.replaceAll(/^<|>$/g, '');
  const range = { fromSeqNum: Math.max(0, tail - MAX_SCANNED), maxRecords: MAX_SCANNED, signal };
  await scan(events, range, (record) => {
    if (!mentions(record, [JSON.stringify(bare).slice(1, -1)])) return;
    const data = eventSchema.safeParse(jsonOf(record)).data;
    if (data?.type === 'email.received' && data.data.message_id?.replaceAll(/^<|>$/g, '') === bare)
      found.add(data.data.email_id.toLowerCase());
  });
  return [...found].toReversed().slice(0, MAX_SAME_MESSAGE_ID);
}

/** @returns null where no stream knows of it */
export async function traceEmail(
  store: StreamStore,
  emailId: string,
  signal: AbortSignal,
): Promise<EmailTrace | null> {
  const trace = new Trace(store, { emailId, signal });
  const eventSeqNums = await trace.events();
  const streams = await trace.received(eventSeqNums);
  const inboxed = await trace.inboxes(await trace.reruns(streams, eventSeqNums));
  await trace.runs(inboxed);
  const requests = await trace.requests();
  await trace.mailbox(requests.keys);
  await trace.deliveries(await trace.sent(requests.seqNums));
  return trace.result();
}

class Trace {
  readonly #store: StreamStore;
  readonly #emailId: string;
  readonly #signal: AbortSignal;
  readonly #steps: TraceStep[] = [];
  readonly #partlyRead: { stream: string; fromSeqNum: number; untilSeqNum: number }[] = [];
  #sinceMs = 0;

  constructor(store: StreamStore, { emailId, signal }: { emailId: string; signal: AbortSignal }) {
    this.#store = store;
    this.#emailId = emailId;
    this.#signal = signal;
  }

  /** The numbers of its events, and from when on to look at all. */
  async events(): Promise<number[]> {
    const mail = this.#store.stream(streamNames.mail(this.#emailId));
    const { records } = await mail.read({ fromSeqNum: 0, maxRecords: 1, signal: this.#signal });
    const [first] = records;
    const pointer = first && (await findBlob(mail, this.#signal));
    if (first) {
      this.#sinceMs = first.timestampMs - LOOK_BACK_MS;
      this.#add('raw', mail.name, { record: first, facts: pointer ? { ...pointer } : { isComplete: false } });
    }
    const seqNums: number[] = [];
    await this.#scan(streamNames.events, (record) => {
      if (!mentions(record, [this.#emailId, this.#emailId.toUpperCase()])) return;
      const event = eventSchema.safeParse(jsonOf(record)).data;
      if (event?.type !== 'email.received' || event.data.email_id.toLowerCase() !== this.#emailId) return;
      seqNums.push(record.seqNum);
      const { from, to, received_for: receivedFor, subject, message_id: messageId } = event.data;
      const facts = { svixId: headerOf(record, 'svix-id'), from, to, receivedFor, subject, messageId };
      this.#add('event', streamNames.events, { record, facts: { ...facts, ...copied(record) } });
    });
    return seqNums;
  }

  /** The inbox streams that it was put into. */
  async received(eventSeqNums: readonly number[]): Promise<Set<string>> {
    const streams = new Set<string>();
    await this.#outcomes(
      'received',
      { journal: streamNames.received, seqNums: eventSeqNums },
      ({ facts }) => {
        for (const stream of z.array(z.string()).safeParse(facts['to']).data ?? []) streams.add(stream);
      },
    );
    return streams;
  }

  /** What a person did with it; gives the streams that it may have been put into by that. */
  async reruns(streams: ReadonlySet<string>, eventSeqNums: readonly number[]): Promise<Set<string>> {
    const all = new Set(streams);
    for (const note of await readNotes(this.#store, this.#signal)) {
      const isEvents = note.from === streamNames.events;
      const copies = note.copies.filter(({ seqNum, key }) =>
        isEvents ? eventSeqNums.includes(seqNum) : baseKey(key).split('/').includes(this.#emailId),
      );
      if (copies.length === 0) continue;
      if (note.to.startsWith(streamNames.inboxPrefix)) all.add(note.to);
      if (note.phase === 'done') continue;
      const { action, from, to, at } = note;
      for (const { seqNum, key } of copies)
        this.#steps.push({ at, stream: from, seqNum, step: 'rerun', facts: { action, to, key } });
    }
    return all.size > 0 ? all : this.#allInboxes();
  }

  /** Where the event has expired, or another source wrote the record. */
  async #allInboxes(): Promise<Set<string>> {
    const { inboxPrefix: prefix } = streamNames;
    const { names } = await this.#store.list({ prefix, limit: MAX_INBOXES, signal: this.#signal });
    return new Set(names);
  }

  /** The numbers of its records, by inbox stream. */
  async inboxes(streams: ReadonlySet<string>): Promise<Map<string, number[]>> {
    const found = new Map<string, number[]>();
    for (const stream of streams) {
      const seqNums: number[] = [];
      await this.#scan(stream, (record) => {
        if (!isOfEmail(record, this.#emailId)) return;
        seqNums.push(record.seqNum);
        const mail = inboxRecordSchema.safeParse(jsonOf(record)).data;
        const { address, tag, receivedAt, complete: isComplete, raw } = mail ?? {};
        const facts = mail ? { address, tag, receivedAt, isComplete, raw } : MALFORMED;
        this.#add('inbox', stream, { record, facts: { ...facts, ...copied(record) } });
      });
      found.set(stream, seqNums);
    }
    return found;
  }

  async runs(inboxed: ReadonlyMap<string, readonly number[]>): Promise<void> {
    for (const [stream, seqNums] of inboxed) {
      if (stream === streamNames.unrouted) continue;
      const journal = streamNames.runs(stream.slice(streamNames.inboxPrefix.length));
      await this.#outcomes('run', { journal, seqNums });
    }
  }

  async requests(): Promise<{ seqNums: number[]; keys: Set<string> }> {
    const found = { seqNums: [] as number[], keys: new Set<string>() };
    await this.#scan(streamNames.outbox, (record) => {
      if (!baseKey(headerOf(record, KEY_HEADER) ?? '').endsWith(`/${this.#emailId}`)) return;
      found.seqNums.push(record.seqNum);
      const frozen = outboxRecordSchema.safeParse(jsonOf(record)).data;
      if (!frozen) return this.#add('request', streamNames.outbox, { record, facts: MALFORMED });
      const { idempotencyKey, cause, notBefore, request } = frozen;
      found.keys.add(idempotencyKey);
      const shown = 'blob' in request ? { blob: request.blob } : { to: request.to, subject: request.subject };
      const facts = { idempotencyKey, cause, notBefore, ...shown, ...copied(record) };
      this.#add('request', streamNames.outbox, { record, facts });
    });
    return found;
  }

  /** What the local mailbox took in place of a provider. */
  async mailbox(keys: ReadonlySet<string>): Promise<void> {
    if (keys.size === 0) return;
    await this.#scan(streamNames.mailbox, (record) => {
      if (!keys.has(headerOf(record, KEY_HEADER) ?? '')) return;
      const { providerId, idempotencyKey } = mailboxRecordSchema.safeParse(jsonOf(record)).data ?? {};
      this.#add('mailbox', streamNames.mailbox, { record, facts: { providerId, idempotencyKey } });
    });
  }

  /** The provider's ids of what was sent. */
  async sent(seqNums: readonly number[]): Promise<string[]> {
    const providerIds: string[] = [];
    await this.#outcomes('sent', { journal: streamNames.sent, seqNums }, ({ facts }) => {
      if (typeof facts['providerId'] === 'string') providerIds.push(facts['providerId']);
    });
    return providerIds;
  }

  async deliveries(providerIds: readonly string[]): Promise<void> {
    if (providerIds.length === 0) return;
    await this.#scan(streamNames.delivery, (record) => {
      if (!mentions(record, providerIds)) return;
      const delivery = deliveryRecordSchema.safeParse(jsonOf(record)).data;
      if (!delivery || !providerIds.includes(delivery.providerId)) return;
      const { event, providerId, messageId, to, details } = delivery;
      this.#add('delivery', streamNames.delivery, {
        record,
        facts: { event, providerId, messageId, to, details },
      });
    });
  }

  result(): EmailTrace | null {
    if (this.#steps.length === 0) return null;
    const steps = this.#steps.toSorted(
      (a, b) =>
        Date.parse(a.at) - Date.parse(b.at) ||
        STEPS.indexOf(a.step) - STEPS.indexOf(b.step) ||
        a.seqNum - b.seqNum,
    );
    return { emailId: this.#emailId, steps, partlyRead: this.#partlyRead };
  }

  /** Outcomes of these source records, and the attempts before them. */
  async #outcomes(
    step: TraceStep['step'],
    { journal, seqNums }: { journal: string; seqNums: readonly number[] },
    see: (outcome: NonNullable<ReturnType<typeof outcomeOf>>) => void = () => {},
  ): Promise<void> {
    if (seqNums.length === 0) return;
    const lines = seqNums.map((seqNum) => `"seqNum":${seqNum},`);
    await this.#scan(journal, (record) => {
      if (!mentions(record, lines)) return;
      const attempt = attemptSchema.safeParse(jsonOf(record)).data;
      if (attempt && seqNums.includes(attempt.seqNum))
        this.#add('attempt', journal, { record, facts: { of: attempt.seqNum, key: attempt.key } });
      const outcome = outcomeOf(record);
      if (!outcome || !seqNums.includes(outcome.seqNum)) return;
      const { seqNum: of, outcome: became, attempts, reason, error, durationMs, facts, aside } = outcome;
      const until = aside ? { until: new Date(aside.untilMs).toISOString() } : {};
      this.#add(step, journal, {
        record,
        facts: { of, outcome: became, attempts, reason, error, durationMs, ...until, ...facts },
      });
      see(outcome);
    });
  }

  #add(
    step: TraceStep['step'],
    stream: string,
    { record, facts }: { record: StreamRecord; facts: TraceStep['facts'] },
  ): void {
    const at = new Date(record.timestampMs).toISOString();
    this.#steps.push({ at, stream, seqNum: record.seqNum, step, facts });
  }

  async #scan(name: string, see: (record: StreamRecord) => void): Promise<void> {
    const stream = this.#store.stream(name);
    const fromSeqNum = await firstSince(stream, this.#sinceMs, this.#signal);
    const range = { fromSeqNum, maxRecords: MAX_SCANNED, signal: this.#signal };
    const next = await scan(stream, range, (record) => {
      see(record);
      return this.#steps.length < MAX_STEPS;
    });
    if (next !== null) this.#partlyRead.push({ stream: name, fromSeqNum, untilSeqNum: next });
  }
}

/** Where it is a copy that a person had put back. */
function copied(record: StreamRecord): { copyOf?: string } {
  const copyOf = headerOf(record, 'copy-of');
  return copyOf === undefined ? {} : { copyOf };
}
