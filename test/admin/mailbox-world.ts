/**
 * The local mailbox on a real store behind real HTTP, with the real receive and outbox stages. In place of the
 * runner stands a stage whose handler a test gives for each inbox, so that every outcome can be made.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Hono } from 'hono';
import { adminAuth } from '../../src/admin/admin-auth.ts';
import { createLocalMail } from '../../src/admin/local-mail.ts';
import type { LocalMail } from '../../src/admin/local-mail.ts';
import { createMailboxRoutes } from '../../src/admin/mailbox-routes.ts';
import { createMailboxView } from '../../src/admin/mailbox-view.ts';
import type { MailboxView } from '../../src/admin/mailbox-view.ts';
import { startHttpServer } from '../../src/ingest/http-server.ts';
import { mailWorkInPlace } from '../../src/mail/mail-work.ts';
import { createReceive } from '../../src/ingest/receive.ts';
import { composeReply } from '../../src/mail/reply.ts';
import type { MailContent } from '../../src/mail/content.ts';
import { createMailboxOutbound } from '../../src/outbox/mailbox-outbound.ts';
import { createOutbox } from '../../src/outbox/outbox.ts';
import { createSuppressions } from '../../src/outbox/suppressions.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { writeBlob } from '../../src/streams/blob.ts';
import { createLiveTools } from '../../src/streams/live-tools.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { inboxRecordSchema, jsonRecord, parseJsonRecord, streamNames } from '../../src/streams/records.ts';
import type { InboxRecord, OutboxRecord } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { Outcome, StageOptions } from '../../src/streams/stage.ts';
import type { StreamRecord, StreamStore } from '../../src/streams/stream-store.ts';

export const TOKEN = 'the-admin-token';
export const DOMAIN = 'millrace.localhost';
const DRAIN_MS = 10_000;
const MAX_INLINE_BYTES = 700 * 1024;

/** What a tool would make of a mail: replies, or an outcome of its own. */
export type Tool = (mail: InboxRecord) => MailContent | readonly MailContent[] | Outcome | Promise<Outcome>;

