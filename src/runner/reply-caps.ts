/**
 * The caps on automatic mail within a sliding day. On replies, per sender and per thread: the last guard against
 * a loop whose other side hides that it is a machine. On mail to others, per recipient and for the inbox: what a
 * tool can do to people who never wrote to it.
 *
 * A thread is one sender's mail with the same root of its references. Anybody can name a root, so what others say below
 * the same one counts apart, and together only against a larger cap: who knows a Message-ID must not be able to silence
 * the conversation. A responder that strips its references still tends to keep the `Re:` that we gave it, so a mail with
 * a reply prefix and no references counts for its sender and subject; a fresh mail counts for itself alone. What strips
 * even that runs into the sender's cap. A run with several replies takes as many places.
 *
 * Runs go on side by side, so a mail is looked at twice: before its tool runs, to spare it, and when it is known what
 * the run sends. Then it takes its places, all of them or none, in one step: no cap is exceeded by those under way.
 *
 * The counts are a view of the stream `runs/<name>`: `restore` reads them back at start.
 */
import { createHash } from 'node:crypto';
import { normaliseAddress } from '../mail/address.ts';
import { baseSubject, isReplySubject } from '../mail/thread.ts';
import type { ParsedEmail } from '../mail/email.ts';
import type { Clock } from '../platform/clock.ts';
import { firstSince } from '../streams/first-since.ts';
import { streamNames } from '../streams/records.ts';
import { mentions, scan } from '../streams/stream-scan.ts';
import type { StreamStore } from '../streams/stream-store.ts';

export interface ReplyCaps {
  /** Why this mail may not be answered any more, or null. */
  exceeded(email: ParsedEmail, recipient: string): ReplyCap | null;
  /** Counts what a run sends, or says which cap that would exceed. */
  take(email: ParsedEmail, recipient: string, sent?: Sent): Taken;
  /** Reads back the replies of the last day from an inbox's journal, in place of what was counted here. */
  restore(inbox: string, signal: AbortSignal): Promise<void>;
}

export type ReplyCap = 'sender-cap' | 'thread-cap';
export type SendCap = 'recipient-cap' | 'inbox-cap';

export type Taken =
  | { readonly cap: ReplyCap | SendCap }
  | {
      readonly cap: null;
      /** Kept in the run's facts, so that a restart can count it again. */
      readonly keys: CapKeys;
      /** For a run that sends nothing after all. */
      giveBack(): void;
    };

interface Sent {
  /** Default, and least: one. */
  readonly replies?: number;
  /** Others who get mail, once for each. */
  readonly others?: readonly string[];
}

export interface CapKeys {
  readonly sender: string;
  readonly thread: string;
  /** Of the references, whoever writes; missing where the subject stands in for them. */
  readonly root?: string;
  /** Where there are several. */
  readonly replies?: number;
  /** Others who got mail, once for each. */
  readonly others?: readonly string[];
}

export interface ReplyCapOptions {
  perSender: number;
  /** With one sender. */
  perThread: number;
  /** With all who name the same root. */
  perRoot: number;
  /** Mails to one address that is not the sender's. */
  perRecipient: number;
  /** Mails to others, each recipient counted. */
  perInbox: number;
}

export const defaultReplyCaps: ReplyCapOptions = {
  perSender: 500,
  perThread: 30,
  perRoot: 300,
  perRecipient: 500,
  perInbox: 2_000,
};

const DAY_MS = 86_400_000;
/** A clock that is set back by less forgets nothing. */
const CLOCK_MARGIN_MS = 3_600_000;
/** How far back a restart looks: more replies than this a day make it forget the earliest. */
const RESTORE_RECORDS = 20_000;
const MAX_COUNTED = 100_000;
/** Senders write keys: of a longer one its hash is kept, here and on record. An address and an id mostly fit. */
const MAX_KEY_CHARS = 200;
/** The key under which all mail to others is counted together. */
const ALL_OTHERS = 'to others';

