/**
 * What every mail of ours is made of, whoever it goes to: text, HTML and files that a tool handed over, and the
 * headers that say who we are.
 *
 * A request is complete and is frozen as it stands, so all of it is made safe here: no header value or file
 * name holds a control character or a line end, all text is well-formed, and it is a size that the provider
 * takes. Line ends in a file name become spaces; what cannot be mended is refused as permanent, because the
 * same tool would do it again.
 */
import { MIMEType } from 'node:util';
import { MillraceError } from '../platform/errors.ts';
import { normaliseAddress } from './address.ts';
import type { ProviderRequest } from './email.ts';
import { MARKER_HEADER } from './guard.ts';
import { sanitiseReplyHtml } from './reply-html.ts';
import { htmlToText } from './text.ts';

/** What the provider takes: facts of Resend. */
const limits = {
  /** Of a mail after base64; the margin is for its headers and boundaries. */
  mailBytes: 40_000_000 - 100_000,
  attachments: 100,
  filenameOctets: 255,
  contentTypeChars: 255,
} as const;

/** A mail of a tool as plain data. Null and undefined fields are absent ones. */
export interface MailContent {
  text?: string | null | undefined;
  html?: string | null | undefined;
  /** Taken as it is, on one line; the default depends on what kind of mail it is. */
  subject?: string | null | undefined;
  attachments?: readonly MailAttachment[] | null | undefined;
}

export interface MailAttachment {
  filename?: string | null | undefined;
  contentBase64: string;
  contentType?: string | null | undefined;
  /** By which the HTML shows it (`cid:`), without angle brackets. */
  contentId?: string | null | undefined;
}

type ComposedAttachment = NonNullable<ProviderRequest['attachments']>[number];

/**
 * Body and files; null where there is neither text nor html nor a file.
 * @throws MillraceError (permanent) `reply.invalid_attachment`, `reply.too_many_attachments`,
 *   `mail.html_too_large`
 */
export function composeContent(
  content: MailContent,
): Pick<ProviderRequest, 'text' | 'html' | 'attachments'> | null {
  const attachments = composeAttachments(content.attachments ?? []);
  const body = composeBody(content, attachments);
  return body && { ...body, ...(attachments.length > 0 && { attachments }) };
}

/**
 * The address of ours that the mail comes from.
 * @throws MillraceError `reply.invalid_address` (permanent)
 */
export function senderAddress(inboxAddress: string): string {
  const from = normaliseAddress(inboxAddress);
  if (from === null) throw refusal('invalid_address', 'the inbox has no address to write from');
  return from;
}

/** RFC 3834 §5: what keeps other machines, and other inboxes of ours, from answering. */
export function machineHeaders(
  inbox: string,
  autoSubmitted: 'auto-replied' | 'auto-generated',
): Record<string, string> {
  return {
    'Auto-Submitted': autoSubmitted,
    'X-Auto-Response-Suppress': 'All',
    [MARKER_HEADER]: encodeURIComponent(inbox.toWellFormed()),
  };
}

/** There is always a text, for those who read no HTML: the tool's, or the HTML's, or the names of the files. */
function composeBody(
  reply: MailContent,
  attachments: readonly ComposedAttachment[],
): { text: string; html?: string } | null {
  const html = isBlank(reply.html) ? null : sanitiseReplyHtml(reply.html.replaceAll('\0', ''));
  const text = isBlank(reply.text) ? htmlToText(html ?? '') : reply.text;
  const clean = text.replaceAll('\0', '').replace(/\r\n?/g, '\n').toWellFormed();
  const names = attachments.map(({ filename }) => filename).join('\n');
  const shown = isBlank(clean) ? names : clean;
  if (isBlank(html)) return isBlank(shown) ? null : { text: shown };
  return { text: isBlank(shown) ? 'This message is in HTML.' : shown, html };
}

