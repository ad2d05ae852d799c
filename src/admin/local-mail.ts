/**
 * Mail from "outside" without an outside: takes a raw message as if Resend had received it, and composes one
 * from the fields of a form.
 *
 * What `deliver` leaves on the streams is what a webhook leaves: the same event under the same headers. The
 * raw message is complete in `mail/<emailId>` before the event names it, so receive asks nobody for it.
 */
import { z } from 'zod';
import { inboxOf, sendableAddress } from '../mail/address.ts';
import type { ParsedEmail } from '../mail/email.ts';
import { parseMessage } from '../mail/message.ts';
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { writeBlob } from '../streams/blob.ts';
import { KEY_HEADER, streamNames } from '../streams/records.ts';
import type { RecordHeader, StreamStore } from '../streams/stream-store.ts';

/** Resend's limit for a mail, in either direction. */
export const MAX_MESSAGE_BYTES = 40 * 1024 * 1024;
const MAX_RECIPIENTS = 50;
const MAX_SUBJECT_CHARS = 2000;
const MAX_BODY_CHARS = 5 * 1024 * 1024;
const MAX_ATTACHMENTS = 50;
const MAX_REFERENCES = 100;

const address = z
  .string()
  .max(1000, 'is too long')
  .refine((value) => parseSender(value) !== null, 'must be an address such as ann@example.org');
const oneLineText = z.string().regex(/^[^\r\n\0\u2028\u2029]*$/, 'must be on one line');
const messageId = z
  .string()
  .max(900)
  .regex(/^<[\x21-\x3b\x3d\x3f-\x7e]+>$/, 'must be a Message-ID in angle brackets');

/** An email to compose; `to` is one address or several, `references` oldest first. */
const messageSchema = z.object({
  from: address,
  to: z.union([address.transform((one) => [one]), z.array(address).min(1).max(MAX_RECIPIENTS)]),
  subject: oneLineText.max(MAX_SUBJECT_CHARS).default(''),
  text: z.string().max(MAX_BODY_CHARS).default(''),
  html: z.string().max(MAX_BODY_CHARS).optional(),
  inReplyTo: messageId.optional(),
  references: z.array(messageId).max(MAX_REFERENCES).default([]),
  attachments: z
    .array(
      z.object({
        filename: oneLineText.min(1).max(255),
        contentBase64: z.base64(),
        contentType: oneLineText.max(255).optional(),
      }),
    )
    .max(MAX_ATTACHMENTS)
    .default([]),
});

export interface LocalMail {
  /** Our domains, normalised; the first is the main one. */
  readonly domains: readonly string[];
  /**
   * Puts a raw message (RFC 5322, MIME) on its way; durable when it resolves.
   * @param options.recipients the addresses of ours that it is for; default: those in its To and Cc
   * @throws MillraceError `local_mail.too_large`, `local_mail.no_recipient`, `local_mail.empty` (invalid), or
   *   what the store throws
   */
  deliver(raw: Uint8Array, options?: { recipients?: readonly string[] }): Promise<{ emailId: string }>;
  /**
   * A raw message of these fields, with a Message-ID and a Date.
   * @throws MillraceError `local_mail.malformed` (invalid), which lists every fault
   */
  compose(message: unknown): Promise<Uint8Array>;
}

export function createLocalMail(
  deps: { store: StreamStore; clock: Clock; log: Log },
  options: { domains: readonly string[] },
): LocalMail {
  const { store, clock, log } = deps;
  const { domains } = options;

  return {
    domains,
    async deliver(raw, { recipients } = {}) {
      assertSize(raw);
      const email = await parseMessage(raw);
      const receivedFor = recipientsOf(email, { recipients, domains });
      const emailId = clock.uuid();
      await writeBlob(store.stream(streamNames.mail(emailId)), raw);
      const at = new Date(clock.nowMs()).toISOString();
      const body = JSON.stringify(receivedEvent(email, { emailId, receivedFor, at })).toWellFormed();
      const headers: RecordHeader[] = [
        ['kind', 'event'],
        ['version', '1'],
        [KEY_HEADER, `received/${emailId}`],
        ['svix-id', `local_${emailId}`],
        ['type', 'email.received'],
      ];
      await store.stream(streamNames.events).append([{ headers, body }]);
      log.info({ emailId, bytes: raw.length, recipients: receivedFor.length }, 'local_mail.delivered');
      return { emailId };
    },
    async compose(message) {
      const parsed = messageSchema.safeParse(message);
      if (!parsed.success) throw malformed(parsed.error);
      return composeRaw(parsed.data, clock);
    },
  };
}

