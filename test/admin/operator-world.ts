/**
 * The admin API on a real store behind real HTTP, and real stages with a handler that a test gives, which run for as
 * long as there is something to do.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Hono } from 'hono';
import { adminAuth } from '../../src/admin/admin-auth.ts';
import { createConsole } from '../../src/admin/console.ts';
import { createHealth } from '../../src/admin/health.ts';
import type { DeadLetter } from '../../src/admin/dead-letters.ts';
import type { RedrivePage } from '../../src/admin/redrive.ts';
import { startHttpServer } from '../../src/ingest/http-server.ts';
import { parseMessage } from '../../src/mail/message.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { watchAppends } from '../../src/streams/append-watch.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import type { InboxRecord } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { StageOptions } from '../../src/streams/stage.ts';
import type { StreamRecord, StreamStore } from '../../src/streams/stream-store.ts';
import { readAll } from '../streams/store-reading.ts';

export const OPERATOR_TOKEN = 'the-admin-token';
export interface OperatorWorld {
  readonly url: string;
  readonly store: StreamStore;
  /** With the token. */
  ask(path: string, init?: { body?: unknown; token?: string | null }): Promise<Response>;
  redrive(body: Record<string, unknown>): Promise<RedrivePage['deadLetters']>;
  deadLetters(query?: string): Promise<DeadLetter[]>;
  /** Puts a mail on `inbox/<name>` as receive does; gives its number there. */
  mail(emailId: string, options?: { stream?: string; inbox?: string; receivedAt?: string }): Promise<number>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function startOperatorWorld(): Promise<OperatorWorld> {
  const stack = new AsyncDisposableStack();
  const [clock, log] = [systemClock, createLog('silent')];
  const directory = await mkdtemp(join(tmpdir(), 'millrace-operator-'));
  stack.defer(() => rm(directory, { recursive: true }));
  const store = await openLocalStore({ clock, log }, { directory, retentionFor: () => 'forever' });
  stack.defer(() => store.close());
  const app = new Hono();
  app.use('*', adminAuth(OPERATOR_TOKEN));
  const process = { services: () => [], missingRoles: () => ['runner' as const], hasTools: () => false };
  const health = createHealth({ store, appends: watchAppends({ store, clock }), clock, ...process });
  const console = createConsole(
    { store, health, inboxes: () => ['desk', 'default'], clock, log },
    { isLocal: false, domains: ['y.example'], keptMs: 90 * 86_400_000 },
  );
  app.route('/', console.routes);
  const server = await startHttpServer({ fetch: app.fetch, host: '127.0.0.1', port: 0, log });
  stack.defer(() => server.close(1000));

  const ask: OperatorWorld['ask'] = (path, { body, token = OPERATOR_TOKEN } = {}) =>
    fetch(`${server.url}${path}`, {
      headers: {
        ...(token === null ? {} : { Authorization: `Bearer ${token}` }),
        'Content-Type': 'application/json',
      },
      ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    });
  return {
    url: server.url,
    store,
    ask,
    async redrive(body) {
      const response = await ask('/api/admin/redrive', { body });
      if (!response.ok) throw new Error(await response.text());
      return ((await response.json()) as RedrivePage).deadLetters;
    },
    async deadLetters(query = 'inbox=desk') {
      const response = await ask(`/api/admin/dead-letters?${query}`);
      return ((await response.json()) as { deadLetters: DeadLetter[] }).deadLetters;
    },
    async mail(emailId, options = {}) {
      const { stream = streamNames.inbox('desk'), inbox = 'desk' } = options;
      const { receivedAt = new Date().toISOString() } = options;
      const raw = Buffer.from(`From: ann@x.example\r\nTo: ${inbox}@y.example\r\nSubject: Hi\r\n\r\nHello`);
      const record: InboxRecord = {
        kind: 'email',
        version: 1,
        emailId,
        inbox,
        address: `${inbox}@y.example`,
        tag: null,
        receivedAt,
        email: await parseMessage(raw),
        complete: true,
        raw: { stream: `mail/${emailId}`, bytes: raw.length, sha256: '' },
      };
      return (await store.stream(stream).append([jsonRecord(record, emailId)])).startSeqNum;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Works on a source until everything that is on it now is settled, then stops. */
export async function workOff(
  store: StreamStore,
  {
    source,
    journal,
    handle,
    ...options
  }: Pick<StageOptions, 'source' | 'journal' | 'handle'> & Partial<StageOptions>,
): Promise<void> {
  const [clock, log] = [systemClock, createLog('silent')];
  const stop = new AbortController();
  const stage = createStage(
    { store, clock, log },
    {
      name: source,
      source,
      journal,
      concurrency: 4,
      backoff: { baseMs: 1, maxMs: 1 },
      maxAttempts: 2,
      handle,
      ...options,
    },
  );
  const running = stage.run(stop.signal);
  await Promise.race([stage.ready, running]);
  const total = (await readAll(store.stream(source))).length;
  for (;;) {
    const settled = (await readAll(store.stream(journal))).filter((record) => isFinal(record)).length;
    if (settled >= total) break;
    await new Promise((resolve) => setImmediate(resolve));
  }
  stop.abort();
  await running;
}

function isFinal(record: StreamRecord): boolean {
  const { kind, outcome } = JSON.parse(Buffer.from(record.body).toString()) as {
    kind: string;
    outcome?: string;
  };
  return kind === 'outcome' && outcome !== 'deferred';
}
