/**
 * The webhook of the tools' repository: a push is announced, and whoever keeps the tools up to date looks at
 * once. The two may be different processes; a record on `tools` is how the one hears of the other.
 *
 * The body is verified and never read: what is there to fetch is asked of the repository itself. GitHub,
 * Gitea and Forgejo sign the body (HMAC-SHA256); GitLab sends the secret as a token. Events other than those of a
 * push are taken and left: the status that we post of a commit comes back as one, and must not have it built again.
 *
 * `POST /webhooks/git` answers
 *
 * | status | when |
 * |---|---|
 * | 202 | The request to look is durable, or it is an event that asks for none. |
 * | 400 | The body broke off. |
 * | 401 | There is no signature or token that we know, or it does not verify. |
 * | 405 | The method is not POST. |
 * | 408 | The request did not arrive in time (answered by `http-server.ts`). |
 * | 413 | The body is above the limit, announced or not; what is beyond is not read. |
 * | 500 | A bug of ours; the log has it. |
 * | 503 | The stream store did not take the request in time, or too much came in at once. `retry-after` is set; the repository is looked at every minute anyway. |
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { Hono } from 'hono';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { orAborted } from '../platform/abort.ts';
import type { Log } from '../platform/log.ts';
import { jsonRecord } from '../streams/records.ts';
import type { ToolsRequest } from '../streams/records.ts';
import type { Stream } from '../streams/stream-store.ts';
import type { BodyReader } from './body-reader.ts';
import { createRefusalLog } from './refusal-log.ts';
import { Refusal, answerRefusal } from './webhook-body.ts';

interface GitWebhookDeps {
  /** The stream `tools`. */
  readonly tools: Stream;
  /** One for all that strangers may post. */
  readonly bodies: BodyReader;
  readonly clock: Clock;
  readonly log: Log;
}

interface GitWebhookOptions {
  secret: string;
  /** Default 2 MiB: a push names its commits. */
  maxBodyBytes?: number;
}

const DEFAULT_MAX_BODY_BYTES = 2 * 1024 * 1024;
const APPEND_TIMEOUT_MS = 8_000;
/** The signature in hexadecimal: GitHub's (Gitea and Forgejo send it, too), Gitea's, Forgejo's. */
const SIGNATURE_HEADERS = [
  { name: 'x-hub-signature-256', prefix: 'sha256=' },
  { name: 'x-gitea-signature', prefix: '' },
  { name: 'x-forgejo-signature', prefix: '' },
];
const EVENT_HEADERS = ['github', 'gitea', 'forgejo', 'gogs', 'gitlab'].map((host) => `x-${host}-event`);
/** A ping shows that the way is open. */
const EVENTS_OF_PUSH = /^(?:push|ping|create|delete|push hook|tag push hook)$/i;
const TOKEN_HEADER = 'x-gitlab-token';
const PROOF_HEADERS = [...SIGNATURE_HEADERS.map(({ name }) => name), TOKEN_HEADER];

/** The route of the webhook, to be mounted at the root. */
export function createGitWebhookRoute(deps: GitWebhookDeps, options: GitWebhookOptions): Hono {
  const { tools, bodies, clock, log } = deps;
  const { secret, maxBodyBytes = DEFAULT_MAX_BODY_BYTES } = options;

  const take = async (request: Request): Promise<void> => {
    // Before the body: whoever brings no proof at all is not listened to.
    if (!PROOF_HEADERS.some((name) => request.headers.has(name)))
      throw new Refusal(401, 'there is no signature and no token');
    const body = await bodies.read(request, maxBodyBytes);
    if (!isVerified(request.headers, body, secret)) throw new Refusal(401, 'the signature does not verify');
    if (!asksForLook(request.headers)) return;
    const at = new Date(clock.nowMs()).toISOString();
    const asked: ToolsRequest = { kind: 'tools-request', version: 1, action: 'sync', commit: null, at };
    using deadline = createDeadline(clock, APPEND_TIMEOUT_MS);
    try {
      await orAborted(tools.append([jsonRecord(asked)], { signal: deadline.signal }), deadline.signal);
    } catch (cause) {
      throw new Refusal(503, 'the request could not be stored now', cause);
    }
  };

  const logRefusal = createRefusalLog(deps, 'git-webhook-refused');
  const app = new Hono();
  app.post('/webhooks/git', async (c) => {
    try {
      await take(c.req.raw);
      return c.json({ ok: true }, 202);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      logRefusal(error);
      return answerRefusal(c, error);
    }
  });
  app.all('/webhooks/git', (c) => {
    c.header('allow', 'POST');
    return c.json({ ok: false, error: 'post events here' }, 405);
  });
  app.onError((error, c) => {
    log.error({ error }, 'git-webhook-failed');
    return c.json({ ok: false, error: 'internal error' }, 500);
  });
  return app;
}

/** Every signature that is there must be right: one that is not says that the body or the secret differs. */
function isVerified(headers: Headers, body: Buffer, secret: string): boolean {
  const signature = createHmac('sha256', secret).update(body).digest('hex');
  const proofs = SIGNATURE_HEADERS.flatMap(({ name, prefix }) => {
    const given = headers.get(name);
    return given === null ? [] : [isSame(given, prefix + signature)];
  });
  const token = headers.get(TOKEN_HEADER);
  if (token !== null) proofs.push(isSame(token, secret));
  return proofs.length > 0 && proofs.every(Boolean);
}

/** Where no event is named, whoever has the secret asks. */
function asksForLook(headers: Headers): boolean {
  const events = EVENT_HEADERS.map((name) => headers.get(name)).filter((event) => event !== null);
  return events.length === 0 || events.some((event) => EVENTS_OF_PUSH.test(event));
}

/** In constant time, whatever the lengths. */
function isSame(given: string, expected: string): boolean {
  return timingSafeEqual(digestOf(given), digestOf(expected));
}

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
