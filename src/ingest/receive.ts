/**
 * Receive: `events` → `mail/<email_id>`, `inbox/<name>`, `delivery`. The handler of the receive stage.
 *
 * For `email.received` it has the raw message kept and the routes decided, each once (`kept-mail.ts`), parses the
 * message, and gives one record to each inbox of ours that the mail names. A delivery event becomes a record on
 * `delivery`. Everything else is settled as skipped, with the reason: `unknown-event`, `foreign-domain`.
 *
 * Of the raw messages that are fetched and parsed at once, all together have a budget: what does not fit into it waits,
 * and a mail that is larger than all of it comes alone.
 *
 * Key of an inbox record: the provider's `email_id`, so that a second webhook for the same mail adds
 * nothing, while a copy of a message under another `email_id` stands for itself (a Message-ID is the
 * sender's choice and never a key).
 */
import { z } from 'zod';
import type { Recipient } from '../mail/address.ts';
import type { MailWork } from '../mail/mail-work.ts';
import { createBudget } from '../platform/budget.ts';
import type { Budget } from '../platform/budget.ts';
import { hasCode } from '../platform/errors.ts';
import type { LiveTools } from '../streams/live-tools.ts';
import { jsonRecord, streamNames } from '../streams/records.ts';
import type { DeliveryRecord } from '../streams/records.ts';
import type { Attempt, Outcome, Output } from '../streams/stage.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { inboxRecord } from './inbox-record.ts';
import type { InboxFields } from './inbox-record.ts';
import { createKeepMail } from './kept-mail.ts';
import type { InboundProvider, KeptMail, Routes } from './kept-mail.ts';
import { providerEvent, recipientsOf } from './provider-event.ts';
import type { Arrival, Delivery } from './provider-event.ts';

export interface ReceiveOptions {
  /** Our domains, normalised. */
  domains: readonly string[];
  /** After so many attempts in a row at a content that the provider does not know it is parked. */
  maxMissingAttempts?: number;
}

const DEFAULT_MISSING_ATTEMPTS = 12;
/** Of raw messages at once. Copies on the way, and the parser, take a few times as much of the largest. */
const MEMORY_BYTES = 128 * 1024 * 1024;
/** A mail up to this size waits for nobody: sixteen of them are little. */
const UNCOUNTED_BYTES = 1024 * 1024;
/** Mails whose content is missing that are counted; beyond, the count of the oldest begins anew. */
const MAX_COUNTED_MAILS = 10_000;
/** An event that comes so much later than its mail says when that was. */
const LATE_WEBHOOK_MS = 60_000;

export function createReceive(
  deps: {
    store: StreamStore;
    inbound: InboundProvider;
    tools: LiveTools;
    mailWork: Pick<MailWork, 'parseMessage'>;
    /** Bytes of raw messages in memory. Default: of its own. */
    memory?: Budget;
  },
  options: ReceiveOptions,
): (record: StreamRecord, attempt: Attempt) => Promise<Outcome> {
  const { tools, mailWork, memory = createBudget(MEMORY_BYTES) } = deps;
  const keepMail = createKeepMail(deps);
  const isMissingForGood = createMissingCount(options.maxMissingAttempts ?? DEFAULT_MISSING_ATTEMPTS);

  async function receiveEmail(arrival: Arrival, record: StreamRecord, attempt: Attempt): Promise<Outcome> {
    const { data } = arrival;
    const emailId = data.email_id.toLowerCase();
    const recipients = recipientsOf(arrival, options.domains);
    if (recipients.length === 0) return { kind: 'skipped', reason: 'foreign-domain', facts: { emailId } };
    const { inboxes: served } = await tools.live(attempt.signal);
    // Until this mail is done.
    using taken = new DisposableStack();
    const reserve = async (bytes: number): Promise<void> => {
      if (bytes > UNCOUNTED_BYTES) taken.use(await memory.take(bytes, attempt.signal));
    };
    let kept: KeptMail;
    try {
      kept = await keepMail({ emailId, recipients, served, reserve }, attempt.signal);
      isMissingForGood(emailId, null);
    } catch (error) {
      if (!isMissingForGood(emailId, error)) throw error;
      return { kind: 'dead-letter', reason: 'receive.content_missing', error, facts: { emailId } };
    }
    const email = await mailWork.parseMessage(kept.raw, recipients[0]?.inbox ?? '');
    const receivedAt = new Date(record.timestampMs).toISOString();
    const arrived = arrivedLongBefore(record, data.created_at ?? arrival.created_at);
    const base = { emailId, receivedAt, ...arrived, raw: kept.pointer, email };
    const outputs = recipients.map((recipient) => outputFor(recipient, base, kept.routes));
    return { kind: 'done', outputs, facts: { emailId, to: outputs.map(({ stream }) => stream) } };
  }

  return async (record, attempt) => {
    const event = providerEvent(record);
    if (event.kind === 'arrival') return receiveEmail(event.arrival, record, attempt);
    if (event.kind === 'unknown')
      return { kind: 'skipped', reason: 'unknown-event', facts: { type: event.type.slice(0, 100) } };
    return {
      kind: 'done',
      outputs: [{ stream: streamNames.delivery, record: deliveryRecord(event.delivery, record) }],
    };
  };
}

