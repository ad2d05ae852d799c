/**
 * The unsettled records of a stage: whose turn it is, and whose body is in memory.
 *
 * A lane is an ordering key. Its head is ready, running, committing, or deferred with the lane held; the others
 * wait behind it, in order. A record of no lane is ready at once.
 *
 * Those that are ready take turns by their fairness key, within a key first come, first served: however many of one
 * are ready, the next of another is a turn away. Those of a key that are due again take turns with its fresh ones, so
 * that ten thousand that were deferred do not hold up what has just come.
 *
 * A record takes a place in memory (`record-window.ts`) until it is settled or deferred. One that waits gives its
 * place up where it is large, where many of its lane wait already, or where the head may be deferred for long; it
 * is read again when its turn comes. So a long lane does not use up the window and hold back the other lanes. Where
 * memory is used up, as many as run at once are read beyond it; the others wait until those are settled or deferred.
 */
import { createFairQueue } from '../../platform/fair-queue.ts';
import type { FairQueue } from '../../platform/fair-queue.ts';
import { createFifo } from '../../platform/fifo.ts';
import type { Fifo } from '../../platform/fifo.ts';
import type { Entry } from './entry.ts';
import { createRecordWindow } from './record-window.ts';
import type { StageLimits } from './stage-limits.ts';

type Arrival = 'fresh' | 'again';

interface Lane {
  head: Entry;
  readonly waiting: Fifo<Entry>;
}

/** A record that is handled now. */
export interface Turn {
  readonly entry: Entry;
  /** Its fairness key may have another one. */
  end(): void;
}

export interface Lanes {
  /** Memory is used up: what can stay outside stays there. */
  readonly isFull: boolean;
  /** Another record of this key may come into memory. */
  hasRoomFor(fairnessKey: string): boolean;
  isInMemory(seqNum: number): boolean;
  readonly inMemory: number;
  readonly bytesInMemory: number;
  /** Of the records that have a place in memory. */
  seqNums(): Iterable<number>;
  /** Records that gave up their place to wait in a lane; each stays here until it is settled or deferred. */
  readonly waitingAside: ReadonlyMap<number, Entry>;
  /** Gives it a place in memory; once more when its body has come. */
  hold(entry: Entry): void;
  /** Ready if its lane is free; otherwise it waits. */
  enter(entry: Entry): void;
  /** The next whose turn it is; it has a place in memory from now on. */
  takeReady(): Turn | undefined;
  /** Its place is free, and its lane goes on. */
  settle(entry: Entry): void;
  /** Its place is free; its lane goes on, or is held, as its `aside` says. */
  suspend(entry: Entry): void;
  /** A suspended record is due: the head of its lane is ready, another one enters anew. */
  resume(entry: Entry): void;
  /** A record as recovery finds it: suspended where it has an `aside`, otherwise waiting without its body. */
  restore(entry: Entry): void;
}

export function createLanes(
  bounds: Pick<StageLimits, 'window' | 'windowBytes' | 'laneBodies' | 'laneBodyBytes'>,
  options: { maxTurns: number; maxTurnsPerKey: number },
): Lanes {
  const inMemory = createRecordWindow<Entry>(bounds);
  const waitingAside = new Map<number, Entry>();
  /** Records that were taken while memory was used up; each stays here until it gives its place. */
  const beyondFull = new Set<number>();
  const lanes = new Map<string, Lane>();
  /** Fairness keys, each as often as it has something ready. */
  const turns = createFairQueue<string>({ maxOutPerKey: options.maxTurnsPerKey });
  /** What is ready, by fairness key, and whether it is fresh or due again. */
  const ready = new Map<string, FairQueue<Entry>>();

  const laneOf = (entry: Entry): Lane | undefined =>
    entry.lane === null ? undefined : lanes.get(entry.lane);

  function makeReady(entry: Entry, arrival: Arrival): void {
    const { fairnessKey } = entry;
    const ofKey = ready.get(fairnessKey) ?? createFairQueue<Entry>({ maxOutPerKey: Infinity });
    ready.set(fairnessKey, ofKey);
    ofKey.push(arrival, entry);
    turns.push(fairnessKey, fairnessKey);
  }

  function enter(entry: Entry, arrival: Arrival): void {
    const lane = laneOf(entry);
    if (lane) {
      lane.waiting.push(entry);
      const isLarge = (entry.record?.body.length ?? 0) > bounds.laneBodyBytes;
      if (isLarge || lane.waiting.size > bounds.laneBodies || lane.head.aside) setBodyAside(entry);
      return;
    }
    if (entry.lane !== null) lanes.set(entry.lane, { head: entry, waiting: createFifo() });
    makeReady(entry, arrival);
  }

  /** One that has no body in memory is set aside already. */
  function setBodyAside(entry: Entry): void {
    if (!entry.record) return;
    entry.record = undefined;
    inMemory.release(entry.seqNum);
    waitingAside.set(entry.seqNum, entry);
  }

  function givePlace(entry: Entry): void {
    inMemory.release(entry.seqNum);
    beyondFull.delete(entry.seqNum);
    waitingAside.delete(entry.seqNum);
  }

  function leave(entry: Entry): void {
    const lane = laneOf(entry);
    if (!lane || lane.head !== entry) return;
    const next = lane.waiting.take();
    if (!next) {
      lanes.delete(entry.lane!);
      return;
    }
    lane.head = next;
    makeReady(next, 'fresh');
  }

  return {
    waitingAside,
    get isFull() {
      return inMemory.isFull;
    },
    get inMemory() {
      return inMemory.size;
    },
    get bytesInMemory() {
      return inMemory.bytes;
    },
    hasRoomFor: (fairnessKey) => inMemory.hasRoomFor(fairnessKey),
    isInMemory: (seqNum) => inMemory.has(seqNum),
    seqNums: () => inMemory.seqNums(),
    hold: (entry) => inMemory.hold(entry),
    enter: (entry) => enter(entry, 'fresh'),
    takeReady() {
      const key = turns.next();
      if (key === undefined) return undefined;
      const ofKey = ready.get(key)!;
      const entry = ofKey.next()!;
      if (inMemory.isFull && !inMemory.has(entry.seqNum)) {
        // As many as run at once may do so beyond it: those that fill it may be waiting behind them.
        if (beyondFull.size >= options.maxTurns) return undefined;
        beyondFull.add(entry.seqNum);
      }
      turns.take();
      ofKey.take();
      if (ofKey.size === 0) ready.delete(key);
      inMemory.hold(entry);
      return { entry, end: () => turns.release(key) };
    },
    settle(entry) {
      givePlace(entry);
      leave(entry);
    },
    suspend(entry) {
      givePlace(entry);
      entry.record = undefined;
      if (!entry.aside?.holdsLane) return leave(entry);
      const lane = laneOf(entry);
      if (lane?.head === entry) for (const waiting of lane.waiting) setBodyAside(waiting);
    },
    resume(entry) {
      const holdsLane = entry.aside?.holdsLane;
      entry.aside = undefined;
      if (holdsLane && entry.lane !== null) makeReady(entry, 'again');
      else enter(entry, 'again');
    },
    restore(entry) {
      if (entry.aside) {
        if (entry.aside.holdsLane && entry.lane !== null)
          lanes.set(entry.lane, { head: entry, waiting: createFifo() });
        return;
      }
      waitingAside.set(entry.seqNum, entry);
      enter(entry, 'fresh');
    },
  };
}
