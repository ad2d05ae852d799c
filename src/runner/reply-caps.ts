/**
 * The caps on automatic mail within a sliding day. On replies, per sender and per thread: the last guard against
 * a loop whose other side hides that it is a machine. On mail to others, per recipient and for the inbox: what a
 * tool can do to people who never wrote to it.
 *
 * A thread is what the references say. A responder that strips them still tends to keep the `Re:` that we
 * gave it, so a mail with a reply prefix and no references counts for its sender and subject; a fresh mail
 * counts for itself alone. What strips even that runs into the sender's cap.
 *
 * The counts are a view of the stream `runs/<name>`: `restore` reads them back at start.
 */
import { normaliseAddress } from '../mail/address.ts';
import { baseSubject } from '../mail/thread.ts';
import type { ParsedEmail } from '../mail/email.ts';
import type { Clock } from '../platform/clock.ts';
import { streamNames } from '../streams/records.ts';
import type { StreamStore } from '../streams/stream-store.ts';

export interface ReplyCaps {
  /** Why this mail may not be answered any more, or null. */
  exceeded(email: ParsedEmail, recipient: string): 'sender-cap' | 'thread-cap' | null;
  /** Why mail to these others may not be sent any more, or null. */
  exceededBySending(others: readonly string[]): 'recipient-cap' | 'inbox-cap' | null;
  /** Counts a run that sends; what it gives is kept in the run's facts, so that a restart can count it again. */
  count(email: ParsedEmail, recipient: string, others?: readonly string[]): CapKeys;
  /** Reads back the replies of the last day from an inbox's journal, in place of what was counted here. */
  restore(inbox: string, signal: AbortSignal): Promise<void>;
}

export interface CapKeys {
  readonly sender: string;
  readonly thread: string;
  /** Others who got mail, once for each. */
  readonly others?: readonly string[];
}

export interface ReplyCapOptions {
  perSender: number;
  perThread: number;
  /** Mails to one address that is not the sender's. */
  perRecipient: number;
  /** Mails to others, each recipient counted. */
  perInbox: number;
}

export const defaultReplyCaps: ReplyCapOptions = {
  perSender: 500,
  perThread: 30,
  perRecipient: 500,
  perInbox: 2_000,
};

const DAY_MS = 86_400_000;
/** How far back a restart looks: more replies than this a day make it forget the earliest. */
const RESTORE_RECORDS = 20_000;
const MAX_COUNTED = 100_000;
/** The key under which all mail to others is counted together. */
const ALL_OTHERS = 'to others';

export function createReplyCaps(
  deps: { store: StreamStore; clock: Clock },
  options: ReplyCapOptions,
): ReplyCaps {
  const { store, clock } = deps;
  /** Times of replies by key, oldest first. */
  const counted = new Map<string, number[]>();

  const recent = (key: string): number[] => {
    const sinceMs = clock.nowMs() - DAY_MS;
    const times = (counted.get(key) ?? []).filter((atMs) => atMs >= sinceMs);
    if (times.length === 0) counted.delete(key);
    return times;
  };

  function add(keys: CapKeys, atMs: number): void {
    for (const key of [keys.sender, keys.thread]) addTime(key, atMs);
    for (const other of keys.others ?? []) for (const key of [other, ALL_OTHERS]) addTime(key, atMs);
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
    exceeded(email, recipient) {
      const keys = keysOf(email, recipient);
      if (recent(keys.sender).length >= options.perSender) return 'sender-cap';
      if (recent(keys.thread).length >= options.perThread) return 'thread-cap';
      return null;
    },
    exceededBySending(others) {
      const counts = new Map<string, number>();
      for (const key of others.map(otherKey)) counts.set(key, (counts.get(key) ?? 0) + 1);
      for (const [key, more] of counts)
        if (recent(key).length + more > options.perRecipient) return 'recipient-cap';
      const isTooMuch = others.length > 0 && recent(ALL_OTHERS).length + others.length > options.perInbox;
      return isTooMuch ? 'inbox-cap' : null;
    },
    count(email, recipient, others = []) {
      const keys = {
        ...keysOf(email, recipient),
        ...(others.length > 0 && { others: others.map(otherKey) }),
      };
      add(keys, clock.nowMs());
      return keys;
    },
    async restore(inbox, signal) {
      counted.clear();
      const stream = store.stream(streamNames.runs(inbox));
      const tail = await stream.tail(signal);
      for (let from = Math.max(0, tail - RESTORE_RECORDS); from < tail;) {
        const batch = await stream.read({ fromSeqNum: from, signal });
        if (batch.nextSeqNum === from) break;
        from = batch.nextSeqNum;
        for (const record of batch.records) {
          const { facts } = JSON.parse(Buffer.from(record.body).toString('utf8')) as {
            facts?: { caps?: CapKeys };
          };
          if (!facts?.caps) continue;
          add(facts.caps, record.timestampMs);
        }
      }
    },
  };
}

function otherKey(address: string): string {
  return `to ${normaliseAddress(address) ?? address}`;
}

function threadOf(email: ParsedEmail, recipient: string): string {
  const root = email.references[0];
  if (root !== undefined) return root;
  const base = baseSubject(email.subject);
  const isReply = base.length !== email.subject.trim().length;
  return isReply || email.messageId === null ? `${recipient} ${base}` : email.messageId;
}

function keysOf(email: ParsedEmail, recipient: string): CapKeys {
  const sender = normaliseAddress(recipient) ?? recipient;
  return { sender: `sender ${sender}`, thread: `thread ${threadOf(email, sender)}` };
}
