/**
 * The local mailbox as a view of the streams: follows them for everybody who looks at the page, and tells
 * when something changed.
 *
 * Following only wakes it. What is new is then read stream by stream in the order in which the stages write
 * (`events`, `received`, `inbox/…`, `runs/…`, `outbox`, `sent`, `mailbox`), effects after their causes. So when
 * a run is seen to be done, every request that it made will have been seen too, and "no reply" is never a
 * guess. Only the newest part of each stream is read at start.
 */
import { errorKind } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { streamNames } from '../streams/records.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { conversationsOf, mailView } from './conversation.ts';
import type { Conversation, LocalMailView } from './conversation.ts';
import { MAX_MAILS, MailTraces, requestOfReply } from './mail-traces.ts';

export interface MailboxView {
  /** Follows the streams until the signal is aborted; rejects with what the store throws, and may then be called again. */
  run(signal: AbortSignal): Promise<void>;
  /** Grows with every change; 0 until the streams were read for the first time. */
  version(): number;
  /** Resolves as soon as the version is above `sinceVersion`, and when the signal is aborted; false when `run` has ended. */
  changed(sinceVersion: number, signal: AbortSignal): Promise<boolean>;
  /** The newest 200 mails by conversation, the latest first. */
  conversations(): Conversation[];
  mail(emailId: string): LocalMailView | undefined;
}

/** How far back a start looks, in records of a stream of each kind. */
const LOOK_BACK_RECORDS = { mail: 2 * MAX_MAILS, journal: 10 * MAX_MAILS } as const;
/** Inboxes that are followed. */
const MAX_INBOXES = 200;

/** Places in the order of cause and effect. */
const RANK = { events: 0, received: 1, inbox: 2, runs: 3, outbox: 4, sent: 5, mailbox: 6, tools: 7 } as const;

interface Source {
  readonly stream: string;
  readonly rank: number;
  readonly lookBack: number;
  readonly add: (record: StreamRecord, signal: AbortSignal) => void | Promise<void>;
  /** Undefined until it was looked at. */
  nextSeqNum?: number;
}

interface Deps {
  store: StreamStore;
  log: Log;
}

export function createMailboxView(deps: Deps): MailboxView {
  return new StreamsMailboxView(deps);
}

class StreamsMailboxView implements MailboxView {
  readonly #deps: Deps;
  readonly #traces = new MailTraces();
  readonly #sources: Source[];
  readonly #waiting = new Set<() => void>();
  #version = 0;
  #hasEnded = false;
  #isStale = true;
  #wake: () => void = () => {};

