/**
 * Sending: validation, idempotency keys, quota, and the mails that were accepted.
 *
 * A key is kept for 24 h of the stand-in's clock. The same key with the same body gives the first answer
 * again and sends nothing; with another body it is refused; while the first request is being worked on,
 * every other one is refused.
 */
import { createHash, randomUUID } from 'node:crypto';
import type { AcceptedMail, SendPayload } from './contract.ts';
import { ApiError } from './errors.ts';
import type { StandInState } from './state.ts';

const DAY_MS = 86_400_000;
const KEY_MAX_LENGTH = 256;
const MAX_RECIPIENTS = 50;
const MAX_BATCH = 100;
const MAX_PAGE = 100;
const DEFAULT_PAGE = 20;
const MAX_EMAIL_BYTES = 40 * 1024 * 1024;
const TAG = /^[A-Za-z0-9_-]{1,256}$/;
const ADDRESS = /^(?:[^<>\r\n]*<[^<>\s@]+@[^<>\s@]+\.[^<>\s@]+>|[^<>\s@]+@[^<>\s@]+\.[^<>\s@]+)$/;

interface KnownKey {
  readonly bodyHash: string;
  readonly atMs: number;
  /** Null while the first request is being worked on. */
  answer: unknown;
}

interface SendRequest {
  readonly idempotencyKey: string | null;
  readonly body: string;
  /** Waits, if a test asked for it; the key is taken meanwhile. */
  readonly pause: () => Promise<void>;
}

export class Sending {
  readonly #state: StandInState;
  readonly #keys = new Map<string, KnownKey>();

  constructor(state: StandInState) {
    this.#state = state;
  }

  /** `POST /emails`. */
  send(request: SendRequest): Promise<unknown> {
    return this.#once(request, () => {
      const payload = checkedPayload(parseJson(request.body), this.#state);
      this.#checkQuota(1);
      return { id: this.#accept(payload, request.idempotencyKey) };
    });
  }

  /** `POST /emails/batch`; in permissive mode errors are reported by index and the others go out. */
  batch(request: SendRequest, permissive: boolean): Promise<unknown> {
    return this.#once(request, () => {
      const list = parseJson(request.body);
      if (!Array.isArray(list) || list.length === 0 || list.length > MAX_BATCH)
        throw new ApiError(422, 'validation_error', `The batch must have 1 to ${MAX_BATCH} emails.`);
      const payloads: SendPayload[] = [];
      const errors: { index: number; message: string }[] = [];
      for (const [index, item] of list.entries()) {
        try {
          const payload = checkedPayload(item, this.#state);
          if (payload.attachments?.length)
            throw new ApiError(422, 'validation_error', 'Attachments are not supported in a batch.');
          payloads.push(payload);
        } catch (error) {
          if (!permissive || !(error instanceof ApiError)) throw error;
          errors.push({ index, message: error.message });
        }
      }
      this.#checkQuota(payloads.length);
      const data = payloads.map((payload) => ({ id: this.#accept(payload, request.idempotencyKey) }));
      return permissive && errors.length > 0 ? { data, errors } : { data };
    });
  }

  /** `GET /emails/:id`. */
  describe(id: string): Record<string, unknown> {
    const mail = this.#state.accepted.find((accepted) => accepted.id === id);
    if (!mail) throw new ApiError(404, 'not_found', 'Email not found');
    const { html, text, tags } = mail.payload;
    return { object: 'email', ...summary(mail), html: html ?? null, text: text ?? null, tags: tags ?? [] };
  }

  /** `GET /emails`: newest first, without bodies and tags. */
  list(after: string | undefined, limit: number = DEFAULT_PAGE): Record<string, unknown> {
    const newestFirst = this.#state.accepted.toReversed();
    const start = after === undefined ? 0 : newestFirst.findIndex((mail) => mail.id === after) + 1;
    if (after !== undefined && start === 0) throw new ApiError(422, 'validation_error', 'Unknown `after`.');
    const end = start + Math.min(Math.max(limit, 1), MAX_PAGE);
    return {
      object: 'list',
      has_more: end < newestFirst.length,
      data: newestFirst.slice(start, end).map(summary),
    };
  }

  async #once(request: SendRequest, work: () => unknown): Promise<unknown> {
    const { idempotencyKey: key } = request;
    if (key === null) {
      await request.pause();
      return work();
    }
    if (key.length === 0 || key.length > KEY_MAX_LENGTH)
      throw new ApiError(
        400,
        'invalid_idempotency_key',
        `The key must be between 1-${KEY_MAX_LENGTH} chars.`,
      );
    const bodyHash = createHash('sha256').update(request.body).digest('hex');
    const known = this.#keys.get(key);
    if (known && this.#state.nowMs() - known.atMs < DAY_MS) return repeatedAnswer(known, bodyHash);
    const entry: KnownKey = { bodyHash, atMs: this.#state.nowMs(), answer: null };
    this.#keys.set(key, entry);
    try {
      await request.pause();
      entry.answer = work();
      return entry.answer;
    } catch (error) {
      this.#keys.delete(key);
      throw error;
    }
  }

  #accept(payload: SendPayload, idempotencyKey: string | null): string {
    const id = randomUUID();
    this.#state.accept({ id, at: this.#state.isoNow(), idempotencyKey, payload });
    return id;
  }

  #checkQuota(wanted: number): void {
    const { dailyQuota } = this.#state.options;
    if (dailyQuota === undefined) return;
    const dayAgoMs = this.#state.nowMs() - DAY_MS;
    const sent = this.#state.accepted.filter((mail) => Date.parse(mail.at) > dayAgoMs).length;
    if (sent + wanted > dailyQuota)
      throw new ApiError(429, 'daily_quota_exceeded', 'You have reached your daily email sending quota.');
  }
}

/** Message-ID is the provider's own: what the request asked for is replaced on the way out. */
export function messageIdOf(mail: AcceptedMail): string {
  return `<${mail.id}@eu-west-1.amazonses.com>`;
}

function summary(mail: AcceptedMail): Record<string, unknown> {
  const { payload } = mail;
  const list = (value: string | string[] | undefined): string[] | null => (value ? [value].flat() : null);
  return {
    id: mail.id,
    created_at: mail.at,
    message_id: messageIdOf(mail),
    from: payload.from,
    to: [payload.to].flat(),
    cc: list(payload.cc),
    bcc: list(payload.bcc),
    reply_to: list(payload.reply_to),
    subject: payload.subject,
    last_event: 'delivered',
    scheduled_at: payload.scheduled_at ?? null,
  };
}

function repeatedAnswer(known: KnownKey, bodyHash: string): unknown {
  if (known.bodyHash !== bodyHash)
    throw new ApiError(
      409,
      'invalid_idempotent_request',
      'Same idempotency key used with a different request payload.',
    );
  if (known.answer === null)
    throw new ApiError(
      409,
      'concurrent_idempotent_requests',
      'Same idempotency key used while original request is still in progress.',
    );
  return known.answer;
}

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    throw new ApiError(400, 'validation_error', 'The request body is not valid JSON.');
  }
}

