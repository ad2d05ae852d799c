/**
 * The console as a view of the streams: follows them for everybody who looks at the page, and tells when
 * something changed.
 *
 * Following only wakes it. What is new is then read stream by stream in the order in which the stages write
 * (`events`, `received`, `inbox/…`, `runs/…`, `outbox`, `sent`, …), effects after their causes. So when a run is
 * seen to be done, every request that it made will have been seen too, and "no reply" is never a guess.
 *
 * Its work and its memory have a bound, however much mail comes: of each stream only the newest part is read,
 * at the start and wherever more than that has come since the last look; an inbox is read only when something
 * happened there; and with real mail there is a pause after each look.
 */
import type { Clock } from '../platform/clock.ts';
import { errorKind } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { parseJsonRecord, rerunRecordSchema, streamNames, toolsStreamSchema } from '../streams/records.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { conversationsOf, mailView } from './conversation.ts';
import type { Conversation, LocalMailView } from './conversation.ts';
import { MAX_MAILS, MailTraces, requestOf } from './mail-traces.ts';

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
  tools(): ToolsState;
}

/** What of the tools a person has to know while looking at mail. */
export interface ToolsState {
  /** What serves mail; null before the first. */
  readonly live: {
    readonly revision: string;
    readonly at: string;
    readonly inboxes: readonly string[];
  } | null;
  /** The newest revision, where it was refused: what the compiler or a test said. */
  readonly refused: { readonly at: string; readonly error: string } | null;
}

/** How far back a start looks, in records of a stream of each kind. */
const LOOK_BACK_RECORDS = { mail: 2 * MAX_MAILS, journal: 10 * MAX_MAILS } as const;
/** Inboxes that are followed. */
const MAX_INBOXES = 200;
/** Between two looks at real mail. */
const PAUSE_MS = 500;

/** Places in the order of cause and effect. */
const RANK = {
  events: 0,
  reruns: 0,
  received: 1,
  inbox: 2,
  runs: 3,
  outbox: 4,
  sent: 5,
  delivery: 6,
  mailbox: 6,
  tools: 7,
} as const;

interface Source {
  readonly stream: string;
  readonly rank: number;
  readonly lookBack: number;
  readonly add: (record: StreamRecord, signal: AbortSignal) => void | Promise<void>;
  /** Of an inbox, or of its runs: read only where something is known to have happened there. */
  readonly inbox?: string;
  /** Undefined until it was looked at. */
  nextSeqNum?: number;
}

interface Deps {
  store: StreamStore;
  clock: Clock;
  log: Log;
}

interface MailboxViewOptions {
  /** Whether what is shown is the mail that a person wrote in the local mailbox, or real mail. */
  isLocal: boolean;
}

export function createMailboxView(deps: Deps, options: MailboxViewOptions): MailboxView {
  return new StreamsMailboxView(deps, options);
}

class StreamsMailboxView implements MailboxView {
  readonly #deps: Deps;
  readonly #options: MailboxViewOptions;
  readonly #traces = new MailTraces();
  readonly #sources: Source[];
  #tools: ToolsState = { live: null, refused: null };
  /** Streams of inboxes in which something happened since they were read. */
  #stale = new Set<string>();
  readonly #waiting = new Set<() => void>();
  #version = 0;
  #hasEnded = false;
  #isStale = true;
  #wake: () => void = () => {};

