/**
 * Composes the provider request that answers an email: one recipient, who is never one of us, in the email's
 * thread. What it says is `content.ts`'s to make safe; whether the email may be answered is `guard.ts`'s to say,
 * and before this.
 */
import { assertSize, composeContent, machineHeaders, senderAddress } from './content.ts';
import type { MailContent } from './content.ts';
import type { ParsedEmail, ProviderRequest } from './email.ts';
import { replyRecipient } from './recipient.ts';
import { fitSubject, replySubject, threadHeaders } from './thread.ts';

/** A request to send, or why there is none; the reasons are stable. */
export type ComposedReply =
  | { request: ProviderRequest; skipped: null }
  /** `empty-reply`: the tool gave neither text nor html nor a file. `no-recipient`: see `recipient.ts`. */
  | { request: null; skipped: 'empty-reply' | 'no-recipient' };

/** @throws MillraceError (permanent) what `senderAddress`, `composeContent` and `assertSize` throw. */
export function composeReply(options: {
  email: ParsedEmail;
  inbox: string;
  /** Where the reply comes from: the address of ours that the email was sent to. */
  inboxAddress: string;
  domains: readonly string[];
  /** Its subject is by default the email's with one `Re:`. */
  reply: MailContent;
}): ComposedReply {
  const { email, reply } = options;
  const from = senderAddress(options.inboxAddress);
  const to = replyRecipient(email, [...options.domains, from.slice(from.lastIndexOf('@') + 1)]);
  if (to === null) return { request: null, skipped: 'no-recipient' };
  const content = composeContent(reply);
  if (content === null) return { request: null, skipped: 'empty-reply' };
  const { attachments, ...body } = content;
  const request: ProviderRequest = {
    from,
    to,
    subject: fitSubject(reply.subject ?? '') || replySubject(email.subject),
    ...body,
    headers: { ...threadHeaders(email), ...machineHeaders(options.inbox, 'auto-replied') },
    ...(attachments && { attachments }),
  };
  assertSize(request);
  return { request, skipped: null };
}