function composeAttachments(attachments: readonly MailAttachment[]): ComposedAttachment[] {
  if (attachments.length > limits.attachments) {
    throw refusal(
      'too_many_attachments',
      `${attachments.length} attachments, at most ${limits.attachments} can be sent`,
    );
  }
  return attachments.map((attachment, index) => {
    const filename = safeFilename(attachment.filename ?? '') || `attachment-${index + 1}`;
    const content = attachment.contentBase64;
    if (!isBase64(content)) throw refusal('invalid_attachment', `the content of ${filename} is not base64`);
    return {
      filename,
      content,
      ...(!isBlank(attachment.contentType) && { contentType: mediaType(attachment.contentType, filename) }),
      ...(!isBlank(attachment.contentId) && { contentId: contentIdOf(attachment.contentId) }),
    };
  });
}

function mediaType(input: string, filename: string): string {
  try {
    const type = new MIMEType(input).toString();
    if (type.length <= limits.contentTypeChars && /^[\x20-\x7e]+$/.test(type)) return type;
  } catch {
    // Refused below, with the name of the file that it belongs to.
  }
  throw refusal('invalid_attachment', `the content type of ${filename} is none`);
}

/** As it may stand in a header; a mail whose HTML names another one shows a gap there. */
function contentIdOf(input: string): string {
  return input.replace(/[^\x21-\x7e]|[<>]/g, '').slice(0, limits.filenameOctets);
}

/** Controls, line ends, and the marks with which `txt.exe` can be shown as `exe.txt`. */
const UNSAFE_IN_FILENAME = /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu;

/** One path component that names no folder, at most 255 octets with its extension; empty where nothing is left. */
function safeFilename(input: string): string {
  const name = input.toWellFormed().replace(UNSAFE_IN_FILENAME, ' ').replace(/[/\\]/g, '_').trim();
  if (/^[._ ]*$/.test(name)) return '';
  if (Buffer.byteLength(name) <= limits.filenameOctets) return name;
  const extension = /\.[^.]{1,16}$/u.exec(name)?.[0] ?? '';
  const stem = name.slice(0, name.length - extension.length);
  return cutOctets(stem, limits.filenameOctets - Buffer.byteLength(extension)) + extension;
}

/** As many whole code points as fit. */
function cutOctets(text: string, octets: number): string {
  const { read } = new TextEncoder().encodeInto(text, new Uint8Array(octets));
  return text.slice(0, read);
}

function isBase64(content: string): boolean {
  const padding = content.indexOf('=');
  const isPadded = padding < 0 || /^={1,2}$/.test(content.slice(padding));
  return content.length % 4 === 0 && isPadded && !/[^A-Za-z0-9+/=]/.test(content);
}

/** Whether one mail can have them all, and hardly a text. */
export function fitAsFiles(files: readonly MailAttachment[]): boolean {
  const chars = files.reduce((sum, { contentBase64 }) => sum + contentBase64.length, 0);
  return files.length <= limits.attachments && bytesInMail(chars) <= limits.mailBytes;
}

/**
 * The mail as it will be sent, where text and HTML may be in base64 too.
 * @throws MillraceError `reply.too_large` (permanent)
 */
export function assertSize(request: ProviderRequest): void {
  const bodies = Buffer.byteLength(request.text) + Buffer.byteLength(request.html ?? '');
  const files = (request.attachments ?? []).reduce((sum, { content }) => sum + content.length, 0);
  const bytes = bytesInMail((bodies * 4) / 3 + files);
  if (bytes <= limits.mailBytes) return;
  throw refusal('too_large', `the mail would be ${bytes} bytes, at most ${limits.mailBytes} can be sent`);
}

/** Base64 in a mail has a line end after every 76 characters. */
function bytesInMail(chars: number): number {
  return Math.ceil((chars * 78) / 76);
}

function isBlank(text: string | null | undefined): text is '' | null | undefined {
  return (text ?? '').trim() === '';
}

function refusal(code: string, message: string): MillraceError {
  return new MillraceError('permanent', `reply.${code}`, message, {
    hint: 'Change what the tool returns, then redrive this email.',
  });
}
