/**
 * Composes the provider requests of mail that a tool sends to others: a mail of its own, or the email that it
 * got, forwarded.
 *
 * Such mail never goes to one of us, because two inboxes that write to each other would not end; it says that a
 * machine made it (RFC 3834), so that what it triggers is answered by no machine; and where it comes back, its
 * marker stops it. How much of it may leave is `reply-caps.ts`'s to say.
 */
import { MillraceError, hasCode } from '../platform/errors.ts';
import { isOwnAddress, normaliseAddress } from './address.ts';
import { assertSize, composeContent, machineHeaders, senderAddress } from './content.ts';
import type { MailAttachment, MailContent } from './content.ts';
import type { ParsedEmail, ProviderRequest } from './email.ts';
import { forwardedHtml, forwardedText } from './forwarded.ts';
import { namedRecipient, replyRecipient } from './recipient.ts';
import { htmlToText } from './text.ts';
import { baseSubject, fitSubject } from './thread.ts';

/** Of one mail, with Cc and Bcc: the provider takes no more. */
const MAX_RECIPIENTS = 50;

/** The tag of a request to several, with how many: what the provider says of it later may be about any of them. */
export const RECIPIENTS_TAG = 'millrace_recipients';

/** As a tool wrote them: bare addresses, or a name and an address. */
export interface WantedRecipients {
  readonly to: readonly string[];
  readonly cc?: readonly string[] | undefined;
  readonly bcc?: readonly string[] | undefined;
}

type Content = NonNullable<ReturnType<typeof composeContent>>;

interface Origin {
  /** The email that the run was about. */
  email: ParsedEmail;
  inbox: string;
  /** The address of ours that the email was sent to: where this comes from. */
  inboxAddress: string;
  domains: readonly string[];
}

/**
 * A mail to somebody else. Its subject is by default the email's.
 * @throws MillraceError (permanent) `effect.invalid_recipient`, `effect.own_address`,
 *   `effect.too_many_recipients`, and what `content.ts` throws
 */
export function composeSend(
  origin: Origin,
  mail: { recipients: WantedRecipients; content: MailContent },
): ProviderRequest | null {
  const content = composeContent(mail.content);
  if (content === null) return null;
  return composed(origin, {
    recipients: mail.recipients,
    subject: fitSubject(mail.content.subject ?? '') || fitSubject(baseSubject(origin.email.subject)),
    content,
  });
}

/**
 * The email itself for somebody else, with its files, and before it what the tool has to say. An answer to it
 * goes to whom a reply would go to.
 * @throws as `composeSend`; `mail.html_too_large` only where the email has HTML, so that without it is tried next
 */
export function composeForward(
  origin: Origin,
  mail: { recipients: WantedRecipients; content: MailContent; files: readonly MailAttachment[] },
): ProviderRequest {
  const { email, domains } = origin;
  const said = mail.content.text?.trim() ? mail.content.text : htmlToText(mail.content.html ?? '');
  const text = forwardedText(email, said);
  const content = forwardedContent(email, {
    text,
    html: forwardedHtml(email, mail.content),
    attachments: mail.files,
  });
  const replyTo = replyRecipient(email, domains);
  return composed(origin, {
    recipients: mail.recipients,
    subject: fitSubject(mail.content.subject ?? '') || fitSubject(`Fwd: ${baseSubject(email.subject)}`),
    content,
    ...(replyTo !== null && { replyTo }),
  });
}

/** HTML that is made only of the text, which is there too, is left out where it cannot be made safe. */
function forwardedContent(email: ParsedEmail, content: MailContent): Content {
  try {
    return composeContent(content)!;
  } catch (error) {
    if (email.html !== null || !hasCode(error, 'mail.html_too_large')) throw error;
    return composeContent({ ...content, html: null })!;
  }
}

function composed(
  { inbox, inboxAddress, domains }: Origin,
  mail: {
    recipients: WantedRecipients;
    subject: string;
    content: Content;
    replyTo?: string;
  },
): ProviderRequest {
  const from = senderAddress(inboxAddress);
  const { to, cc, bcc } = checkedRecipients(mail.recipients, [
    ...domains,
    from.slice(from.lastIndexOf('@') + 1),
  ]);
  const { attachments, ...body } = mail.content;
  const request: ProviderRequest = {
    from,
    to,
    ...(cc.length > 0 && { cc }),
    ...(bcc.length > 0 && { bcc }),
    ...(mail.replyTo !== undefined && { replyTo: mail.replyTo }),
    subject: mail.subject || `From ${inbox}`,
    ...body,
    headers: machineHeaders(inbox, 'auto-generated'),
    ...(attachments && { attachments }),
  };
  assertSize(request);
  return request;
}

/** Each address once, in the first list that names it. */
function checkedRecipients(
  wanted: WantedRecipients,
  domains: readonly string[],
): Record<'to' | 'cc' | 'bcc', string[]> {
  const seen = new Set<string>();
  const checked = (key: 'to' | 'cc' | 'bcc'): string[] =>
    (wanted[key] ?? []).flatMap((input, index, { length }) => {
      const name = length === 1 ? key : `${key}[${index}]`;
      const address = namedRecipient(input);
      if (address === null)
        throw refusal('invalid_recipient', `\`${name}\` is not one address: ${quoted(input)}`);
      if (isOwnAddress(address, domains))
        throw refusal('own_address', `\`${name}\` is an address of our own: ${address}`);
      const known = normaliseAddress(address) ?? address;
      if (seen.has(known)) return [];
      seen.add(known);
      return [address];
    });
  const recipients = { to: checked('to'), cc: checked('cc'), bcc: checked('bcc') };
  if (recipients.to.length === 0) throw refusal('invalid_recipient', '`to` names nobody');
  if (seen.size > MAX_RECIPIENTS)
    throw refusal('too_many_recipients', `${seen.size} recipients, at most ${MAX_RECIPIENTS} are written to`);
  return recipients;
}

function quoted(input: string): string {
  return JSON.stringify(input.slice(0, 200));
}

function refusal(code: string, message: string): MillraceError {
  return new MillraceError('permanent', `effect.${code}`, message, {
    hint: 'Change what the tool returns, then redrive this email.',
  });
}
