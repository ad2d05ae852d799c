/**
 * The record of an email for one inbox. It always fits into a record of the store, whatever the email: what does not is
 * cut and said to be (`complete: false`), and who needs the rest reads the raw message.
 */
import type { ParsedEmail } from '../mail/email.ts';
import { jsonRecord } from '../streams/records.ts';
import type { InboxRecord } from '../streams/records.ts';
import type { NewRecord } from '../streams/stream-store.ts';

/** A record may take 1 MiB with its headers, and the stage adds to them. */
const MAX_BODY_BYTES = 700 * 1024;
/** What a cut email keeps at most. As JSON a character is up to six bytes, so each is halved until all fits. */
const CUT = {
  textChars: 32 * 1024,
  fields: 100,
  fieldChars: 1000,
  addresses: 100,
  attachments: 200,
} as const;
type Cut = Record<keyof typeof CUT, number>;

export type InboxFields = Omit<InboxRecord, 'kind' | 'version' | 'complete'>;

export function inboxRecord(fields: InboxFields, key: string): NewRecord {
  const { text, html } = fields.email;
  // Tens of megabytes are not made into JSON only to see that they are too many.
  if (text.length + (html?.length ?? 0) <= MAX_BODY_BYTES) {
    const whole = jsonRecord({ kind: 'email', version: 1, ...fields, complete: true }, key);
    if (fits(whole)) return whole;
  }
  let cut: Cut = CUT;
  let record = cutRecord(fields, key, cut);
  // It ends: with nothing left of all that is counted, the rest of an email is a few kilobytes.
  while (!fits(record) && Object.values(cut).some((count) => count > 0)) {
    cut = halved(cut);
    record = cutRecord(fields, key, cut);
  }
  return record;
}

function fits({ body }: NewRecord): boolean {
  return Buffer.byteLength(body) <= MAX_BODY_BYTES;
}

function cutRecord(fields: InboxFields, key: string, cut: Cut): NewRecord {
  const email = cutEmail(fields.email, cut);
  return jsonRecord({ kind: 'email', version: 1, ...fields, email, complete: false }, key);
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
    // The first one names the conversation, by which mail is ordered.
    references: email.references.slice(0, Math.max(1, cut.addresses)),
    attachments: email.attachments.slice(0, cut.attachments),
  };
}

/** The cut may fall between the halves of a character. */
function cutText(text: string, chars: number): string {
  return text.slice(0, chars).toWellFormed();
}
