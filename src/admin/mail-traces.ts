/**
 * What the streams say about the newest mails, kept in memory and bounded: one small index for each stream.
 * It only collects; what the traces of one mail amount to is `conversation.ts`.
 *
 * A record that cannot be read is left out: it must not take the page away from all other mail.
 */
import { z } from 'zod';
import { allRecipients, providerRequestSchema } from '../mail/email.ts';
import type { ProviderRequest } from '../mail/email.ts';
import { threadKey } from '../mail/thread.ts';
import { readBlob } from '../streams/blob.ts';
import type { OutcomeRecord } from '../streams/journal-records.ts';
import {
  KEY_HEADER,
  headerOf,
  inboxRecordSchema,
  mailboxRecordSchema,
  outboxRecordSchema,
  parseJsonRecord,
  streamNames,
} from '../streams/records.ts';
import { jsonOf, outcomeOf } from '../streams/stream-scan.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';

/** Mails that the page shows. */
export const MAX_MAILS = 200;
/** Of everything else: a mail can reach several inboxes and have several replies. */
const MAX_TRACES = 2000;
/** What is shown of a text; the stream has all of it. */
const SHOWN_TEXT_CHARS = 20_000;

/** From `events`. */
export interface ArrivedMail {
  readonly emailId: string;
  readonly seqNum: number;
  readonly at: string;
  readonly from: string;
  readonly to: readonly string[];
  readonly subject: string;
  readonly messageId: string | null;
}

/** From `inbox/<name>`. */
export interface InboxedMail {
  readonly stream: string;
  readonly seqNum: number;
  readonly key: string;
  readonly address: string;
  readonly fromName: string;
  readonly text: string;
  readonly isTextCut: boolean;
  readonly thread: string;
  readonly references: readonly string[];
  readonly attachments: readonly ShownAttachment[];
}

/** From `outbox`. */
export interface FrozenRequest {
  readonly idempotencyKey: string;
  /** Of the record: what the outbox's outcome is found by. */
  readonly key: string;
  readonly seqNum: number;
  readonly inbox: string;
  readonly inboxSeqNum: number;
  readonly notBefore: string | null;
}

export interface ShownAttachment {
  readonly index: number;
  readonly filename: string;
  readonly contentType: string | null;
  readonly size: number;
}

/** From `mailbox`. `id` is its sequence number there. */
export interface DeliveredReply {
  readonly id: number;
  readonly at: string;
  readonly from: string;
  /** All who get it, with Cc and Bcc. */
  readonly to: string;
  readonly subject: string;
  readonly text: string;
  readonly isTextCut: boolean;
  readonly hasHtml: boolean;
  readonly headers: Readonly<Record<string, string>>;
  /** Stands in for the one that a provider gives, so that a person can reply to it. */
  readonly messageId: string;
  readonly attachments: readonly ShownAttachment[];
}

/** A map that forgets the oldest. */
class Recent<K, V> extends Map<K, V> {
  readonly #limit: number;

  constructor(limit: number) {
    super();
    this.#limit = limit;
  }

  override set(key: K, value: V): this {
    const [oldest] = this.keys();
    if (oldest !== undefined && this.size >= this.#limit && !this.has(key)) this.delete(oldest);
    return super.set(key, value);
  }
}

export class MailTraces {
  readonly mails: Map<string, ArrivedMail> = new Recent(MAX_MAILS);
  /** By the number of the event. */
  readonly received: Map<number, OutcomeRecord> = new Recent(MAX_TRACES);
  /** By the mail's id, then by stream and key. */
  readonly inboxed: Map<string, Map<string, InboxedMail>> = new Recent(MAX_MAILS);
  /** By inbox stream and key. */
  readonly runs: Map<string, OutcomeRecord> = new Recent(MAX_TRACES);
  /** By the mail's id, then by idempotency key. */
  readonly requests: Map<string, Map<string, FrozenRequest>> = new Recent(MAX_MAILS);
  /** By idempotency key, as the next one. */
  readonly sent: Map<string, OutcomeRecord> = new Recent(MAX_TRACES);
  readonly replies: Map<string, DeliveredReply> = new Recent(MAX_TRACES);

  addEvent(record: StreamRecord): void {
    if (!headerOf(record, 'svix-id')?.startsWith('local_')) return;
    const event = receivedEventSchema.safeParse(jsonOf(record));
    if (!event.success) return;
    const { data, created_at: at } = event.data;
    this.mails.set(data.email_id, {
      emailId: data.email_id,
      seqNum: record.seqNum,
      at,
      from: data.from,
      to: data.received_for,
      subject: data.subject,
      messageId: data.message_id || null,
    });
  }

