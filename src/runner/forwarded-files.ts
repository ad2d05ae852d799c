/**
 * The files of an email that is forwarded, and the whole of it as one file where it does not go otherwise: it has more
 * files than a mail may have, or HTML that cannot be made safe. Who gets that file opens it as a mail.
 */
import { fitAsFiles } from '../mail/content.ts';
import type { MailAttachment } from '../mail/content.ts';
import type { ParsedEmail } from '../mail/email.ts';

/** The email that a run was about. */
export interface ForwardedMail {
  readonly email: ParsedEmail;
  /** What its attachments hold. */
  readonly files: () => Promise<readonly Uint8Array[]>;
  /** As it came. */
  readonly raw: () => Promise<Uint8Array>;
}

/**
 * Its attachments. Where they are too many, and where both are wanted but too much for one mail, the message alone,
 * which has them all.
 */
export async function forwardedFiles(
  mail: ForwardedMail,
  { isWithMessage }: { isWithMessage: boolean },
): Promise<MailAttachment[]> {
  const files = await attachedFiles(mail);
  if (!isWithMessage && fitAsFiles(files)) return files;
  const message = {
    filename: 'message.eml',
    contentBase64: base64(await mail.raw()),
    contentType: 'message/rfc822',
  };
  const both = [...files, message];
  return isWithMessage && fitAsFiles(both) ? both : [message];
}

async function attachedFiles({ email, files }: ForwardedMail): Promise<MailAttachment[]> {
  if (email.attachments.length === 0) return [];
  const contents = await files();
  return email.attachments.map(({ index, filename, contentType, contentId, disposition }) => ({
    filename,
    contentBase64: base64(contents[index]!),
    contentType,
    contentId: disposition === 'attachment' ? null : contentId,
  }));
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}
