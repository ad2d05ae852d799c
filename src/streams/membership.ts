/**
 * Who is there: every process that works on a basin appends a heartbeat to the stream `members` and reads the
 * others'. A heartbeat says what the process could do (`offers`) and what it is doing (`holds`).
 *
 * - All read the same records in the same order, and each knows itself only by what it has read back. So all
 *   that have read up to a point agree on who is there, but for those who have fallen silent.
 * - Silence is measured by the reader's own monotonic clock, from when it last read a heartbeat. Wall clocks of
 *   two machines are never compared. Whoever is known to have ended (`left`, or a process of this very machine
 *   that is gone) is not waited for.
 * - A process whose own heartbeats do not come back is blind (`isCurrent` is false): stopped, cut off, or the
 *   store is down. It may not judge others, and must not commit (`ownership.ts` sees to that). When it sees
 *   again, it gives everybody time to speak before it takes anyone for dead: after an outage of the store
 *   nothing moves.
 * - How long a process is believed it states itself, by how long its heartbeats take (`membership-pace.ts`).
 *
 * None of this is what makes double work harmless; that is the journal's fencing token. It makes it rare.
 */
import { z } from 'zod';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError, errorKind } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { Processes } from '../platform/process-identity.ts';
import { createPace, maxLeaseMs, membershipTiming, patienceMs } from './membership-pace.ts';
import { jsonRecord, streamNames } from './records.ts';
import type { StreamRecord, StreamStore } from './stream-store.ts';

/** How many of the last records a new process reads: a second of two hundred others. */
const READ_BACK_RECORDS = 200;

/** `members`: one heartbeat. */
export const memberRecordSchema = z.object({
  kind: z.literal('member'),
  version: z.literal(1),
  id: z.string(),
  /** From 1, one more each time. */
  beat: z.number().int().positive(),
  /** `leaving`: it offers nothing more, and still holds what it has not finished. */
  status: z.enum(['here', 'leaving', 'left']),
  /** Names of units that it could work on. */
  offers: z.array(z.string()),
  /** Names of units that it is working on. Who is blind claims none: somebody may have taken them meanwhile. */
  holds: z.array(z.string()),
  /** Where the system tells: see `process-identity.ts`. */
  process: z.string().nullable(),
  /** For how long after sending it the process counts on this heartbeat; one of an older release does not tell. */
  leaseMs: z.number().positive().default(membershipTiming.leaseMs),
  at: z.string(),
});
type MemberRecord = z.infer<typeof memberRecordSchema>;

/** A process that is there, as the stream says. */
export interface Member {
  readonly id: string;
  readonly offers: ReadonlySet<string>;
  readonly holds: ReadonlySet<string>;
}

export interface Membership {
  /** Of this process: never used before. */
  readonly id: string;
  /** What this process offers and holds; it is told to the others at once. */
  readonly offers: NamedUnits;
  readonly holds: NamedUnits;
  /** False while this process cannot know what the others know. */
  isCurrent(): boolean;
  /** All who are there, this process among them as soon as it has read itself. */
  members(): readonly Member[];
  /** Calls back whenever what `members` or `isCurrent` say may matter anew; returns how to stop that. */
  onChange(callback: () => void): () => void;
  /** Takes part until the signal is aborted, and then until nothing is held any more. */
  run(signal: AbortSignal): Promise<void>;
}

export interface NamedUnits {
  add(unit: string): void;
  delete(unit: string): void;
}

interface Peer extends Member {
  readonly process: string | null;
  readonly leaseMs: number;
  /** When it was last heard, by our monotonic clock. */
  seenMs: number;
}

export interface MembershipDeps {
  store: StreamStore;
  clock: Clock;
  log: Log;
  processes: Processes;
}

