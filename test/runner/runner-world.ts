/** The real runner over a real store and a real sandbox, with tools that a test writes. Nothing is sent anywhere. */
import { afterEach, expect } from 'vitest';
import { mailWorkInPlace } from '../../src/mail/mail-work.ts';
import { parseMessage } from '../../src/mail/message.ts';
import type { Budget } from '../../src/platform/budget.ts';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { createReplyCaps, defaultReplyCaps } from '../../src/runner/reply-caps.ts';
import type { ReplyCapOptions } from '../../src/runner/reply-caps.ts';
import { createTextLookup } from '../../src/runner/sender-lookups.ts';
import { createSenderAuthentication } from '../../src/runner/senders.ts';
import { createRunner } from '../../src/runner/runner.ts';
import { createToolBreaker } from '../../src/runner/tool-breaker.ts';
import type { ToolBreaker } from '../../src/runner/tool-breaker.ts';
import type { ToolRevision } from '../../src/runner/tool-revision.ts';
import { readBlob, writeBlob } from '../../src/streams/blob.ts';
import { outcomeSchema } from '../../src/streams/journal-records.ts';
import type { OutcomeRecord } from '../../src/streams/journal-records.ts';
import { createSoleOwnership } from '../../src/streams/ownership.ts';
import { jsonRecord, outboxRecordSchema, parseJsonRecord, streamNames } from '../../src/streams/records.ts';
import type { InboxRecord, OutboxRecord } from '../../src/streams/records.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import type { ProviderRequest } from '../../src/mail/email.ts';
import { readAll } from '../streams/store-reading.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';
import { useSandbox } from './tool-fixture.ts';

const DOMAIN = 'agent.example';

export interface RunnerWorld {
  store(): StreamStore;
  /** Sandbox processes that were started so far. */
  sandboxStarts(): number;
  /** Starts a runner with these tools; ends the one before. */
  start(tools: string, options?: RunnerWorldOptions): Promise<void>;
  /** Drains it. */
  stop(): Promise<void>;
  /** Waits until the runner has ended by itself. */
  ended(): Promise<void>;
  /** Puts a mail of Ann's into an inbox; each of `fields` is a header field. */
  mail(inbox: string, text: string, fields?: readonly string[]): Promise<{ seqNum: number; emailId: string }>;
  /** Puts a whole message into an inbox. */
  message(inbox: string, raw: string): Promise<{ seqNum: number; emailId: string }>;
  /** Waits for that many final outcomes in an inbox. */
  settled(inbox: string, count: number): Promise<OutcomeRecord[]>;
  /** What stands on `outbox`, in order, with its request. */
  outbox(): Promise<(Omit<OutboxRecord, 'request'> & { request: ProviderRequest })[]>;
}

export interface RunnerWorldOptions {
  /** What stands between the runner and its store. */
  wrapStore?: (store: StreamStore) => StreamStore;
  concurrency?: number;
  caps?: Partial<ReplyCapOptions>;
  toolSecrets?: Readonly<Record<string, string>>;
  /** For large mails. Default: the runner's own. */
  memory?: Budget;
  /** Default: the system's. */
  dnsServers?: readonly string[];
  /** Default: the system's. */
  clock?: Clock;
  /** Default: a new one. */
  breaker?: ToolBreaker;
}

