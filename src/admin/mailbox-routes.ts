/**
 * The console over HTTP: the page, what it shows, and where there is a local mailbox the API that the page and
 * `millrace send` use to write to it. Mounted behind `adminAuth`. What an operator does from the page goes through the
 * admin API.
 *
 * - `GET /`: 200, the page. `GET /mailbox/<file>`: 200, its parts; 404.
 * - `GET /api/mailbox`: 200, the newest conversations with the state of every mail, the inboxes that are served,
 *   and what became of the tools.
 * - `GET /api/mailbox/events`: 200, server-sent events: `change` whenever the first answer would differ; 503
 *   beyond `MAX_EVENT_STREAMS`.
 * - `GET /api/mailbox/mails/<emailId>?waitSeconds=…`: 200, one mail, when it is settled or the time is over; 404.
 * - `GET /api/mailbox/replies/<id>`: 200, its HTML as JSON; 404. The id is a reply's, as the first answer has it.
 * - `GET /api/mailbox/replies/<id>/attachments/<index>`: 200, as a download; 404.
 *
 * Only of the local mailbox:
 *
 * - `POST /api/mailbox`: 201 `{emailId}` for the fields of an email (JSON); 413, 415, 422.
 * - `POST /api/mailbox/eml?to=…`: 201 `{emailId}` for a raw message; `to` once or several times, default: its
 *   To and Cc; 413, 422.
 * - `POST /api/mailbox/mails/<emailId>/again`: 201 `{emailId}`: the same message once more, as a new mail; 404.
 *
 * Errors are JSON: `{error: {code, message, hint}}`; 503 where the stream store is not to be reached, after
 * which the mail may have been taken all the same.
 */
import { Hono } from 'hono';
import type { Context } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { streamSSE } from 'hono/streaming';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { ProviderRequest } from '../mail/email.ts';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError, errorKind } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { findBlob, readBlob } from '../streams/blob.ts';
import { streamNames } from '../streams/records.ts';
import { recordAt } from '../streams/stream-scan.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import { MAX_MESSAGE_BYTES } from './local-mail.ts';
import type { LocalMail } from './local-mail.ts';
import { requestOf } from './mail-traces.ts';
import { addMailboxPage } from './mailbox-page.ts';
import type { MailboxView } from './mailbox-view.ts';

export interface MailboxRoutesDeps {
  store: StreamStore;
  /** Null with real mail. */
  localMail: LocalMail | null;
  view: MailboxView;
  /** Our domains, normalised; the first is the main one. */
  domains: readonly string[];
  clock: Clock;
  log: Log;
}

/** Attachments come as base64 in JSON. */
const MAX_JSON_BYTES = Math.ceil(MAX_MESSAGE_BYTES * 1.4);
const MAX_EVENT_STREAMS = 50;
/** Below what proxies and browsers take for a dead connection. */
const HEARTBEAT_MS = 15_000;
const MAX_WAIT_SECONDS = 60;
/** Whoever opens the page is told so, sooner than a proxy would. */
const FIRST_READ_MS = 20_000;

export function createMailboxRoutes(deps: MailboxRoutesDeps): Hono {
  const { localMail, view, clock, log } = deps;
  const app = new Hono();
  app.onError((error, c) => answerError(error, c, log));
  addMailboxPage(app, { isLocal: localMail !== null });

  app.get('/api/mailbox', async (c) => {
    using limit = createDeadline(clock, FIRST_READ_MS, c.req.raw.signal);
    await view.changed(0, limit.signal);
    if (limit.signal.aborted) throw notRead();
    const tools = view.tools();
    return c.json({
      version: view.version(),
      isLocal: localMail !== null,
      domains: deps.domains,
      inboxes: tools.live?.inboxes ?? [],
      tools,
      conversations: view.conversations(),
    });
  });
  app.get('/api/mailbox/events', eventStream(deps));

  app.get('/api/mailbox/mails/:emailId', async (c) => {
    await view.changed(0, c.req.raw.signal);
    const seconds = Math.min(Number(c.req.query('waitSeconds') ?? 0) || 0, MAX_WAIT_SECONDS);
    const mail = await settledMail(deps, {
      emailId: c.req.param('emailId'),
      seconds,
      signal: c.req.raw.signal,
    });
    return mail ? c.json(mail) : c.json(notFound('mail'), 404);
  });

  app.get('/api/mailbox/replies/:id{[0-9]{1,15}}', async (c) => {
    const reply = await readReply(deps, Number(c.req.param('id')), c.req.raw.signal);
    return reply ? c.json({ html: reply.html ?? null }) : c.json(notFound('reply'), 404);
  });

  app.get('/api/mailbox/replies/:id{[0-9]{1,15}}/attachments/:index{[0-9]{1,4}}', async (c) => {
    const reply = await readReply(deps, Number(c.req.param('id')), c.req.raw.signal);
    const attachment = reply?.attachments?.[Number(c.req.param('index'))];
    if (!attachment) return c.json(notFound('attachment'), 404);
    // Whatever a tool says that it is: it is saved, never shown.
    return c.body(new Uint8Array(Buffer.from(attachment.content, 'base64')), 200, {
      'Content-Type': 'application/octet-stream',
      'Content-Disposition': contentDisposition(attachment.filename),
      'X-Content-Type-Options': 'nosniff',
      'Content-Security-Policy': "default-src 'none'; sandbox",
    });
  });
  if (localMail) addComposing(app, { ...deps, localMail });
  return app;
}