export function createMembership({ store, clock, log, processes }: MembershipDeps): Membership {
  const id = clock.uuid();
  const stream = store.stream(streamNames.members);
  const offered = new Set<string>();
  const held = new Set<string>();
  const peers = new Map<string, Peer>();
  const callbacks = new Set<() => void>();
  const pace = createPace();
  /** Heartbeats that were not read back yet, by number: when they were sent, and how far their lease reaches. */
  const sent = new Map<number, { ms: number; untilMs: number }>();
  let beats = 0;
  /** Of heartbeats, in a row. */
  let failures = 0;
  let position = 0;
  let currentUntilMs = Number.NEGATIVE_INFINITY;
  /** When the heartbeat was sent that was last read back. */
  let seenSentMs = Number.NEGATIVE_INFINITY;
  let wake = new AbortController();
  let rereading = new AbortController();

  const isCurrent = (): boolean => clock.monotonicMs() < currentUntilMs;

  const namedUnits = (units: Set<string>): NamedUnits => ({
    add(unit) {
      units.add(unit);
      wake.abort();
    },
    delete(unit) {
      if (units.delete(unit)) wake.abort();
    },
  });

  // ── What is read ───────────────────────────────────────────────────────────────────────────────────────

  /** True when it says something new. */
  function observe(record: StreamRecord): boolean {
    const member = memberFrom(record);
    if (!member) return false;
    const before = peers.get(member.id);
    if (member.status === 'left') {
      if (before) log.info({ member: member.id }, 'members.left');
      return peers.delete(member.id);
    }
    const now: Peer = {
      id: member.id,
      offers: new Set(member.offers),
      holds: new Set(member.holds),
      process: member.process,
      leaseMs: Math.min(member.leaseMs, maxLeaseMs),
      seenMs: clock.monotonicMs(),
    };
    peers.set(member.id, now);
    if (!before) log.info({ member: member.id, isSelf: member.id === id }, 'members.joined');
    const hasComeBack = member.id === id && renewLease(member.beat);
    return hasComeBack || !before || !isSame(before, now);
  }

  /** True when this process sees again after it was blind. */
  function renewLease(number: number): boolean {
    const wasCurrent = isCurrent();
    const own = sent.get(number);
    for (const earlier of sent.keys()) if (earlier <= number) sent.delete(earlier);
    if (own) {
      pace.note(clock.monotonicMs() - own.ms);
      seenSentMs = own.ms;
      currentUntilMs = Math.max(currentUntilMs, own.untilMs);
    }
    if (wasCurrent || !isCurrent()) return false;
    for (const peer of peers.values()) peer.seenMs = clock.monotonicMs();
    // The heartbeat that came back claimed nothing.
    if (held.size > 0) wake.abort();
    return true;
  }

  /** Forgets who has fallen silent; true when there was one. */
  function forgetDead(): boolean {
    if (!isCurrent()) return false;
    const before = peers.size;
    for (const peer of peers.values()) {
      if (peer.id === id) continue;
      const silentMs = clock.monotonicMs() - peer.seenMs;
      const isGone = peer.process !== null && processes.isGone(peer.process);
      // Who is slow to read may not have read yet what they have said.
      if (!isGone && silentMs < patienceMs(Math.max(peer.leaseMs, pace.leaseMs()))) continue;
      peers.delete(peer.id);
      log.warn(
        { member: peer.id, silentMs: Math.round(silentMs), isGone, holds: peer.holds.size },
        'members.lost',
      );
    }
    return peers.size !== before;
  }

  function notify(): void {
    for (const callback of callbacks) callback();
  }

  async function read(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      rereading = new AbortController();
      const ended = AbortSignal.any([signal, rereading.signal]);
      for await (const batch of stream.follow({ fromSeqNum: position, signal: ended })) {
        let isNew = false;
        for (const record of batch.records) isNew = observe(record) || isNew;
        position = batch.nextSeqNum;
        if (forgetDead() || isNew) notify();
      }
      if (!ended.aborted) throw new MillraceError('transient', 'streams.unavailable', 'the store is closed');
    }
  }

  // ── What is written ────────────────────────────────────────────────────────────────────────────────────

  /** The others go by the newest that they have read: so none before it may count on more than it states. */
  function noteSent(ms: number, untilMs: number): void {
    currentUntilMs = Math.min(currentUntilMs, untilMs);
    for (const earlier of sent.values()) earlier.untilMs = Math.min(earlier.untilMs, untilMs);
    sent.set(beats, { ms, untilMs });
  }

  /**
   * One heartbeat; true when the store took it. One that fails, for whatever reason, is not tried again: the next is
   * near, and a process without heartbeats is blind, which harms less than its end.
   */
  async function beat(status: MemberRecord['status']): Promise<boolean> {
    const sentMs = clock.monotonicMs();
    const leaseMs = pace.leaseMs();
    const record = jsonRecord({
      kind: 'member',
      version: 1,
      id,
      beat: ++beats,
      status,
      offers: status === 'here' ? [...offered] : [],
      holds: isCurrent() ? [...held] : [],
      process: processes.own,
      leaseMs,
      at: new Date(clock.nowMs()).toISOString(),
    } satisfies MemberRecord);
    noteSent(sentMs, sentMs + leaseMs);
    using deadline = createDeadline(clock, pace.appendTimeoutMs());
    try {
      await stream.append([record], { signal: deadline.signal });
      failures = 0;
      return true;
    } catch (error) {
      if (!deadline.signal.aborted && errorKind(error) === 'bug') throw error;
      failures += 1;
      if (deadline.signal.aborted) pace.note(clock.monotonicMs() - sentMs);
      // Those that never land are given up with time; the lease would have ended anyway.
      for (const [earlier, { ms }] of sent)
        if (clock.monotonicMs() - ms > patienceMs(maxLeaseMs)) sent.delete(earlier);
      // One line an outage, however long it takes.
      log[failures === 1 ? 'warn' : 'debug']({ failures, error }, 'members.heartbeat_failed');
      return false;
    }
  }

  async function write(signal: AbortSignal): Promise<void> {
    let leaveUntilMs = Number.POSITIVE_INFINITY;
    const onAbort = (): void => {
      leaveUntilMs = clock.monotonicMs() + membershipTiming.leaveWithinMs;
      wake.abort();
    };
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    while (!(signal.aborted && held.size === 0) && clock.monotonicMs() < leaveUntilMs) {
      wake = new AbortController();
      const hasLanded = await beat(signal.aborted ? 'leaving' : 'here');
      if (hasLanded && clock.monotonicMs() - seenSentMs > pace.rereadAfterMs()) rereading.abort();
      if (forgetDead()) notify();
      await clock.sleep(membershipTiming.heartbeatMs, wake.signal).catch(() => {});
      if (wake.signal.aborted) await clock.sleep(membershipTiming.gatherMs);
    }
    await beat('left');
  }

  return {
    id,
    offers: namedUnits(offered),
    holds: namedUnits(held),
    isCurrent,
    members: () => [...peers.values()],
    onChange(callback) {
      callbacks.add(callback);
      return () => callbacks.delete(callback);
    },
    async run(signal) {
      position = Math.max(0, (await stream.tail(signal)) - READ_BACK_RECORDS);
      const ended = new AbortController();
      const failed = new AbortController();
      const reading = read(ended.signal).catch((error: unknown) => failed.abort(error));
      try {
        await write(AbortSignal.any([signal, failed.signal]));
      } finally {
        ended.abort();
        await reading;
      }
      if (failed.signal.aborted) throw failed.signal.reason;
    },
  };
}

/** Null for what a newer release has to say: during an upgrade both work side by side. */
function memberFrom(record: StreamRecord): MemberRecord | null {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(record.body).toString('utf8'));
  } catch {
    return null;
  }
  return memberRecordSchema.safeParse(value).data ?? null;
}

function isSame(a: Member, b: Member): boolean {
  return isSameSet(a.offers, b.offers) && isSameSet(a.holds, b.holds);
}

function isSameSet(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  return a.size === b.size && [...a].every((unit) => b.has(unit));
}
