/**
 * Receive: `events` → `mail/<email_id>`, `inbox/<name>`, `delivery`. The handler of the receive stage.
 *
 * For `email.received` it fetches the raw message (once: what lies complete in `mail/<email_id>` is not
 * fetched again), parses it, and gives one record to each inbox of ours that the mail names. A delivery
 * event becomes a record on `delivery`. Everything else is settled as skipped, with the reason:
 * `unknown-event`, `foreign-domain`.
 *
 * Key of an inbox record: the provider's `email_id`, so that a second webhook for the same mail adds
 * nothing, while a copy of a message under another `email_id` stands for itself (a Message-ID is the
 * sender's choice and never a key).
 */
import { z } from 'zod';
import { routeRecipients } from '../mail/address.ts';
import type { Recipient } from '../mail/address.ts';
import type { ParsedEmail } from '../mail/email.ts';
import type { MailWork } from '../mail/mail-work.ts';
import { MillraceError, hasCode } from '../platform/errors.ts';
import { findBlob, readBlob, writeBlob } from '../streams/blob.ts';
import { DEFAULT_INBOX } from '../streams/live-tools.ts';
import type { LiveTools } from '../streams/live-tools.ts';
import { jsonRecord, streamNames } from '../streams/records.ts';
import type { BlobPointer, DeliveryRecord, InboxRecord } from '../streams/records.ts';
import type { Attempt, Outcome, Output } from '../streams/stage.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';

/** Where the raw message comes from. */
export interface InboundProvider {
  /** The raw MIME of a received email; `resend.content_missing` (transient) while there is none. */
  rawMessage(emailId: string, signal: AbortSignal): Promise<Uint8Array>;
}

export interface ReceiveOptions {
  /** Our domains, normalised. */
  domains: readonly string[];
  /** After so many attempts a content that the provider does not know is parked. */
  maxMissingAttempts?: number;
}

const DEFAULT_MISSING_ATTEMPTS = 12;
/** A parsed email larger than this is cut for its record; the raw message has the rest. */
const MAX_INLINE_BYTES = 700 * 1024;
/** An event that comes so much later than its mail says when that was. */
const LATE_WEBHOOK_MS = 60_000;
const CUT_TEXT_CHARS = 32 * 1024;
const CUT_HEADERS = 100;
const CUT_HEADER_CHARS = 1000;
const CUT_ATTACHMENTS = 200;

const addressesSchema = z
  .array(z.string())
  .nullish()
  .transform((list) => list ?? []);

const receivedEventSchema = z.object({
  type: z.literal('email.received'),
  created_at: z.string().optional(),
  data: z.object({
    created_at: z.string().nullish(),
    email_id: z.guid(),
    to: addressesSchema,
    cc: addressesSchema,
    bcc: addressesSchema,
    received_for: addressesSchema,
  }),
});
type ReceivedEvent = z.infer<typeof receivedEventSchema>;

const deliveryEventSchema = z.object({
  type: z.string().startsWith('email.'),
  created_at: z.string().optional(),
  data: z.looseObject({
    email_id: z.string().max(256),
    message_id: z.string().nullish(),
    to: addressesSchema,
    tags: z.unknown(),
  }),
});

export function createReceive(
  deps: {
    store: StreamStore;
    inbound: InboundProvider;
    tools: LiveTools;
    mailWork: Pick<MailWork, 'parseMessage'>;
  },
  options: ReceiveOptions,
): (record: StreamRecord, attempt: Attempt) => Promise<Outcome> {
  const { store, inbound, tools, mailWork } = deps;
  const maxMissingAttempts = options.maxMissingAttempts ?? DEFAULT_MISSING_ATTEMPTS;

  async function receiveEmail(
    event: ReceivedEvent,
    record: StreamRecord,
    attempt: Attempt,
  ): Promise<Outcome> {
    const { data } = event;
    const emailId = data.email_id.toLowerCase();
    const recipients = routeRecipients(
      { receivedFor: data.received_for, to: data.to, cc: data.cc, bcc: data.bcc },
      options.domains,
    );
    if (recipients.length === 0) return { kind: 'skipped', reason: 'foreign-domain', facts: { emailId } };
    const live = await tools.live(attempt.signal);
    let content: { raw: Uint8Array; pointer: BlobPointer };
    try {
      content = await fetchOnce(emailId, attempt.signal);
    } catch (error) {
      if (!hasCode(error, 'resend.content_missing') || attempt.number < maxMissingAttempts) throw error;
      return { kind: 'dead-letter', reason: 'receive.content_missing', error, facts: { emailId } };
    }
    const email = await mailWork.parseMessage(content.raw);
    const receivedAt = new Date(record.timestampMs).toISOString();
    const arrived = arrivedLongBefore(record, data.created_at ?? event.created_at);
    const base = { emailId, receivedAt, ...arrived, raw: content.pointer, email };
    const outputs = recipients.map((recipient) => outputFor(recipient, base, live.inboxes));
    return { kind: 'done', outputs, facts: { emailId, to: outputs.map(({ stream }) => stream) } };
  }

  async function fetchOnce(
    emailId: string,
    signal: AbortSignal,
  ): Promise<{ raw: Uint8Array; pointer: BlobPointer }> {
    const stream = store.stream(streamNames.mail(emailId));
    const kept = await findBlob(stream);
    if (kept) return { raw: await readBlob(store, kept, signal), pointer: kept };
    const raw = await inbound.rawMessage(emailId, signal);
    return { raw, pointer: await writeBlob(stream, raw) };
  }

  return async (record, attempt) => {
    const event = parseEvent(record);
    const received = receivedEventSchema.safeParse(event);
    if (received.success) return receiveEmail(received.data, record, attempt);
    if (event.type === 'email.received') {
      throw new MillraceError(
        'permanent',
        'receive.malformed_event',
        `email.received of an unknown shape: ${z.prettifyError(received.error)}`,
      );
    }
    const delivery = deliveryEventSchema.safeParse(event);
    if (!delivery.success)
      return { kind: 'skipped', reason: 'unknown-event', facts: { type: event.type.slice(0, 100) } };
    return {
      kind: 'done',
      outputs: [{ stream: streamNames.delivery, record: deliveryRecord(delivery.data, record) }],
    };
  };
}