  addReceived(record: StreamRecord): void {
    const outcome = outcomeOf(record);
    if (outcome) this.received.set(outcome.seqNum, outcome);
  }

  /** Where receive has put the mails that are known, `inbox/unrouted` among them. */
  inboxStreams(): Set<string> {
    const outcomes = [...this.mails.values()].flatMap(({ seqNum }) => this.received.get(seqNum) ?? []);
    const streams = outcomes.flatMap(({ facts }) => z.array(z.string()).safeParse(facts['to']).data ?? []);
    return new Set(streams.filter((stream) => stream.startsWith(streamNames.inboxPrefix)));
  }

  addInboxed(stream: string, record: StreamRecord): void {
    const parsed = parseJsonRecord(inboxRecordSchema, record);
    if (!this.mails.has(parsed.emailId)) return;
    const key = headerOf(record, KEY_HEADER) ?? parsed.emailId;
    const ofMail = this.inboxed.get(parsed.emailId) ?? new Map<string, InboxedMail>();
    // A record that is there twice was handled once, at its first place.
    if (ofMail.has(`${stream} ${key}`)) return;
    const { email } = parsed;
    ofMail.set(`${stream} ${key}`, {
      stream,
      seqNum: record.seqNum,
      key,
      address: parsed.address,
      fromName: email.from?.name ?? '',
      ...shownText(email.text),
      thread: threadKey(email),
      references: email.references,
      attachments: email.attachments.map(({ index, filename, contentType, size }) => ({
        index,
        filename: filename ?? `attachment-${index + 1}`,
        contentType,
        size,
      })),
    });
    this.inboxed.set(parsed.emailId, ofMail);
  }

  addRun(stream: string, record: StreamRecord): void {
    const outcome = outcomeOf(record);
    // The first one of this key has the outcome that counts.
    if (!outcome || outcome.outcome === 'duplicate') return;
    this.runs.set(`${stream} ${outcome.key}`, outcome);
  }

  addRequest(record: StreamRecord): void {
    const { idempotencyKey, cause, notBefore } = parseJsonRecord(outboxRecordSchema, record);
    const ofMail = this.requests.get(cause.emailId) ?? new Map<string, FrozenRequest>();
    if (ofMail.has(idempotencyKey)) return;
    ofMail.set(idempotencyKey, {
      idempotencyKey,
      key: headerOf(record, KEY_HEADER) ?? '',
      seqNum: record.seqNum,
      inbox: cause.inbox,
      inboxSeqNum: cause.seqNum,
      notBefore,
    });
    this.requests.set(cause.emailId, ofMail);
  }

  addSent(record: StreamRecord): void {
    const outcome = outcomeOf(record);
    if (outcome && outcome.outcome !== 'duplicate') this.sent.set(outcome.key, outcome);
  }

  addReply(record: StreamRecord, request: ProviderRequest): void {
    const { idempotencyKey, providerId, at } = parseJsonRecord(mailboxRecordSchema, record);
    this.replies.set(idempotencyKey, {
      id: record.seqNum,
      at,
      from: request.from,
      to: allRecipients(request).join(', '),
      subject: request.subject,
      ...shownText(request.text),
      hasHtml: request.html !== undefined,
      headers: request.headers,
      messageId: `<${providerId}@local-mailbox>`,
      attachments: (request.attachments ?? []).map(({ filename, contentType, content }, index) => ({
        index,
        filename,
        contentType: contentType ?? null,
        size: Buffer.byteLength(content, 'base64'),
      })),
    });
  }
}

/**
 * The request of a `mailbox` record, wherever it lies.
 * @throws MillraceError what `readBlob` throws, `records.malformed` (permanent)
 */
export async function requestOfReply(
  store: Pick<StreamStore, 'stream'>,
  record: StreamRecord,
  signal: AbortSignal,
): Promise<ProviderRequest> {
  const { request } = parseJsonRecord(mailboxRecordSchema, record);
  if (!('blob' in request)) return request;
  const bytes = await readBlob(store, request.blob, signal);
  return providerRequestSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
}

const receivedEventSchema = z.object({
  type: z.literal('email.received'),
  created_at: z.string(),
  data: z.object({
    email_id: z.string(),
    from: z.string(),
    received_for: z.array(z.string()),
    message_id: z.string(),
    subject: z.string(),
  }),
});

function shownText(text: string): { text: string; isTextCut: boolean } {
  return { text: text.slice(0, SHOWN_TEXT_CHARS).toWellFormed(), isTextCut: text.length > SHOWN_TEXT_CHARS };
}