  constructor(deps: Deps, options: MailboxViewOptions) {
    this.#deps = deps;
    this.#options = options;
    const traces = this.#traces;
    const { mail, journal } = LOOK_BACK_RECORDS;
    const { events, reruns, received, outbox, sent, delivery, mailbox, tools } = streamNames;
    const outcome: Source = options.isLocal
      ? {
          stream: mailbox,
          rank: RANK.mailbox,
          lookBack: mail,
          add: async (record, signal) => traces.addReply(record, await requestOf(deps.store, record, signal)),
        }
      : {
          stream: delivery,
          rank: RANK.delivery,
          lookBack: journal,
          add: (record) => traces.addDelivery(record),
        };
    this.#sources = [
      {
        stream: tools,
        rank: RANK.tools,
        lookBack: Infinity,
        add: (record) => this.#addTools(record),
      },
      {
        stream: events,
        rank: RANK.events,
        lookBack: mail,
        add: (record) => traces.addEvent(record, options),
      },
      { stream: reruns, rank: RANK.reruns, lookBack: mail, add: (record) => this.#addRerun(record) },
      {
        stream: received,
        rank: RANK.received,
        lookBack: journal,
        add: (record) => this.#addReceived(record),
      },
      {
        stream: outbox,
        rank: RANK.outbox,
        lookBack: mail,
        add: (record, signal) => this.#addRequest(record, signal),
      },
      { stream: sent, rank: RANK.sent, lookBack: journal, add: (record) => traces.addSent(record) },
      outcome,
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
      for (const source of this.#sources) {
        const { stream, rank, nextSeqNum } = source;
        // What comes to an inbox is told by `received` and by its runs: no mail need be carried only to wake us.
        if (rank === RANK.inbox || nextSeqNum === undefined || following.has(stream)) continue;
        const follow = this.#follow(source, nextSeqNum, running);
        following.set(
          stream,
          follow.catch((error: unknown) => failed.abort(error)),
        );
      }
      await this.#untilStale(running);
      if (!this.#options.isLocal) await this.#deps.clock.sleep(PAUSE_MS, running).catch(() => {});
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

  tools(): ToolsState {
    return this.#tools;
  }

  async #readAll(signal: AbortSignal): Promise<void> {
    let stale: ReadonlySet<string> = new Set();
    for (const rank of new Set(Object.values(RANK))) {
      for (const source of this.#sources.filter((one) => one.rank === rank)) {
        const { inbox, nextSeqNum } = source;
        const isAsBefore = inbox !== undefined && nextSeqNum !== undefined && !stale.has(inbox);
        if (!isAsBefore) await this.#readNew(source, signal);
      }
      if (rank !== RANK.received) continue;
      this.#addInboxes();
      // What happens from here on in an inbox is for the next time.
      stale = this.#stale;
      this.#stale = new Set();
    }
    this.#bumpVersion();
  }

  /** Up to the tail as it is now; of much, the newest part. */
  async #readNew(source: Source, signal: AbortSignal): Promise<void> {
    const stream = this.#deps.store.stream(source.stream);
    const tail = await stream.tail(signal);
    source.nextSeqNum = Math.max(source.nextSeqNum ?? 0, tail - source.lookBack);
    while (source.nextSeqNum < tail) {
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

  #addTools(record: StreamRecord): void {
    const tools = parseJsonRecord(toolsStreamSchema, record);
    if (tools.kind !== 'tools') return;
    const { revision, status, at, inboxes, error } = tools;
    this.#tools =
      status === 'live'
        ? { live: { revision, at, inboxes }, refused: null }
        : { ...this.#tools, refused: { at, error: error ?? 'no reason is on record' } };
  }

  #addRerun(record: StreamRecord): void {
    const { phase, to } = parseJsonRecord(rerunRecordSchema, record);
    if (phase === 'done') this.#stale.add(to);
  }

  #addReceived(record: StreamRecord): void {
    for (const stream of this.#traces.addReceived(record)) this.#stale.add(stream);
  }

  async #addRequest(record: StreamRecord, signal: AbortSignal): Promise<void> {
    const traces = this.#traces;
    // In the local mailbox, what arrived there is shown.
    const isShown = !this.#options.isLocal && traces.isRequestShown(record);
    traces.addRequest(record, isShown ? await requestOf(this.#deps.store, record, signal) : null);
  }

  /** The inboxes that receive has routed our mails to. */
  #addInboxes(): void {
    const known = new Set(this.#sources.map(({ stream }) => stream));
    const traces = this.#traces;
    for (const inbox of traces.inboxStreams()) {
      if (known.has(inbox) || known.size > 2 * MAX_INBOXES) continue;
      known.add(inbox);
      const runs = streamNames.runs(inbox.slice(streamNames.inboxPrefix.length));
      const { mail, journal } = LOOK_BACK_RECORDS;
      const addInboxed: Source['add'] = (record) => traces.addInboxed(inbox, record);
      const addRun: Source['add'] = (record) => traces.addRun(inbox, record);
      this.#sources.push(
        { stream: inbox, inbox, rank: RANK.inbox, lookBack: mail, add: addInboxed },
        { stream: runs, inbox, rank: RANK.runs, lookBack: journal, add: addRun },
      );
    }
  }

  async #follow({ stream, inbox }: Source, fromSeqNum: number, signal: AbortSignal): Promise<void> {
    for await (const _ of this.#deps.store.stream(stream).follow({ fromSeqNum, signal })) {
      if (inbox !== undefined) this.#stale.add(inbox);
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
