/**
 * What a forwarded email looks like: what the tool says, a line, who wrote what to whom, and the email's own
 * text. In HTML where the email or the tool has some; everything that stands beside it there is escaped.
 */
import type { Mailbox, ParsedEmail } from './email.ts';
import { oneLine } from './header-field.ts';
import { escapeHtml } from './reply-html.ts';

const LINE = '---------- Forwarded message ----------';
/** Of a list of addresses that is shown. */
const MAX_SHOWN_MAILBOXES = 20;

interface Note {
  text?: string | null | undefined;
  html?: string | null | undefined;
}

export function forwardedText(email: ParsedEmail, note: string | null | undefined): string {
  const fields = fieldsOf(email).map(([name, value]) => `${name}: ${value}`);
  return [...(note ? [note, ''] : []), LINE, ...fields, '', email.text].join('\n');
}

/** Null where neither has any HTML. */
export function forwardedHtml(email: ParsedEmail, note: Note): string | null {
  if (email.html === null && !note.html) return null;
  const fields = fieldsOf(email).map(([name, value]) => `${name}: ${escapeHtml(value)}<br>`);
  const said = note.html || paragraphs(note.text ?? '');
  const original = email.html ?? paragraphs(email.text);
  return `${said}<p>${LINE}<br>${fields.join('')}</p>${original}`;
}

function fieldsOf(email: ParsedEmail): [name: string, value: string][] {
  const { from, to, cc, subject, date } = email;
  const fields: [string, string][] = [
    ['From', shown(from ? [from] : [])],
    ['Date', date ?? ''],
    ['Subject', oneLine(subject)],
    ['To', shown(to)],
    ['Cc', shown(cc)],
  ];
  return fields.filter(([, value]) => value !== '');
}

function shown(mailboxes: readonly Mailbox[]): string {
  const names = mailboxes
    .slice(0, MAX_SHOWN_MAILBOXES)
    .map(({ name, address }) => (name === '' ? address : `${oneLine(name)} <${address}>`));
  const hidden = mailboxes.length - names.length;
  return names.join(', ') + (hidden > 0 ? ` and ${hidden} more` : '');
}

function paragraphs(text: string): string {
  return text === '' ? '' : `<p>${escapeHtml(text).replaceAll('\n', '<br>')}</p>`;
}
