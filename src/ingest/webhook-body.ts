/**
 * The body of a webhook, which `body-reader.ts` has read: checked just so far that it is safe to store and to parse
 * again. What the fields mean is the business of `receive.ts`.
 *
 * An event is UTF-8 JSON: an object with a string `type` and an object `data`, nested at most 64 deep, without
 * keys that would reach into a prototype when somebody copies them.
 */
import type { Context } from 'hono';

/** Refused at the edge, with the status that says so. */
export class Refusal extends Error {
  readonly status: 400 | 401 | 413 | 415 | 503;

  constructor(status: Refusal['status'], message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
  }
}

const RETRY_AFTER_SECONDS = 5;

/** What the sender of a request gets that is refused. */
export function answerRefusal(c: Context, { status, message }: Refusal): Response {
  if (status === 503) c.header('retry-after', String(RETRY_AFTER_SECONDS));
  // The rest of a body that nobody reads must not become the next request.
  if (status === 413 || status === 503) c.header('connection', 'close');
  return c.json({ ok: false, error: message }, status);
}

const MAX_DEPTH = 64;
/** It becomes the value of a record header. */
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const EVENT_TYPE = /^[\x21-\x7e]{1,100}$/;

/** What is read of an event at the edge; the rest is `receive.ts`'s. */
export interface EventIdentity {
  readonly type: string;
  /** The id of the email that it is about, in lower case; null where there is none. */
  readonly emailId: string | null;
}

/**
 * Which event the bytes are.
 * @throws Refusal 400 if they are none
 */
export function eventIdentity(body: Uint8Array): EventIdentity {
  const event = parse(body);
  const data = isObject(event) ? event['data'] : undefined;
  if (!isObject(event) || !isObject(data))
    throw new Refusal(400, 'the body must be an object with an object `data`');
  const type = event['type'];
  if (typeof type !== 'string' || !EVENT_TYPE.test(type))
    throw new Refusal(400, 'the event must have a `type`');
  checkNesting(event);
  const emailId = data['email_id'];
  return { type, emailId: typeof emailId === 'string' && UUID.test(emailId) ? emailId.toLowerCase() : null };
}

function parse(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body));
  } catch {
    // Without its cause: a syntax error quotes the body.
    throw new Refusal(400, 'the body is not JSON in UTF-8');
  }
}

/** Without recursion: the depth is the sender's to choose. */
function checkNesting(event: object): void {
  const pending: { value: object; depth: number }[] = [{ value: event, depth: 1 }];
  for (let next = pending.pop(); next; next = pending.pop()) {
    if (next.depth > MAX_DEPTH) throw new Refusal(400, `the body is nested more than ${MAX_DEPTH} deep`);
    for (const [key, value] of Object.entries(next.value) as [string, unknown][]) {
      if (
        key === '__proto__' ||
        (key === 'constructor' && isObject(value) && Object.hasOwn(value, 'prototype'))
      )
        throw new Refusal(400, 'the body has a key that is not allowed');
      if (typeof value === 'object' && value !== null) pending.push({ value, depth: next.depth + 1 });
    }
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