  constructor(deps: Deps) {
    this.#deps = deps;
    const traces = this.#traces;
    const { mail, journal } = LOOK_BACK_RECORDS;
    this.#sources = [
      // Not a trace of mail: it only tells that other inboxes are served now.
      { stream: streamNames.tools, rank: RANK.tools, lookBack: 0, add: () => {} },
      {
        stream: streamNames.events,
        rank: RANK.events,
        lookBack: mail,
        add: (record) => traces.addEvent(record),
      },
      {
        stream: streamNames.received,
        rank: RANK.received,
        lookBack: journal,
        add: (record) => traces.addReceived(record),
      },
      {
        stream: streamNames.outbox,
        rank: RANK.outbox,
        lookBack: mail,
        add: (record) => traces.addRequest(record),
      },
      {
        stream: streamNames.sent,
        rank: RANK.sent,
        lookBack: journal,
        add: (record) => traces.addSent(record),
      },
      {
        stream: streamNames.mailbox,
        rank: RANK.mailbox,
        lookBack: mail,
        add: async (record, signal) =>
          traces.addReply(record, await requestOfReply(deps.store, record, signal)),
      },
    ];
  }

  async run(signal: AbortSignal): Promise<void> {
    this.#hasEnded = false;
    const failed = new AbortController();
    const running = AbortSignal.any([signal, failed.signal]);
    running.addEventListener('abort', () => this.#wake(), { once: true });
    const following = new Map<string, Promise<void>>();
    while (!running.aborted) {
      this.#isStale = false;
      await this.#readAll(running).catch((error: unknown) => failed.abort(error));
      for (const { stream, nextSeqNum } of this.#sources) {
        if (nextSeqNum === undefined || following.has(stream)) continue;
        const follow = this.#follow(stream, nextSeqNum, running);
        following.set(
          stream,
          follow.catch((error: unknown) => failed.abort(error)),
        );
      }
      await this.#untilStale(running);
    }
    this.#hasEnded = true;
    this.#bumpVersion();
    await Promise.all(following.values());
    if (!signal.aborted) throw failed.signal.reason;
  }

  version(): number {
    return this.#version;
  }

  async changed(sinceVersion: number, signal: AbortSignal): Promise<boolean> {
    if (this.#version <= sinceVersion && !signal.aborted && !this.#hasEnded) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.add(resolve);
      signal.addEventListener('abort', () => resolve(), { once: true });
      await promise;
      this.#waiting.delete(resolve);
    }
    return !this.#hasEnded;
  }

  conversations(): Conversation[] {
    return conversationsOf(this.#traces);
  }

  mail(emailId: string): LocalMailView | undefined {
    return mailView(this.#traces, emailId);
  }

  async #readAll(signal: AbortSignal): Promise<void> {
    for (const rank of Object.values(RANK)) {
      for (const source of this.#sources.filter((one) => one.rank === rank))
        await this.#readNew(source, signal);
      if (rank === RANK.received) this.#addInboxes();
    }
    this.#bumpVersion();
  }

  async #readNew(source: Source, signal: AbortSignal): Promise<void> {
    const stream = this.#deps.store.stream(source.stream);
    source.nextSeqNum ??= Math.max(0, (await stream.tail(signal)) - source.lookBack);
    for (;;) {
      const batch = await stream.read({ fromSeqNum: source.nextSeqNum, signal });
      for (const record of batch.records) await this.#addOrSkip(source, record, signal);
      if (batch.nextSeqNum === source.nextSeqNum) return;
      source.nextSeqNum = batch.nextSeqNum;
    }
  }

  /** One record that cannot be read must not take the page away from all other mail. */
  async #addOrSkip(source: Source, record: StreamRecord, signal: AbortSignal): Promise<void> {
    try {
      await source.add(record, signal);
    } catch (error) {
      if (signal.aborted || errorKind(error) === 'transient') throw error;
      this.#deps.log.warn(
        { stream: source.stream, seqNum: record.seqNum, error },
        'mailbox.unreadable_record',
      );
    }
  }

  /** The inboxes that receive has routed our mails to. */
  #addInboxes(): void {
    const known = new Set(this.#sources.map(({ stream }) => stream));
    const traces = this.#traces;
    for (const stream of traces.inboxStreams()) {
      if (known.has(stream) || known.size > 2 * MAX_INBOXES) continue;
      known.add(stream);
      const runs = streamNames.runs(stream.slice(streamNames.inboxPrefix.length));
      const { mail, journal } = LOOK_BACK_RECORDS;
      this.#sources.push(
        { stream, rank: RANK.inbox, lookBack: mail, add: (record) => traces.addInboxed(stream, record) },
        { stream: runs, rank: RANK.runs, lookBack: journal, add: (record) => traces.addRun(stream, record) },
      );
    }
  }

  async #follow(stream: string, fromSeqNum: number, signal: AbortSignal): Promise<void> {
    for await (const _ of this.#deps.store.stream(stream).follow({ fromSeqNum, signal })) {
      this.#isStale = true;
      this.#wake();
    }
  }

  async #untilStale(signal: AbortSignal): Promise<void> {
    if (this.#isStale || signal.aborted) return;
    await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  #bumpVersion(): void {
    this.#version++;
    for (const resolve of this.#waiting) resolve();
  }
}
