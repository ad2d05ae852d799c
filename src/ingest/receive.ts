/**
 * Receive: `events` → `mail/<email_id>`, `inbox/<name>`, `delivery`. The handler of the receive stage.
 *
 * For `email.received` it has the raw message kept and the routes decided, each once (`kept-mail.ts`), parses the
 * message, and gives one record to each inbox of ours that the mail names. A delivery event becomes a record on
 * `delivery`. Everything else is settled as skipped, with the reason: `unknown-event`, `foreign-domain`.
 *
 * What was there before this process is read apart (`mailWork`): the one before may have hung or ended over it, and this
 * one must not (docs/adr/0051-mail-that-ends-a-process.md). What comes while it runs is read where that is cheapest.
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
import { MillraceError, hasCode } from '../platform/errors.ts';
import type { LiveTools } from '../streams/live-tools.ts';
import { jsonRecord, streamNames } from '../streams/records.ts';
import type { DeliveryRecord } from '../streams/records.ts';
import type { Attempt, Outcome, Output } from '../streams/stage.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { fittedMail, inboxRecord } from './inbox-record.ts';
import type { FittedMail } from './inbox-record.ts';
import { createKeepMail } from './kept-mail.ts';
import type { InboundProvider, KeptMail, Routes } from './kept-mail.ts';
import { providerEvent, recipientsOf } from './provider-event.ts';
import type { Arrival, Delivery } from './provider-event.ts';

export interface ReceiveOptions {
  /** Our domains, normalised. */
  domains: readonly string[];
  /** After so many attempts in a row at a content that the provider does not know it is parked. */
  maxMissingAttempts?: number;
  /** After so many at a content that it does not give, between which it gave that of other mail. */
  maxFailedAttempts?: number;
}

const DEFAULT_MISSING_ATTEMPTS = 12;
/** With waits of up to a minute one and a half hours and more. */
const DEFAULT_FAILED_ATTEMPTS = 120;
/** What a provider that is down says of every mail, and of one whose content it cannot give. */
const FAILURES: readonly string[] = ['resend.unavailable', 'resend.download_failed', 'resend.busy'];
/** Of raw messages at once. Copies on the way, and the parser, take a few times as much of the largest. */
const MEMORY_BYTES = 128 * 1024 * 1024;
/** A mail up to this size waits for nobody: sixteen of them are little. */
const UNCOUNTED_BYTES = 1024 * 1024;
/** Mails whose content does not come that are counted; beyond, the count of the oldest begins anew. */
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
  const contents = createContentCount({
    maxMissing: options.maxMissingAttempts ?? DEFAULT_MISSING_ATTEMPTS,
    maxFailed: options.maxFailedAttempts ?? DEFAULT_FAILED_ATTEMPTS,
  });
  const wasThereBefore = createThereBefore(deps.store);
  const keepMail = createKeepMail({ store: deps.store, inbound: contents.counted(deps.inbound) });

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
    } catch (error) {
      if (!contents.isGivenUp(emailId, error)) throw error;
      const reason = hasCode(error, 'resend.content_missing')
        ? 'receive.content_missing'
        : 'receive.content_withheld';
      return { kind: 'dead-letter', reason, error, facts: { emailId } };
    }
    const isApart = await wasThereBefore(record, attempt.signal);
    const email = await mailWork.parseMessage(kept.raw, recipients[0]?.inbox ?? '', { isApart });
    const receivedAt = new Date(record.timestampMs).toISOString();
    const arrived = arrivedLongBefore(record, data.created_at ?? arrival.created_at);
    const fields = { emailId, receivedAt, ...arrived, raw: kept.pointer, email };
    const mail = fittedMail(fields, recipients.length);
    const outputs = recipients.map((recipient) => outputFor(recipient, mail, kept.routes));
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

/** Tells the events that were on the stream when this was made. */
function createThereBefore(
  store: StreamStore,
): (record: StreamRecord, signal: AbortSignal) => Promise<boolean> {
  const ask = (signal?: AbortSignal): Promise<number> => store.stream(streamNames.events).tail(signal);
  // A store that cannot say now is asked again by the first mail, which then counts as one of them.
  let firstNew = ask().catch(() => null);
  return async ({ seqNum }, signal) => {
    const known = await firstNew;
    if (known !== null) return seqNum < known;
    const tail = await ask(signal);
    firstNew = Promise.resolve(tail);
    return seqNum < tail;
  };
}

interface ContentCount {
  /** Notes what it gives. */
  counted(inbound: InboundProvider): InboundProvider;
  /** Of a mail whose attempt has just failed: its content is waited for no longer. */
  isGivenUp(emailId: string, error: unknown): boolean;
}

/**
 * Counts, for each mail, what says that its content is not going to come. The attempts of the stage count every failure:
 * after an outage of an hour the first moment without the content would be the last. So it counts in a row how often
 * the provider did not know the mail; and how often it failed, but only where it has given another mail's content since
 * the last time: while it is down for all, nobody is given up. A restart begins anew.
 */
function createContentCount(limits: { maxMissing: number; maxFailed: number }): ContentCount {
  const counts = new Map<string, { missing: number; failed: number; givenThen: number }>();
  let given = 0;
  return {
    counted: (inbound) => ({
      async rawMessage(emailId, ...asked) {
        const raw = await inbound.rawMessage(emailId, ...asked);
        given += 1;
        counts.delete(emailId);
        return raw;
      },
    }),
    isGivenUp(emailId, error) {
      const before = counts.get(emailId) ?? { missing: 0, failed: 0, givenThen: given };
      const isFailure = error instanceof MillraceError && FAILURES.includes(error.code);
      const count = {
        missing: hasCode(error, 'resend.content_missing') ? before.missing + 1 : 0,
        failed: before.failed + (isFailure && before.givenThen < given ? 1 : 0),
        givenThen: given,
      };
      counts.delete(emailId);
      if (count.missing >= limits.maxMissing || count.failed >= limits.maxFailed) return true;
      if (isFailure || count.missing + count.failed > 0) counts.set(emailId, count);
      const [oldest] = counts.keys();
      if (counts.size > MAX_COUNTED_MAILS && oldest !== undefined) counts.delete(oldest);
      return false;
    },
  };
}

/** When the provider had the mail, where that was long before its webhook came: it was down for us, or posted it again. */
function arrivedLongBefore(record: StreamRecord, at: string | null | undefined): { arrivedAt?: string } {
  const arrivedMs = at == null ? NaN : Date.parse(at);
  if (!(record.timestampMs - arrivedMs > LATE_WEBHOOK_MS)) return {};
  return { arrivedAt: new Date(arrivedMs).toISOString() };
}

/** The record for one recipient, on the stream of the inbox that serves it. */
function outputFor(recipient: Recipient, mail: FittedMail, routes: Routes): Output {
  const { inbox, tag, address } = recipient;
  const by = inbox === null ? null : routes.get(inbox);
  // Several names of one mail can meet on the same stream unless each has its own: there the address belongs to the key.
  const key = by === inbox ? mail.emailId : `${mail.emailId}/${address}`;
  const stream = by ? streamNames.inbox(by) : streamNames.unrouted;
  return { stream, record: inboxRecord(mail, { inbox: inbox ?? '', tag, address }, key) };
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