function checkedPayload(value: unknown, state: StandInState): SendPayload {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ApiError(422, 'validation_error', 'The email must be an object.');
  const payload = value as SendPayload;
  for (const field of ['from', 'to', 'subject'] as const)
    if (!payload[field]) throw new ApiError(422, 'missing_required_field', `Missing \`${field}\` field.`);
  if (payload.text === undefined && payload.html === undefined)
    throw new ApiError(422, 'missing_required_field', 'Missing `html` or `text` field.');
  checkAddresses(payload, state);
  checkDetails(payload);
  return payload;
}

function checkAddresses(payload: SendPayload, state: StandInState): void {
  if (typeof payload.from !== 'string' || !ADDRESS.test(payload.from))
    throw new ApiError(422, 'invalid_from_address', 'Invalid `from` field.');
  for (const field of ['to', 'cc', 'bcc', 'reply_to'] as const) {
    const addresses = [payload[field] ?? []].flat();
    if (addresses.length > MAX_RECIPIENTS)
      throw new ApiError(422, 'validation_error', `The \`${field}\` field must have at most 50 items.`);
    for (const address of addresses)
      if (typeof address !== 'string' || !ADDRESS.test(address))
        throw new ApiError(
          422,
          'validation_error',
          `Invalid \`${field}\` field. The email address needs to follow the \`email@example.com\` or \`Name <email@example.com>\` format.`,
        );
  }
  const domain = payload.from.replace(/>$/, '').split('@').at(-1)?.toLowerCase() ?? '';
  if (state.options.verifiedDomains && !state.options.verifiedDomains.includes(domain))
    throw new ApiError(403, 'validation_error', `The ${domain} domain is not verified.`);
}

function checkDetails(payload: SendPayload): void {
  for (const tag of payload.tags ?? [])
    if (!TAG.test(tag.name) || !TAG.test(tag.value))
      throw new ApiError(
        422,
        'validation_error',
        'Tags should only contain ASCII letters, numbers, underscores, or dashes.',
      );
  for (const [name, headerValue] of Object.entries(payload.headers ?? {}))
    if (/[^\x21-\x39\x3b-\x7e]/.test(name) || typeof headerValue !== 'string' || /[\r\n\0]/.test(headerValue))
      throw new ApiError(422, 'validation_error', 'Invalid `headers` field.');
  for (const attachment of payload.attachments ?? [])
    if (attachment.content === undefined && attachment.path === undefined)
      throw new ApiError(422, 'invalid_attachment', 'Attachment must have either a `content` or `path`.');
  if (JSON.stringify(payload).length > MAX_EMAIL_BYTES)
    throw new ApiError(422, 'validation_error', 'The email is larger than 40 MB.');
}
