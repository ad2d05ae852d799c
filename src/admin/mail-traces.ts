/**
 * What the streams say about the newest mails, kept in memory and bounded: one small index for each stream.
 * It only collects; what the traces of one mail amount to is `conversation.ts`.
 *
 * A copy that a person had put back takes the place of what it stands for. A record that cannot be read is left
 * out: it must not take the page away from all other mail.
 */
import { z } from 'zod';
import { allRecipients, providerRequestSchema } from '../mail/email.ts';
import type { ProviderRequest } from '../mail/email.ts';
import { threadKey } from '../mail/thread.ts';
import { readBlob } from '../streams/blob.ts';
import type { OutcomeRecord } from '../streams/journal-records.ts';
import {
  COPY_HEADERS,
  KEY_HEADER,
  deliveryRecordSchema,
  headerOf,
  inboxRecordSchema,
  mailboxRecordSchema,
  originSeqNum,
  outboxRecordSchema,
  parseJsonRecord,
  streamNames,
} from '../streams/records.ts';
import { outcomeOf } from '../streams/stream-scan.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { arrivalOf } from './arrival.ts';
import type { ArrivedMail } from './arrival.ts';
import { baseKey } from './record-copy.ts';

/** Mails that the page shows. */
export const MAX_MAILS = 200;
/** Of everything else: a mail can reach several inboxes and have several replies. */
const MAX_TRACES = 2000;
/** What is shown of a text, or of what a run logged; the stream has all of it. */
const SHOWN_TEXT_CHARS = 20_000;
const SHOWN_LOG_LINES = 200;
/** Of one mail: two inboxes, each with as many effects as a run may have; and of the texts of all of them. */
const MAX_REQUESTS_PER_MAIL = 200;
const SHOWN_CHARS_PER_MAIL = 200_000;

/** From `inbox/<name>`. */
export interface InboxedMail {
  readonly stream: string;
  readonly seqNum: number;
  /** What the keys of its requests begin with: of a copy, the number of what it stands for. */
  readonly origin: number;
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
  readonly notBefore: string | null;
  /** What it sends; null where the local mailbox tells that. */
  readonly shown: DeliveredReply | null;
}

export interface ShownAttachment {
  readonly index: number;
  readonly filename: string;
  readonly contentType: string | null;
  readonly size: number;
}

/** From `mailbox`, or with real mail from `outbox`. */
export interface DeliveredReply {
  /** Its sequence number there. */
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
  /** In the local mailbox: stands in for the one that a provider gives, so that a person can reply to it. */
  readonly messageId: string | null;
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
  /** What the provider said last, by its id. */
  readonly deliveries: Map<string, string> = new Recent(MAX_TRACES);

  /** @param of whether to keep what was written in the local mailbox, or else all mail */
  addEvent(record: StreamRecord, of: { isLocal: boolean }): void {
    const mail = arrivalOf(record);
    if (!mail || (of.isLocal && !mail.isLocal)) return;
    // A second webhook for the same mail is settled as a duplicate.
    const isCopy = headerOf(record, COPY_HEADERS.of) !== undefined;
    if (isCopy || !this.mails.has(mail.emailId)) this.mails.set(mail.emailId, mail);
  }

  /** The streams that receive has put it on. */
  addReceived(record: StreamRecord): string[] {
    const outcome = outcomeOf(record);
    if (!outcome) return [];
    this.received.set(outcome.seqNum, outcome);
    return streamsOf(outcome);
  }

  /** Where receive has put the mails that are known, `inbox/unrouted` among them. */
  inboxStreams(): Set<string> {
    const outcomes = [...this.mails.values()].flatMap(({ seqNum }) => this.received.get(seqNum) ?? []);
    const streams = outcomes.flatMap(streamsOf);
    return new Set(streams.filter((stream) => stream.startsWith(streamNames.inboxPrefix)));
  }