export interface MailboxWorld {
  readonly url: string;
  readonly store: StreamStore;
  readonly localMail: LocalMail;
  readonly view: MailboxView;
  /** Where the stream store lies. */
  readonly directory: string;
  /** With the token; rejects unless the status is 2xx. */
  api(path: string, init?: RequestInit): Promise<Response>;
  /** Sends `text` to the inbox and resolves to its id when the view has it settled. */
  send(inbox: string, fields?: Record<string, unknown>): Promise<string>;
  settled(emailId: string): Promise<NonNullable<ReturnType<MailboxView['mail']>>>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function startMailbox(tools: Record<string, Tool>): Promise<MailboxWorld> {
  const stack = new AsyncDisposableStack();
  const [clock, log] = [systemClock, createLog('silent')];
  const directory = await mkdtemp(join(tmpdir(), 'millrace-mailbox-'));
  stack.defer(() => rm(directory, { recursive: true }));
  const store = await openLocalStore({ clock, log }, { directory, retentionFor: () => 'forever' });
  stack.defer(() => store.close());
  const inboxes = Object.keys(tools);
  await store
    .stream(streamNames.tools)
    .append([
      jsonRecord({ kind: 'tools', version: 1, revision: 'r1', status: 'live', inboxes, error: null, at: '' }),
    ]);
  const liveTools = createLiveTools({ store, log });
  const localMail = createLocalMail({ store, clock, log }, { domains: [DOMAIN] });
  const view = createMailboxView({ store, clock, log }, { isLocal: true });

  const stop = new AbortController();
  const stage = (options: Pick<StageOptions, 'name' | 'source' | 'journal' | 'handle'>): Promise<void> =>
    createStage(
      { store, clock, log },
      { ...options, concurrency: 4, backoff: { baseMs: 1, maxMs: 1 }, maxAttempts: 3 },
    ).run(stop.signal);
  const receive = createReceive(
    {
      store,
      tools: liveTools,
      mailWork: mailWorkInPlace,
      inbound: { rawMessage: () => Promise.reject(new Error('nobody is asked')) },
    },
    { domains: [DOMAIN] },
  );
  const outbound = createMailboxOutbound({ store, clock, log });
  const suppressions = createSuppressions({ store, clock, log }, { keptMs: Infinity });
  const outbox = createOutbox({ store, clock, outbound, suppressions });
  const working = [
    liveTools.run(stop.signal),
    view.run(stop.signal),
    stage({ name: 'receive', source: streamNames.events, journal: streamNames.received, handle: receive }),
    stage({ name: 'outbox', source: streamNames.outbox, journal: streamNames.sent, handle: outbox }),
    ...Object.entries(tools).map(([inbox, tool]) =>
      stage({
        name: inbox,
        source: streamNames.inbox(inbox),
        journal: streamNames.runs(inbox),
        handle: (record) => runTool(store, { inbox, tool, record }),
      }),
    ),
  ];
  const app = new Hono();
  app.use('*', adminAuth(TOKEN));
  app.route('/', createMailboxRoutes({ store, localMail, view, domains: [DOMAIN], clock, log }));
  const server = await startHttpServer({ fetch: app.fetch, host: '127.0.0.1', port: 0, log });
  stack.defer(() => server.close(DRAIN_MS));
  // As the daemon does it: the services first, so that whoever listens for changes is let go.
  stack.defer(async () => {
    stop.abort();
    // Whatever was still starting may say that it was stopped.
    await Promise.allSettled(working);
  });

  const api: MailboxWorld['api'] = async (path, init = {}) => {
    const headers = { Authorization: `Bearer ${TOKEN}`, ...(init.headers as Record<string, string>) };
    const response = await fetch(`${server.url}${path}`, { ...init, headers });
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
    return response;
  };
  const settled: MailboxWorld['settled'] = async (emailId) => {
    for (;;) {
      const version = view.version();
      const mail = view.mail(emailId);
      if (mail?.isSettled) return mail;
      await view.changed(version, stop.signal);
    }
  };
  return {
    url: server.url,
    store,
    localMail,
    view,
    directory,
    api,
    settled,
    async send(inbox, fields = {}) {
      const message = {
        from: 'Ann <ann@sender.example>',
        to: `${inbox}@${DOMAIN}`,
        subject: 'Hi',
        text: 'Hello',
        ...fields,
      };
      const { emailId } = await localMail.deliver(await localMail.compose(message));
      await settled(emailId);
      return emailId;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function runTool(
  store: StreamStore,
  { inbox, tool, record }: { inbox: string; tool: Tool; record: StreamRecord },
): Promise<Outcome> {
  const mail = parseJsonRecord(inboxRecordSchema, record);
  const made = await tool(mail);
  if ('kind' in made) return made;
  const outputs = [];
  for (const [effect, reply] of [made].flat().entries()) {
    const { request } = composeReply({
      email: mail.email,
      inbox,
      inboxAddress: mail.address,
      domains: [DOMAIN],
      reply,
    });
    if (!request) continue;
    const idempotencyKey = `${inbox}/${record.seqNum}/${effect}/${mail.emailId}`;
    const bytes = Buffer.from(JSON.stringify(request));
    const frozen: OutboxRecord = {
      kind: 'request',
      version: 1,
      idempotencyKey,
      cause: { inbox, seqNum: record.seqNum, effect, emailId: mail.emailId },
      thread: 't',
      notBefore: null,
      request:
        bytes.length > MAX_INLINE_BYTES
          ? { blob: await writeBlob(store.stream(streamNames.request(idempotencyKey)), bytes) }
          : request,
    };
    outputs.push({ stream: streamNames.outbox, record: jsonRecord(frozen, idempotencyKey) });
  }
  const facts = { emailId: mail.emailId, revision: 'r1', toolMs: 1.5, logs: ['started'] };
  return { kind: 'done', outputs, facts };
}

/** The tool of the first example. */
export const reverser: Tool = ({ email }) => ({ text: Array.from(email.text).toReversed().join('') });
