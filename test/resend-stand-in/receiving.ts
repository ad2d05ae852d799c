/**
 * Receiving: inbound mail as the API shows it, the `email.received` event that announces it, and the signed
 * link to its raw bytes, which expires after an hour of the stand-in's clock.
 */
import { createHmac, randomBytes, randomUUID } from 'node:crypto';
import PostalMime from 'postal-mime';
import type { Address, Email as ParsedMessage } from 'postal-mime';
import type { DeliverOptions } from './contract.ts';
import { ApiError } from './errors.ts';
import type { InboundMail, StandInState } from './state.ts';

const LINK_LIFETIME_MS = 3_600_000;
const MAX_PAGE = 100;
const DEFAULT_PAGE = 20;

export class Receiving {
  readonly #state: StandInState;
  readonly #linkKey = randomBytes(32);

  constructor(state: StandInState) {
    this.#state = state;
  }

  /** Registers a raw message as received now. The same `emailId` again keeps the first. */
  async register(raw: string | Uint8Array, options: DeliverOptions): Promise<InboundMail> {
    const id = options.emailId ?? randomUUID();
    const known = this.#state.inbound.get(id);
    if (known) return known;
    const bytes = typeof raw === 'string' ? new TextEncoder().encode(raw) : raw;
    const mail = inboundMail(await parseLeniently(bytes), bytes, {
      ...options,
      emailId: id,
      createdAt: this.#state.isoNow(),
    });
    this.#state.inbound.set(id, mail);
    return mail;
  }

  /** The body of `GET /emails/receiving/:id`. */
  describe(id: string, baseUrl: string, linkExpired: boolean): Record<string, unknown> {
    const mail = this.#find(id);
    const expiresMs = this.#state.nowMs() + (linkExpired ? -1000 : LINK_LIFETIME_MS);
    return {
      object: 'email',
      ...summary(mail),
      html: mail.html,
      text: mail.text,
      headers: mail.headers,
      raw: {
        download_url: `${baseUrl}/_raw/${id}?expires=${expiresMs}&signature=${this.#sign(id, expiresMs)}`,
        expires_at: new Date(expiresMs).toISOString(),
      },
    };
  }

  /** The body of `GET /emails/receiving`: newest first. */
  list(after: string | undefined, limit: number = DEFAULT_PAGE): Record<string, unknown> {
    const newestFirst = [...this.#state.inbound.values()].toReversed();
    const start = after === undefined ? 0 : newestFirst.findIndex((mail) => mail.id === after) + 1;
    if (after !== undefined && start === 0) throw new ApiError(422, 'validation_error', 'Unknown `after`.');
    const size = Math.min(Math.max(limit, 1), MAX_PAGE);
    const page = newestFirst.slice(start, start + size);
    return { object: 'list', has_more: start + size < newestFirst.length, data: page.map(summary) };
  }

  /** The bytes behind a signed link. @throws ApiError 403 when it has expired or was tampered with. */
  download(id: string, expires: string, signature: string): Uint8Array {
    if (signature !== this.#sign(id, Number(expires)) || Number(expires) <= this.#state.nowMs())
      throw new ApiError(403, 'access_denied', 'Request has expired');
    return this.#find(id).raw;
  }

  #find(id: string): InboundMail {
    const mail = this.#state.inbound.get(id);
    if (!mail) throw new ApiError(404, 'not_found', 'Email not found');
    return mail;
  }

  #sign(id: string, expiresMs: number): string {
    return createHmac('sha256', this.#linkKey).update(`${id}.${expiresMs}`).digest('hex');
  }
}

/** `email.received`: metadata only, in the shape that Resend posts. */
export function receivedEvent(
  mail: InboundMail,
  override: Record<string, unknown> = {},
): Record<string, unknown> {
  const data = {
    email_id: mail.id,
    created_at: mail.createdAt,
    from: mail.from,
    to: mail.to,
    bcc: mail.bcc,
    cc: mail.cc,
    ...(mail.receivedFor === null ? {} : { received_for: mail.receivedFor }),
    message_id: mail.messageId,
    subject: mail.subject,
    attachments: mail.attachments.map(({ size: _size, ...metadata }) => metadata),
    ...override,
  };
  return { type: 'email.received', created_at: mail.createdAt, data };
}

function summary(mail: InboundMail): Record<string, unknown> {
  return {
    id: mail.id,
    to: mail.to,
    from: mail.from,
    created_at: mail.createdAt,
    subject: mail.subject,
    bcc: mail.bcc,
    cc: mail.cc,
    reply_to: mail.replyTo,
    received_for: mail.receivedFor ?? [],
    message_id: mail.messageId,
    attachments: mail.attachments,
  };
}

/** A message that cannot be parsed is mail all the same: it has no fields then. */
async function parseLeniently(raw: Uint8Array): Promise<ParsedMessage> {
  try {
    return await PostalMime.parse(raw);
  } catch {
    return { headers: [], headerLines: [], attachments: [] };
  }
}

/** What is kept of a message: its bytes and metadata, not the decoded attachments. */
function inboundMail(
  parsed: ParsedMessage,
  raw: Uint8Array,
  options: DeliverOptions & { emailId: string; createdAt: string },
): InboundMail {
  const to = addressesOf(parsed.to);
  const cc = addressesOf(parsed.cc);
  const bcc = options.bcc ?? [];
  return {
    id: options.emailId,
    createdAt: options.createdAt,
    raw,
    from: addressesOf(parsed.from ? [parsed.from] : [])[0] ?? '',
    to,
    cc,
    bcc,
    replyTo: addressesOf(parsed.replyTo),
    receivedFor: options.receivedFor === undefined ? [...to, ...cc, ...bcc] : options.receivedFor,
    messageId: parsed.messageId ?? '',
    subject: parsed.subject ?? '',
    text: parsed.text ?? null,
    html: parsed.html ?? null,
    headers: lossyHeaders(parsed),
    attachments: parsed.attachments.map((attachment) => ({
      id: randomUUID(),
      filename: attachment.filename,
      content_type: attachment.mimeType,
      content_disposition: attachment.disposition,
      content_id: attachment.contentId?.replace(/^<|>$/g, '') ?? null,
      size:
        typeof attachment.content === 'string'
          ? Buffer.byteLength(attachment.content)
          : attachment.content.byteLength,
    })),
  };
}

/** Lower-cased keys; a repeated field becomes JSON inside a string. */
function lossyHeaders(parsed: ParsedMessage): Record<string, string> {
  const values = new Map<string, string[]>();
  for (const { key, value } of parsed.headers) values.set(key, [...(values.get(key) ?? []), value]);
  return Object.fromEntries(
    [...values].map(([key, list]) => [key, list.length === 1 ? (list[0] ?? '') : JSON.stringify(list)]),
  );
}

function addressesOf(list: readonly Address[] | undefined): string[] {
  return (list ?? []).flatMap((entry) =>
    entry.group ? entry.group.map((member) => member.address) : entry.address ? [entry.address] : [],
  );
}