async function composeRaw(fields: z.output<typeof messageSchema>, clock: Clock): Promise<Uint8Array> {
  const sender = parseSender(fields.from)!;
  const references = [...fields.references, ...(fields.inReplyTo ? [fields.inReplyTo] : [])];
  // Loaded by the first mail that a form composes: it would be a few MB of every daemon.
  const { default: MailComposer } = await import('nodemailer/lib/mail-composer');
  const composer = new MailComposer({
    from: sender,
    to: fields.to.map((recipient) => parseSender(recipient)!),
    subject: fields.subject.toWellFormed(),
    text: fields.text.toWellFormed(),
    ...(fields.html !== undefined && { html: fields.html.toWellFormed() }),
    ...(fields.inReplyTo !== undefined && { inReplyTo: fields.inReplyTo }),
    ...(references.length > 0 && { references: [...new Set(references)] }),
    attachments: fields.attachments.map(({ filename, contentBase64, contentType }) => ({
      filename: filename.toWellFormed(),
      content: Buffer.from(contentBase64, 'base64'),
      ...(contentType !== undefined && { contentType }),
    })),
    messageId: `<${clock.uuid()}@${sender.address.slice(sender.address.lastIndexOf('@') + 1)}>`,
    date: new Date(clock.nowMs()),
    baseBoundary: clock.uuid(),
    newline: 'win',
    // Fields of a form name no file and no URL of ours.
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  return composer.compile().build();
}

/** `Ann <ann@example.org>` or the bare address; null for anything else. */
function parseSender(value: string): { name: string; address: string } | null {
  const match = /^(?<name>[^<>\r\n\0]*)<(?<inner>[^<>]*)>\s*$/.exec(value);
  const bare = sendableAddress((match?.groups?.['inner'] ?? value).trim());
  if (bare === null) return null;
  const name = (match?.groups?.['name'] ?? '').trim().replace(/^"(.*)"$/, '$1');
  return { name: name.toWellFormed(), address: bare };
}

function assertSize(raw: Uint8Array): void {
  if (raw.length === 0) {
    throw new MillraceError('invalid', 'local_mail.empty', 'the message is empty', {
      hint: 'Give a raw message as a mail program saves it (.eml).',
    });
  }
  if (raw.length <= MAX_MESSAGE_BYTES) return;
  throw new MillraceError(
    'invalid',
    'local_mail.too_large',
    `the message has ${raw.length} bytes, at most ${MAX_MESSAGE_BYTES} are taken`,
    { hint: 'Send a smaller attachment: Resend would refuse this mail too.' },
  );
}

/** The envelope: what was asked for, or whom of us the header names. */
function recipientsOf(
  email: ParsedEmail,
  { recipients, domains }: { recipients: readonly string[] | undefined; domains: readonly string[] },
): string[] {
  const named = recipients ?? [...email.to, ...email.cc].map((mailbox) => mailbox.address);
  const ours = named.filter((one) => inboxOf(one, domains) !== null).slice(0, MAX_RECIPIENTS);
  if (ours.length > 0) return [...new Set(ours)];
  const hint = `Mail is taken for ${domains.map((domain) => `…@${domain}`).join(', ')}: name such an address.`;
  const where = recipients ? 'recipients' : 'To and Cc';
  throw new MillraceError('invalid', 'local_mail.no_recipient', `no address of ours among the ${where}`, {
    hint,
  });
}

/** An `email.received` event as Resend sends it: metadata only. */
function receivedEvent(
  email: ParsedEmail,
  { emailId, receivedFor, at }: { emailId: string; receivedFor: string[]; at: string },
) {
  return {
    type: 'email.received',
    created_at: at,
    data: {
      email_id: emailId,
      created_at: at,
      from: email.from?.address ?? '',
      to: email.to.map((mailbox) => mailbox.address),
      bcc: [],
      cc: email.cc.map((mailbox) => mailbox.address),
      received_for: receivedFor,
      message_id: email.messageId ?? '',
      subject: email.subject,
      attachments: email.attachments.map((attachment) => ({
        id: `${emailId}-${attachment.index}`,
        filename: attachment.filename,
        content_type: attachment.contentType,
        content_disposition: attachment.disposition,
        content_id: attachment.contentId,
      })),
    },
  };
}

function malformed(error: z.ZodError): MillraceError {
  const faults = error.issues.map((issue) => `${issue.path.join('.') || 'the message'}: ${issue.message}`);
  return new MillraceError('invalid', 'local_mail.malformed', faults.join('; '), {
    hint: 'Fields: from, to, subject, text, and optionally html, inReplyTo, references, attachments.',
  });
}