/** When the provider had the mail, where that was long before its webhook came: it was down for us, or posted it again. */
function arrivedLongBefore(record: StreamRecord, at: string | undefined): { arrivedAt?: string } {
  const arrivedMs = at === undefined ? NaN : Date.parse(at);
  if (!(record.timestampMs - arrivedMs > LATE_WEBHOOK_MS)) return {};
  return { arrivedAt: new Date(arrivedMs).toISOString() };
}

function parseEvent(record: StreamRecord): { type: string } {
  try {
    return z.looseObject({ type: z.string() }).parse(JSON.parse(Buffer.from(record.body).toString('utf8')));
  } catch (cause) {
    throw new MillraceError(
      'permanent',
      'receive.malformed_event',
      `event ${record.seqNum} is not an object with a type`,
      { cause },
    );
  }
}

type InboxFields = Omit<InboxRecord, 'kind' | 'version' | 'complete'>;

/** The record for one recipient, on the stream of the inbox that serves it. */
function outputFor(
  recipient: Recipient,
  fields: Omit<InboxFields, 'inbox' | 'tag' | 'address'>,
  served: readonly string[],
): Output {
  const { inbox, tag, address } = recipient;
  const by = inbox === null ? null : [inbox, DEFAULT_INBOX].find((name) => served.includes(name));
  // Several names of one mail can meet on the same stream unless each has its own: there the address belongs to the key.
  const key = by === inbox ? fields.emailId : `${fields.emailId}/${address}`;
  const stream = by ? streamNames.inbox(by) : streamNames.unrouted;
  return { stream, record: inboxRecord({ ...fields, inbox: inbox ?? '', tag, address }, key) };
}

/** The record for one inbox; what does not fit is cut and said to be. */
function inboxRecord(fields: InboxFields, key: string): Output['record'] {
  const { text, html } = fields.email;
  // Tens of megabytes are not made into JSON only to see that they are too many.
  if (text.length + (html?.length ?? 0) <= MAX_INLINE_BYTES) {
    const whole = jsonRecord({ kind: 'email', version: 1, ...fields, complete: true }, key);
    if (Buffer.byteLength(whole.body) <= MAX_INLINE_BYTES) return whole;
  }
  return jsonRecord(
    { kind: 'email', version: 1, ...fields, email: cutEmail(fields.email), complete: false },
    key,
  );
}

function cutEmail(email: ParsedEmail): ParsedEmail {
  return {
    ...email,
    text: email.text.slice(0, CUT_TEXT_CHARS),
    newText: email.newText.slice(0, CUT_TEXT_CHARS),
    html: null,
    subject: email.subject.slice(0, CUT_HEADER_CHARS),
    headers: email.headers
      .slice(0, CUT_HEADERS)
      .map(([name, value]) => [name.slice(0, CUT_HEADER_CHARS), value.slice(0, CUT_HEADER_CHARS)]),
    to: email.to.slice(0, CUT_HEADERS),
    cc: email.cc.slice(0, CUT_HEADERS),
    attachments: email.attachments.slice(0, CUT_ATTACHMENTS),
  };
}

const tagListSchema = z
  .union([
    z.record(z.string(), z.string()),
    z
      .array(z.object({ name: z.string(), value: z.string() }))
      .transform((tags) => Object.fromEntries(tags.map(({ name, value }) => [name, value]))),
  ])
  .catch({});

function deliveryRecord(event: z.infer<typeof deliveryEventSchema>, record: StreamRecord): Output['record'] {
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