export function createReplyCaps(
  deps: { store: StreamStore; clock: Clock },
  options: ReplyCapOptions,
): ReplyCaps {
  const { store, clock } = deps;
  /** Times of replies by key, oldest first. */
  const counted = new Map<string, number[]>();

  /** What lies ahead was counted by a clock that was wrong, and would count for as long as that was ahead. */
  const isOfLastDay = (atMs: number): boolean => {
    const ageMs = clock.nowMs() - atMs;
    return ageMs <= DAY_MS && ageMs >= -CLOCK_MARGIN_MS;
  };

  const recent = (key: string): number[] => {
    const times = (counted.get(key) ?? []).filter(isOfLastDay);
    if (times.length === 0) counted.delete(key);
    return times;
  };

  function add(keys: CapKeys, atMs: number): void {
    for (const key of countedKeys(keys)) addTime(key, atMs);
  }

  function remove(keys: CapKeys, atMs: number): void {
    for (const key of countedKeys(keys)) {
      const times = counted.get(key) ?? [];
      const at = times.lastIndexOf(atMs);
      if (at >= 0) counted.set(key, times.toSpliced(at, 1));
    }
  }

  function exceeded({ sender, thread, root, replies = 1 }: CapKeys): ReplyCap | null {
    const isAbove = (key: string, cap: number): boolean => recent(key).length + replies > cap;
    if (isAbove(sender, options.perSender)) return 'sender-cap';
    if (isAbove(thread, options.perThread)) return 'thread-cap';
    return root !== undefined && isAbove(root, options.perRoot) ? 'thread-cap' : null;
  }

  function exceededBySending(others: readonly string[]): SendCap | null {
    const counts = new Map<string, number>();
    for (const key of others.map(otherKey)) counts.set(key, (counts.get(key) ?? 0) + 1);
    for (const [key, more] of counts)
      if (recent(key).length + more > options.perRecipient) return 'recipient-cap';
    const isTooMuch = others.length > 0 && recent(ALL_OTHERS).length + others.length > options.perInbox;
    return isTooMuch ? 'inbox-cap' : null;
  }

  function addTime(key: string, atMs: number): void {
    const times = recent(key);
    times.push(atMs);
    // Re-inserted at the end: the key that has been quiet longest is the first to go.
    counted.delete(key);
    counted.set(key, times);
    if (counted.size > MAX_COUNTED) counted.delete(counted.keys().next().value!);
  }

  return {
    exceeded: (email, recipient) => exceeded(keysOf(email, recipient)),
    take(email, recipient, { replies = 1, others = [] } = {}) {
      const keys = {
        ...keysOf(email, recipient),
        ...(replies > 1 && { replies }),
        ...(others.length > 0 && { others: others.map(otherKey) }),
      };
      const cap = exceeded(keys) ?? exceededBySending(others);
      if (cap !== null) return { cap };
      const atMs = clock.nowMs();
      add(keys, atMs);
      return { cap, keys, giveBack: () => remove(keys, atMs) };
    },
    async restore(inbox, signal) {
      counted.clear();
      const stream = store.stream(streamNames.runs(inbox));
      const tail = await stream.tail(signal);
      const ofLastDay = await firstSince(stream, clock.nowMs() - DAY_MS, signal);
      const range = {
        fromSeqNum: Math.max(ofLastDay, tail - RESTORE_RECORDS),
        maxRecords: RESTORE_RECORDS,
        signal,
      };
      await scan(stream, range, (record) => {
        if (!mentions(record, ['"caps":'])) return;
        const { at, facts } = JSON.parse(Buffer.from(record.body).toString('utf8')) as {
          at: string;
          facts?: { caps?: CapKeys };
        };
        // Its own time: on `local` the records of a stream keep that of a clock that was ahead until it has come.
        const atMs = Date.parse(at);
        if (facts?.caps && isOfLastDay(atMs)) add(bounded(facts.caps), atMs);
      });
    },
  };
}

function countedKeys({ sender, thread, root, replies = 1, others = [] }: CapKeys): string[] {
  const ofReply = root === undefined ? [sender, thread] : [sender, thread, root];
  return [
    ...Array.from({ length: replies }, () => ofReply).flat(),
    ...others.flatMap((other) => [other, ALL_OTHERS]),
  ];
}

function otherKey(address: string): string {
  return `to ${normaliseAddress(address) ?? address}`;
}

function rootOf({ references, subject, messageId }: ParsedEmail): string | null {
  return references[0] ?? (isReplySubject(subject) ? null : messageId);
}

function keysOf(email: ParsedEmail, recipient: string): CapKeys {
  const sender = normaliseAddress(recipient) ?? recipient;
  const root = rootOf(email);
  return bounded({
    sender: `sender ${sender}`,
    thread: `thread ${sender} ${root ?? baseSubject(email.subject)}`,
    ...(root !== null && { root: `root ${root}` }),
  });
}

/** Also of what was put on record before keys were bounded. */
function bounded({ sender, thread, root, ...rest }: CapKeys): CapKeys {
  return {
    ...rest,
    sender: boundedKey(sender),
    thread: boundedKey(thread),
    ...(root !== undefined && { root: boundedKey(root) }),
  };
}

function boundedKey(key: string): string {
  if (key.length <= MAX_KEY_CHARS) return key;
  return `sha256 ${createHash('sha256').update(key).digest('hex')}`;
}