export function useRunnerWorld(): RunnerWorld {
  const sandbox = useSandbox({ minChildren: 2, maxChildren: 4 });
  const store = useTemporaryStore();
  const log = createLog('silent');
  let mails = 0;
  let running: { stop: AbortController; done: Promise<void> } | null = null;

  async function stop(): Promise<void> {
    running?.stop.abort();
    await running?.done;
    running = null;
  }
  afterEach(stop);

  async function outcomes(inbox: string): Promise<OutcomeRecord[]> {
    const records = await readAll(store().stream(streamNames.runs(inbox)));
    return records.flatMap((record) => {
      const parsed = outcomeSchema.safeParse(JSON.parse(Buffer.from(record.body).toString()));
      return parsed.success && parsed.data.outcome !== 'deferred' ? [parsed.data] : [];
    });
  }

  async function message(inbox: string, text: string): Promise<{ seqNum: number; emailId: string }> {
    const emailId = `email-${++mails}`;
    const raw = Buffer.from(text);
    const record: InboxRecord = {
      kind: 'email',
      version: 1,
      emailId,
      inbox,
      address: `${inbox}@${DOMAIN}`,
      tag: null,
      receivedAt: new Date().toISOString(),
      email: await parseMessage(raw),
      complete: true,
      raw: await writeBlob(store().stream(streamNames.mail(emailId)), raw),
    };
    const { startSeqNum } = await store()
      .stream(streamNames.inbox(inbox))
      .append([jsonRecord(record, emailId)]);
    return { seqNum: startSeqNum, emailId };
  }

  return {
    store,
    sandboxStarts: () => sandbox.pool.stats().starts,
    stop,
    async start(tools, options = {}) {
      const { wrapStore = (plain) => plain, concurrency = 4, caps = {} } = options;
      const { toolSecrets = {}, dnsServers = [], clock = systemClock } = options;
      await stop();
      const bundle = await sandbox.bundle(tools);
      const toolOf = new Map(bundle.exports.map((name) => [name, name]));
      const revision: ToolRevision = { revision: bundle.revision, bundle, toolOf };
      const seen = wrapStore(store());
      const runner = createRunner(
        {
          store: seen,
          pool: sandbox.pool,
          mailWork: mailWorkInPlace,
          authenticate: createSenderAuthentication({
            mailWork: mailWorkInPlace,
            lookUp: createTextLookup(dnsServers),
            clock,
          }),
          tools: {
            current: () => revision,
            live: async () => revision,
            upToDate: () => Promise.resolve(revision),
            onLive: () => () => {},
            run: async () => {},
          },
          createCaps: () => createReplyCaps({ store: seen, clock }, { ...defaultReplyCaps, ...caps }),
          breaker: options.breaker ?? createToolBreaker({ clock, log }),
          ownership: createSoleOwnership(seen),
          clock,
          log,
          toolSecrets,
          ...(options.memory && { memory: options.memory }),
        },
        { domains: [DOMAIN], concurrency, historyMs: Infinity, maxDelayMs: 60 * 86_400_000 },
      );
      const abort = new AbortController();
      const done = runner.run(abort.signal);
      done.catch(() => {});
      running = { stop: abort, done };
    },
    async ended() {
      await running?.done.catch(() => {});
      running = null;
    },
    mail(inbox, text, fields = []) {
      const has = (name: string) => fields.some((field) => field.toLowerCase().startsWith(name));
      const head = [
        ...(has('from:') ? [] : ['From: Ann <ann@sender.example>']),
        ...(has('message-id:') ? [] : [`Message-ID: <email-${mails + 1}@x>`]),
        `To: ${inbox}@${DOMAIN}`,
        'Subject: Hello',
      ];
      return message(inbox, `${[...head, ...fields].join('\r\n')}\r\n\r\n${text}`);
    },
    message,
    async settled(inbox, count) {
      await expect
        .poll(async () => (await outcomes(inbox)).length, { timeout: 20_000, interval: 20 })
        .toBe(count);
      return outcomes(inbox);
    },
    async outbox() {
      const records = await readAll(store().stream(streamNames.outbox));
      return Promise.all(
        records.map(async (record) => {
          const frozen = parseJsonRecord(outboxRecordSchema, record);
          const { request } = frozen;
          if (!('blob' in request)) return { ...frozen, request };
          const bytes = await readBlob(store(), request.blob);
          return { ...frozen, request: JSON.parse(Buffer.from(bytes).toString()) as ProviderRequest };
        }),
      );
    },
  };
}
