/**
 * The arrival of an email as its event tells it, for whoever lists mail: read leniently and cut, because a webhook
 * repeats what a sender chose.
 */
import { z } from 'zod';
import { headerOf } from '../streams/records.ts';
import { jsonOf } from '../streams/stream-scan.ts';
import type { StreamRecord } from '../streams/stream-store.ts';

export interface ArrivedMail {
  readonly emailId: string;
  /** On `events`. */
  readonly seqNum: number;
  readonly at: string;
  readonly from: string;
  /** Whom of ours it is for, where the event says that. */
  readonly to: readonly string[];
  readonly subject: string;
  readonly messageId: string | null;
  /** A person wrote it in the local mailbox. */
  readonly isLocal: boolean;
}

const MAX_RECIPIENTS = 50;
const MAX_FIELD_CHARS = 1000;

const field = z
  .string()
  .nullish()
  .transform((value) => (value ?? '').slice(0, MAX_FIELD_CHARS).toWellFormed());
const addresses = z
  .array(z.string().transform((value) => value.slice(0, MAX_FIELD_CHARS).toWellFormed()))
  .nullish()
  .transform((list) => (list ?? []).slice(0, MAX_RECIPIENTS));

const eventSchema = z.object({
  type: z.literal('email.received'),
  data: z.object({
    email_id: z.string().min(1).max(128),
    from: field,
    to: addresses,
    received_for: addresses,
    subject: field,
    message_id: field,
  }),
});

/** Null for every other event. */
export function arrivalOf(record: StreamRecord): ArrivedMail | null {
  const data = eventSchema.safeParse(jsonOf(record)).data?.data;
  if (!data) return null;
  return {
    emailId: data.email_id.toLowerCase(),
    seqNum: record.seqNum,
    at: new Date(record.timestampMs).toISOString(),
    from: data.from,
    to: data.received_for.length > 0 ? data.received_for : data.to,
    subject: data.subject,
    messageId: data.message_id || null,
    isLocal: headerOf(record, 'svix-id')?.startsWith('local_') ?? false,
  };
}
