/**
 * An email as the rest of the project knows it: the parsed inbound message and the outbound provider request.
 *
 * These are the shapes that stand in stream records, so a change here is a change of the record format.
 * Parsing a raw message is `message.ts`; composing a request is `reply.ts`.
 */
import { z } from 'zod';
import { onceForEach } from '../platform/once-for-each.ts';

export const mailboxSchema = z.object({ name: z.string(), address: z.string() });

const attachmentSchema = z.object({
  /** Its place among the message's attachments, from 0: how its bytes are asked for. */
  index: z.number().int().nonnegative(),
  filename: z.string().nullable(),
  contentType: z.string(),
  disposition: z.enum(['attachment', 'inline']).nullable(),
  contentId: z.string().nullable(),
  /** Bytes, decoded. */
  size: z.number().int().nonnegative(),
});

export const parsedEmailSchema = z.object({
  from: mailboxSchema.nullable(),
  replyTo: z.array(mailboxSchema),
  to: z.array(mailboxSchema),
  cc: z.array(mailboxSchema),
  subject: z.string(),
  text: z.string(),
  html: z.string().nullable(),
  newText: z.string(),
  /** All header fields in order, unfolded; names as written. */
  headers: z.array(z.tuple([z.string(), z.string()])),
  attachments: z.array(attachmentSchema),
  messageId: z.string().nullable(),
  references: z.array(z.string()),
  /** ISO 8601, as the sender claims; never used for ordering. */
  date: z.string().nullable(),
});

/** What `mail/message.ts` makes of a raw message. */
export type ParsedEmail = z.infer<typeof parsedEmailSchema>;
export type Mailbox = z.infer<typeof mailboxSchema>;

/** The complete body of Resend's `POST /emails`, as the `resend` SDK takes it. Attachments are base64. */
export const providerRequestSchema = z.object({
  from: z.string(),
  /** One address, or a list of them where the mail goes to several. */
  to: z.union([z.string(), z.array(z.string())]),
  cc: z.array(z.string()).optional(),
  bcc: z.array(z.string()).optional(),
  replyTo: z.string().optional(),
  subject: z.string(),
  text: z.string(),
  html: z.string().optional(),
  headers: z.record(z.string(), z.string()),
  attachments: z
    .array(
      z.object({
        filename: z.string(),
        content: z.string(),
        contentType: z.string().optional(),
        contentId: z.string().optional(),
      }),
    )
    .optional(),
  tags: z.array(z.object({ name: z.string(), value: z.string() })).optional(),
});
export type ProviderRequest = z.infer<typeof providerRequestSchema>;

/** Everybody who gets the mail, with Cc and Bcc. */
export function allRecipients(request: Pick<ProviderRequest, 'to' | 'cc' | 'bcc'>): string[] {
  return [...[request.to].flat(), ...(request.cc ?? []), ...(request.bcc ?? [])];
}

type HeaderFields = Pick<ParsedEmail, 'headers'>;

/** A dozen checks look at the fields of every mail. */
const fieldsByName = onceForEach(({ headers }: HeaderFields): ReadonlyMap<string, readonly string[]> => {
  const grouped = Map.groupBy(headers, ([field]) => field.toLowerCase());
  return new Map(Array.from(grouped, ([field, all]) => [field, all.map(([, value]) => value)]));
});

/** The values of all header fields of this name (in lower case), in order. */
export function headerValues(email: HeaderFields, name: string): readonly string[] {
  return fieldsByName(email).get(name) ?? [];
}