/**
 * Says of an attempt whether the content has been missing so many times in a row: the attempts of the stage count every
 * failure, and after an outage of an hour the first moment without the content would be the last. A restart begins anew.
 */
function createMissingCount(maxInARow: number): (emailId: string, error: unknown) => boolean {
  const counts = new Map<string, number>();
  return (emailId, error) => {
    const inARow = hasCode(error, 'resend.content_missing') ? (counts.get(emailId) ?? 0) + 1 : 0;
    counts.delete(emailId);
    if (inARow >= maxInARow) return true;
    if (inARow > 0) counts.set(emailId, inARow);
    const [oldest] = counts.keys();
    if (counts.size > MAX_COUNTED_MAILS && oldest !== undefined) counts.delete(oldest);
    return false;
  };
}

/** When the provider had the mail, where that was long before its webhook came: it was down for us, or posted it again. */
function arrivedLongBefore(record: StreamRecord, at: string | undefined): { arrivedAt?: string } {
  const arrivedMs = at === undefined ? NaN : Date.parse(at);
  if (!(record.timestampMs - arrivedMs > LATE_WEBHOOK_MS)) return {};
  return { arrivedAt: new Date(arrivedMs).toISOString() };
}

/** The record for one recipient, on the stream of the inbox that serves it. */
function outputFor(
  recipient: Recipient,
  fields: Omit<InboxFields, 'inbox' | 'tag' | 'address'>,
  routes: Routes,
): Output {
  const { inbox, tag, address } = recipient;
  const by = inbox === null ? null : routes.get(inbox);
  // Several names of one mail can meet on the same stream unless each has its own: there the address belongs to the key.
  const key = by === inbox ? fields.emailId : `${fields.emailId}/${address}`;
  const stream = by ? streamNames.inbox(by) : streamNames.unrouted;
  return { stream, record: inboxRecord({ ...fields, inbox: inbox ?? '', tag, address }, key) };
}

const tagListSchema = z
  .union([
    z.record(z.string(), z.string()),
    z
      .array(z.object({ name: z.string(), value: z.string() }))
      .transform((tags) => Object.fromEntries(tags.map(({ name, value }) => [name, value]))),
  ])
  .catch({});

function deliveryRecord(event: Delivery, record: StreamRecord): Output['record'] {
  const { email_id: providerId, message_id: messageId, to, tags, ...details } = event.data;
  const delivery: DeliveryRecord = {
    kind: 'delivery',
    version: 1,
    event: event.type.slice('email.'.length),
    providerId,
    messageId: messageId ?? null,
    to,
    tags: tagListSchema.parse(tags),
    at: event.created_at ?? new Date(record.timestampMs).toISOString(),
    details,
  };
  return jsonRecord(delivery, `delivery/${record.seqNum}`);
}
