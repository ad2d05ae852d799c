/**
 * The record of an email for one inbox. It always fits into a record of the store, whatever the email, and all those of
 * one mail into memory, however many inboxes it is for: what does not is cut and said to be (`complete: false`), and who
 * needs the rest reads the raw message.
 */
import type { ParsedEmail } from '../mail/email.ts';
import { namedRoot } from '../mail/thread.ts';
import { jsonRecord } from '../streams/records.ts';
import type { InboxRecord } from '../streams/records.ts';
import type { NewRecord } from '../streams/stream-store.ts';

/** A record may take 1 MiB with its headers, and the stage adds to them. */
const MAX_BODY_BYTES = 700 * 1024;
/** All records of one mail together: a sender chooses how many inboxes it is for, and they are in memory at once. */
const MAX_MAIL_BYTES = 8 * 1024 * 1024;
/** An inbox, its address and the kind of the record; none of them can be longer than an address. */
const RECIPIENT_BYTES = 2 * 1024;
/** What a cut email keeps at most. As JSON a character is up to six bytes, so each is halved until all fits. */
const CUT = {
  textChars: 32 * 1024,
  fields: 100,
  fieldChars: 1000,
  addresses: 100,
  attachments: 200,
} as const;
type Cut = Record<keyof typeof CUT, number>;

/** Whom one record of a mail is for. */
export type RecordRecipient = Pick<InboxRecord, 'inbox' | 'tag' | 'address'>;
/** What the records of a mail have in common. */
export type MailFields = Omit<InboxRecord, 'kind' | 'version' | 'complete' | keyof RecordRecipient>;
export type FittedMail = MailFields & Pick<InboxRecord, 'complete'>;

/** The mail as its records have it: cut once for all of them, since what comes to a thousand names is a thousand records. */
export function fittedMail(fields: MailFields, recipients: number): FittedMail {
  const maxBytes = Math.min(MAX_BODY_BYTES, Math.floor(MAX_MAIL_BYTES / recipients)) - RECIPIENT_BYTES;
  const fits = (mail: FittedMail): boolean => Buffer.byteLength(JSON.stringify(mail)) <= maxBytes;
  const { text, html } = fields.email;
  // Tens of megabytes are not made into JSON only to see that they are too many.
  if (text.length + (html?.length ?? 0) <= maxBytes) {
    const whole = { ...fields, complete: true };
    if (fits(whole)) return whole;
  }
  let cut: Cut = CUT;
  let mail = cutMail(fields, cut);
  // It ends: with nothing left of all that is counted, the rest of an email is a few kilobytes.
  while (!fits(mail) && Object.values(cut).some((count) => count > 0)) {
    cut = halved(cut);
    mail = cutMail(fields, cut);
  }
  return mail;
}

export function inboxRecord(mail: FittedMail, recipient: RecordRecipient, key: string): NewRecord {
  return jsonRecord({ kind: 'email', version: 1, ...recipient, ...mail }, key);
}

function cutMail(fields: MailFields, cut: Cut): FittedMail {
  return { ...fields, email: cutEmail(fields.email, cut), complete: false };
}

function halved(cut: Cut): Cut {
  const entries = Object.entries(cut).map(([name, count]) => [name, Math.floor(count / 2)]);
  return Object.fromEntries(entries) as Cut;
}

function cutEmail(email: ParsedEmail, cut: Cut): ParsedEmail {
  return {
    ...email,
    text: cutText(email.text, cut.textChars),
    newText: cutText(email.newText, cut.textChars),
    html: null,
    subject: cutText(email.subject, cut.fieldChars),
    headers: email.headers
      .slice(0, cut.fields)
      .map(([name, value]) => [cutText(name, cut.fieldChars), cutText(value, cut.fieldChars)]),
    to: email.to.slice(0, cut.addresses),
    cc: email.cc.slice(0, cut.addresses),
    replyTo: email.replyTo.slice(0, cut.addresses),
    references: cutReferences(email, cut),
    attachments: email.attachments.slice(0, cut.attachments),
  };
}

/** The first one names the conversation, by which mail is ordered: also where only a field did that is cut off. */
function cutReferences(email: ParsedEmail, cut: Cut): string[] {
  const root = namedRoot(email);
  return root === null ? [] : [root, ...email.references.slice(1, cut.addresses)];
}

/** The cut may fall between the halves of a character. */
function cutText(text: string, chars: number): string {
  return text.slice(0, chars).toWellFormed();
}