  addInboxed(stream: string, record: StreamRecord): void {
    // Mail that is not shown is not worth parsing.
    const told = headerOf(record, KEY_HEADER);
    if (
      told !== undefined &&
      !baseKey(told)
        .split('/')
        .some((part) => this.mails.has(part))
    )
      return;
    const parsed = parseJsonRecord(inboxRecordSchema, record);
    if (!this.mails.has(parsed.emailId)) return;
    const key = told ?? parsed.emailId;
    const ofMail = this.inboxed.get(parsed.emailId) ?? new Map<string, InboxedMail>();
    // A record that is there twice was handled once, at its first place.
    if (ofMail.has(`${stream} ${key}`)) return;
    const { email } = parsed;
    ofMail.set(`${stream} ${key}`, {
      stream,
      seqNum: record.seqNum,
      origin: originSeqNum(record),
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
    const facts = { ...outcome.facts, logs: shownLogs(outcome.facts['logs']) };
    this.runs.set(`${stream} ${outcome.key}`, { ...outcome, facts });
  }

  /** @param request what is sent, where the page shows it as the reply */
  addRequest(record: StreamRecord, request: ProviderRequest | null): void {
    const { idempotencyKey, cause, notBefore } = parseJsonRecord(outboxRecordSchema, record);
    const ofMail =
      this.requests.get(cause.emailId) ?? new Recent<string, FrozenRequest>(MAX_REQUESTS_PER_MAIL);
    if (ofMail.has(idempotencyKey) && headerOf(record, COPY_HEADERS.of) === undefined) return;
    const at = new Date(record.timestampMs).toISOString();
    const charsBefore = [...ofMail.values()].reduce((sum, one) => sum + (one.shown?.text.length ?? 0), 0);
    const chars = Math.max(0, SHOWN_CHARS_PER_MAIL - charsBefore);
    ofMail.set(idempotencyKey, {
      idempotencyKey,
      key: headerOf(record, KEY_HEADER) ?? '',
      seqNum: record.seqNum,
      notBefore,
      shown: request && { id: record.seqNum, at, messageId: null, ...shownRequest(request, chars) },
    });
    this.requests.set(cause.emailId, ofMail);
  }

  /** Whether the page shows the mail that a request belongs to. */
  isRequestShown(record: StreamRecord): boolean {
    return this.mails.has(parseJsonRecord(outboxRecordSchema, record).cause.emailId);
  }

  addSent(record: StreamRecord): void {
    const outcome = outcomeOf(record);
    if (outcome && outcome.outcome !== 'duplicate') this.sent.set(outcome.key, outcome);
  }

  addReply(record: StreamRecord, request: ProviderRequest): void {
    const { idempotencyKey, providerId, at } = parseJsonRecord(mailboxRecordSchema, record);
    const messageId = `<${providerId}@local-mailbox>`;
    this.replies.set(idempotencyKey, { id: record.seqNum, at, messageId, ...shownRequest(request) });
  }

  addDelivery(record: StreamRecord): void {
    const { providerId, event } = parseJsonRecord(deliveryRecordSchema, record);
    if (TOLD_DELIVERIES.includes(event)) this.deliveries.set(providerId, event);
  }
}

/** That a mail was opened says nothing about whether it arrived that these do not. */
const TOLD_DELIVERIES: readonly string[] = [
  'delivered',
  'delivery_delayed',
  'bounced',
  'complained',
  'failed',
  'suppressed',
];

/** Both kinds of records that hold one. */
const requestRecordSchema = z.object({ request: outboxRecordSchema.shape.request });

/**
 * The request of a record of `mailbox` or `outbox`, wherever it lies.
 * @throws MillraceError what `readBlob` throws, `records.malformed` (permanent)
 */
export async function requestOf(
  store: Pick<StreamStore, 'stream'>,
  record: StreamRecord,
  signal: AbortSignal,
): Promise<ProviderRequest> {
  const { request } = parseJsonRecord(requestRecordSchema, record);
  if (!('blob' in request)) return request;
  const bytes = await readBlob(store, request.blob, signal);
  return providerRequestSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
}

function streamsOf({ facts }: OutcomeRecord): string[] {
  return z.array(z.string()).safeParse(facts['to']).data ?? [];
}

function shownRequest(request: ProviderRequest, chars = SHOWN_TEXT_CHARS) {
  return {
    from: request.from,
    to: allRecipients(request).join(', '),
    subject: request.subject,
    ...shownText(request.text, chars),
    hasHtml: request.html !== undefined,
    headers: request.headers,
    attachments: (request.attachments ?? []).map(({ filename, contentType, content }, index) => ({
      index,
      filename,
      contentType: contentType ?? null,
      size: Buffer.byteLength(content, 'base64'),
    })),
  };
}

function shownText(text: string, chars = SHOWN_TEXT_CHARS): { text: string; isTextCut: boolean } {
  const shownChars = Math.min(chars, SHOWN_TEXT_CHARS);
  // Copied: a part of a string keeps all of it in memory.
  const shown = Buffer.from(text.slice(0, shownChars)).toString('utf8');
  return { text: shown, isTextCut: text.length > shownChars };
}

/** Lines that the tool wrote with `context.log`. */
function shownLogs(logs: unknown): string[] {
  const lines = z.array(z.string()).safeParse(logs).data ?? [];
  let left = SHOWN_TEXT_CHARS;
  const shown: string[] = [];
  for (const line of lines.slice(0, SHOWN_LOG_LINES)) {
    if (left <= 0) break;
    shown.push(shownText(line, left).text);
    left -= line.length;
  }
  return shown;
}