/** Of the local mailbox: what puts mail on its way. */
function addComposing(
  app: Hono,
  { store, localMail, view }: Pick<MailboxRoutesDeps, 'store' | 'view'> & { localMail: LocalMail },
): void {
  app.post('/api/mailbox', limitBody(MAX_JSON_BYTES), async (c) => {
    if (!/^application\/json\b/i.test(c.req.header('Content-Type') ?? '')) {
      const message = 'the fields of an email are sent as application/json';
      return c.json({ error: { code: 'admin.not_json', message, hint: null } }, 415);
    }
    const raw = await localMail.compose(await readJson(c));
    return c.json(await localMail.deliver(raw), 201);
  });

  app.post('/api/mailbox/eml', limitBody(MAX_MESSAGE_BYTES), async (c) => {
    const raw = new Uint8Array(await c.req.arrayBuffer());
    const recipients = c.req.queries('to');
    return c.json(await localMail.deliver(raw, recipients ? { recipients } : {}), 201);
  });

  app.post('/api/mailbox/mails/:emailId/again', async (c) => {
    const mail = view.mail(c.req.param('emailId'));
    const pointer = mail && (await findBlob(store.stream(streamNames.mail(mail.emailId))));
    if (!pointer) return c.json(notFound('mail'), 404);
    const raw = await readBlob(store, pointer, c.req.raw.signal);
    return c.json(await localMail.deliver(raw, { recipients: mail.to }), 201);
  });
}

function eventStream({ view, clock }: MailboxRoutesDeps): (c: Context) => Response {
  let streams = 0;
  return (c) => {
    if (streams >= MAX_EVENT_STREAMS) {
      const message = `${streams} pages are open already`;
      return c.json({ error: { code: 'admin.too_many_pages', message, hint: 'Close some of them.' } }, 503);
    }
    streams++;
    // Caddy and nginx must not hold events back.
    c.header('X-Accel-Buffering', 'no');
    return streamSSE(c, async (stream) => {
      const closed = new AbortController();
      stream.onAbort(() => closed.abort());
      try {
        for (let seen = -1, isRunning = true; isRunning && !closed.signal.aborted;) {
          if (view.version() > seen) {
            seen = view.version();
            await stream.writeSSE({ event: 'change', data: String(seen) });
          } else await stream.write(': still here\n\n');
          using beat = createDeadline(clock, HEARTBEAT_MS, closed.signal);
          isRunning = await view.changed(seen, beat.signal);
        }
      } finally {
        streams--;
      }
    });
  };
}

async function settledMail(
  { view, clock }: MailboxRoutesDeps,
  { emailId, seconds, signal }: { emailId: string; seconds: number; signal: AbortSignal },
) {
  using limit = createDeadline(clock, seconds * 1000, signal);
  for (;;) {
    const version = view.version();
    const mail = view.mail(emailId);
    if (mail?.isSettled || limit.signal.aborted || !(await view.changed(version, limit.signal))) return mail;
  }
}

/** Of the local mailbox, or of what goes to the provider. */
async function readReply(
  { store, localMail }: Pick<MailboxRoutesDeps, 'store' | 'localMail'>,
  id: number,
  signal: AbortSignal,
): Promise<ProviderRequest | null> {
  const stream = store.stream(localMail ? streamNames.mailbox : streamNames.outbox);
  const record = await recordAt(stream, id, signal);
  return record ? requestOf(store, record, signal) : null;
}

async function readJson(c: Context): Promise<unknown> {
  const text = await c.req.text();
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MillraceError('invalid', 'admin.not_json', 'the body is not JSON', { cause });
  }
}

function limitBody(maxSize: number) {
  return bodyLimit({
    maxSize,
    onError: (c) => {
      const message = `the body exceeds ${maxSize} bytes`;
      return c.json(
        { error: { code: 'local_mail.too_large', message, hint: 'Send a smaller attachment.' } },
        413,
      );
    },
  });
}

/** RFC 6266: the name as it is for who reads it, an ASCII one for who does not. */
function contentDisposition(filename: string): string {
  const ascii = filename.replace(/[^\x20-\x7e]|["\\%]/g, '_');
  const encoded = encodeURIComponent(filename.toWellFormed()).replace(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`;
}

function notRead(): MillraceError {
  return new MillraceError('transient', 'streams.unavailable', 'the streams could not be read yet', {
    hint: 'Ask again in a moment; `millrace doctor` says what is wrong with the store.',
  });
}

function notFound(what: string) {
  const hint = 'It may have expired, or be older than what is kept in view.';
  return { error: { code: 'admin.not_found', message: `there is no such ${what}`, hint } };
}

function answerError(error: Error, c: Context, log: Log): Response {
  const kind = errorKind(error);
  if (!(error instanceof MillraceError) || kind === 'bug') {
    log.error({ error, method: c.req.method, path: c.req.path }, 'mailbox.request_failed');
    return c.json(
      {
        error: {
          code: 'admin.internal',
          message: 'this should not have happened',
          hint: 'The log says more.',
        },
      },
      500,
    );
  }
  const statuses = { transient: 503, permanent: 500, invalid: 422 } as const;
  const status: ContentfulStatusCode = error.code.endsWith('.too_large') ? 413 : statuses[kind];
  return c.json({ error: { code: error.code, message: error.message, hint: error.hint ?? null } }, status);
}
