/**
 * What may take long over a mail, as functions of plain data: they run in place, or in a thread of their own
 * (`mail-thread.ts`), and give the same. Which inbox the mail is for decides there whose turn it is.
 */
import { authenticate } from './authentication.ts';
import type { Authentication, SignedMessage } from './authentication.ts';
import type { MailAttachment, MailContent } from './content.ts';
import type { ParsedEmail, ProviderRequest } from './email.ts';
import { allAttachmentBytes, parseMessage } from './message.ts';
import { composeReply } from './reply.ts';
import { composeForward, composeSend } from './send.ts';
import type { WantedRecipients } from './send.ts';

/** A mail that a tool wants sent. */
export type MailEffect = MailContent &
  ({ kind: 'reply' } | ({ kind: 'send' | 'forward' } & WantedRecipients));

export interface Composition {
  readonly effect: MailEffect;
  /** The email that the run was about. */
  readonly email: ParsedEmail;
  readonly inbox: string;
  /** The address of ours that the email was sent to. */
  readonly inboxAddress: string;
  readonly domains: readonly string[];
  /** Of the email, for a forward. */
  readonly files: readonly MailAttachment[];
}

export type Composed =
  | { readonly request: ProviderRequest; readonly skipped: null }
  | { readonly request: null; readonly skipped: string };

interface ParseOptions {
  /** Not in place, however small it is: somebody may have ended over it. */
  readonly isApart?: boolean;
}

export interface MailWork {
  parseMessage(raw: Uint8Array, inbox: string, options?: ParseOptions): Promise<ParsedEmail>;
  allAttachmentBytes(raw: Uint8Array, inbox: string): Promise<Uint8Array[]>;
  /** @throws MillraceError `authentication.dns_failed` (transient) */
  authenticate(message: SignedMessage, inbox: string): Promise<Authentication>;
  /** @throws MillraceError (permanent) what `composeReply`, `composeSend` and `composeForward` throw */
  compose(composition: Composition): Promise<Composed>;
}

export const mailWorkInPlace = {
  parseMessage,
  allAttachmentBytes,
  authenticate,
  async compose({ effect, files, ...origin }: Composition): Promise<Composed> {
    if (effect.kind === 'reply') return composeReply({ ...origin, reply: effect });
    if (effect.kind === 'send') {
      const request = composeSend(origin, { recipients: effect, content: effect });
      return request ? { request, skipped: null } : { request: null, skipped: 'empty-reply' };
    }
    const request = composeForward(origin, { recipients: effect, content: effect, files });
    return { request, skipped: null };
  },
} satisfies MailWork;
