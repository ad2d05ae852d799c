/**
 * The webhook's edge: takes an event from Resend, proves by its Svix signature that it is one, and appends it
 * to `events` byte for byte. It answers 2xx only when the event is durable.
 *
 * Every event that verifies is appended, also of unknown types and for foreign domains: a webhook is
 * team-wide, an endless 4xx would get it disabled, and what to do with an event is decided by `receive.ts`.
 * Duplicates are appended, too; they share the key, and whoever reads drops what it has completed.
 *
 * `POST /webhooks/resend` answers
 *
 * | status | when |
 * |---|---|
 * | 200 | The event is durable. |
 * | 400 | It verifies, but is not an event (`webhook-body.ts` says what one is); or its svix-id is no id. |
 * | 401 | A Svix header is missing, its time is more than 5 minutes off, or no signature matches. |
 * | 405 | The method is not POST. |
 * | 408 | The request did not arrive in time (answered by `http-server.ts`). |
 * | 413 | The body is above the limit, announced or not; what is beyond is not read. |
 * | 415 | The content type is not JSON, or the body is compressed. |
 * | 500 | A bug of ours; the log has it. |
 * | 503 | The stream store did not take the event in time, or too much came in at once. Svix tries again; `retry-after` is set. |
 *
 * On anything but 200 nothing was appended, but for a 503 whose append was in doubt.
 */
import { Hono } from 'hono';
import { Webhook, WebhookVerificationError } from 'svix';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { KEY_HEADER } from '../streams/records.ts';
import type { NewRecord, Stream } from '../streams/stream-store.ts';
import type { BodyReader } from './body-reader.ts';
import { createRefusalLog } from './refusal-log.ts';
import { Refusal, answerRefusal, eventIdentity } from './webhook-body.ts';
import type { EventIdentity } from './webhook-body.ts';

export interface WebhookDeps {
  readonly events: Stream;
  /** One for all that strangers may post. */
  readonly bodies: BodyReader;
  readonly clock: Clock;
  readonly log: Log;
}

export interface WebhookOptions {
  /** Signing secrets (`whsec_…`); during a rotation both the old and the new one. */
  secrets: readonly string[];
  /** Default 512 KiB: an event carries metadata only. */
  maxBodyBytes?: number;
  /** Default 10 s: Svix waits 15. */
  appendTimeoutMs?: number;
}

const DEFAULT_MAX_BODY_BYTES = 512 * 1024;
const DEFAULT_APPEND_TIMEOUT_MS = 10_000;
/** It becomes a key in record headers. */
const SVIX_ID = /^[\x21-\x7e]{1,128}$/;
const JSON_CONTENT_TYPE = /^application\/json\s*(?:;|$)/i;

/**
 * The routes of the webhook, to be mounted at the root.
 * @throws MillraceError `config.webhook_secret` (invalid) where there is no secret or a malformed one
 */
export function createWebhookRoute(deps: WebhookDeps, options: WebhookOptions): Hono {
  const verifiers = options.secrets.map(createVerifier);
  if (verifiers.length === 0) throw badSecret('there is none');
  const maxBodyBytes = options.maxBodyBytes ?? DEFAULT_MAX_BODY_BYTES;
  const appendTimeoutMs = options.appendTimeoutMs ?? DEFAULT_APPEND_TIMEOUT_MS;

  const take = async (request: Request): Promise<void> => {
    checkForm(request.headers);
    const svix = svixHeaders(request.headers);
    const body = await deps.bodies.read(request, maxBodyBytes);
    verify(verifiers, body, svix);
    const record = eventRecord(svix['svix-id'], eventIdentity(body), body);
    await appendWithin(appendTimeoutMs, record, deps);
  };

  const logRefusal = createRefusalLog(deps, 'webhook-refused');
  const app = new Hono();
  app.post('/webhooks/resend', async (c) => {
    try {
      await take(c.req.raw);
      return c.json({ ok: true });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      logRefusal(error);
      return answerRefusal(c, error);
    }
  });
  app.all('/webhooks/resend', (c) => {
    c.header('allow', 'POST');
    return c.json({ ok: false, error: 'post events here' }, 405);
  });
  app.onError((error, c) => {
    deps.log.error({ error }, 'webhook-failed');
    return c.json({ ok: false, error: 'internal error' }, 500);
  });
  return app;
}

/** Form first: it costs nothing and needs no body. */
function checkForm(headers: Headers): void {
  if (!JSON_CONTENT_TYPE.test(headers.get('content-type') ?? ''))
    throw new Refusal(415, 'the content type must be application/json');
  const encoding = headers.get('content-encoding') ?? 'identity';
  if (encoding.toLowerCase() !== 'identity') throw new Refusal(415, 'the body must not be compressed');
}

type SvixHeaders = Record<'svix-id' | 'svix-timestamp' | 'svix-signature', string>;

function svixHeaders(headers: Headers): SvixHeaders {
  const id = headers.get('svix-id');
  const timestamp = headers.get('svix-timestamp');
  const signature = headers.get('svix-signature');
  if (!id || !timestamp || !signature) throw new Refusal(401, 'a svix header is missing');
  if (!SVIX_ID.test(id)) throw new Refusal(400, 'the svix-id is no id');
  return { 'svix-id': id, 'svix-timestamp': timestamp, 'svix-signature': signature };
}

function createVerifier(secret: string): Webhook {
  try {
    return new Webhook(secret);
  } catch {
    // Without its cause: that could quote the secret.
    throw badSecret('one is malformed');
  }
}

function badSecret(what: string): MillraceError {
  return new MillraceError('invalid', 'config.webhook_secret', `webhook secrets: ${what}`, {
    hint: "Set RESEND_WEBHOOK_SECRET to the webhook's signing secret from resend.com/webhooks (whsec_…).",
  });
}

/**
 * Svix's own verification, under each secret in turn. It measures the timestamp with the system's clock.
 * @throws Refusal 401
 */
function verify(verifiers: readonly Webhook[], body: Buffer, headers: SvixHeaders): void {
  let last: unknown;
  for (const verifier of verifiers) {
    try {
      verifier.verify(body, headers);
      return;
    } catch (error) {
      if (!(error instanceof WebhookVerificationError)) throw error;
      last = error;
    }
  }
  throw new Refusal(401, 'the signature does not verify', last);
}

/**
 * The key says what the event is about: the arrival of an email is one thing however often Resend announces it,
 * under one svix-id or another. Any other event is known by its svix-id.
 */
function eventRecord(svixId: string, { type, emailId }: EventIdentity, body: Buffer): NewRecord {
  const isArrival = type === 'email.received' && emailId !== null;
  return {
    headers: [
      ['kind', 'event'],
      ['version', '1'],
      [KEY_HEADER, isArrival ? `received/${emailId}` : svixId],
      ['svix-id', svixId],
      ['type', type],
    ],
    body,
  };
}

/** @throws Refusal 503, also when the store just does not answer: then the append is in doubt */
async function appendWithin(timeoutMs: number, record: NewRecord, deps: WebhookDeps): Promise<void> {
  // The sender's leaving does not end an append: what is under way may as well become durable.
  using deadline = createDeadline(deps.clock, timeoutMs);
  const { signal } = deadline;
  const timedOut = Promise.withResolvers<never>();
  signal.addEventListener('abort', () => timedOut.reject(signal.reason), { once: true });
  try {
    await Promise.race([deps.events.append([record], { signal }), timedOut.promise]);
  } catch (cause) {
    throw new Refusal(503, 'the event could not be stored now', cause);
  }
}
