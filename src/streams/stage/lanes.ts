/**
 * The unsettled records of a stage: whose turn it is, and whose body is in memory.
 *
 * A lane is an ordering key. Its head is ready, running, committing, or deferred with the lane held; the others
 * wait behind it, in order. A record of no lane is ready at once. Those that are ready are taken first come, first
 * served.
 *
 * A record takes a place in memory (`record-window.ts`) until it is settled or deferred. One that waits gives its
 * place up where it is large, where many of its lane wait already, or where the head may be deferred for long; it
 * is read again when its turn comes. So a long lane does not use up the window and hold back the other lanes.
 */
import { createFifo } from '../../platform/fifo.ts';
import type { Fifo } from '../../platform/fifo.ts';
import type { Entry } from './entry.ts';
import { createRecordWindow } from './record-window.ts';
import type { StageLimits } from './stage-limits.ts';

interface Lane {
  head: Entry;
  readonly waiting: Fifo<Entry>;
}

export interface Lanes {
  /** Memory is used up: what can stay outside stays there. */
  readonly isFull: boolean;
  readonly inMemory: number;
  readonly bytesInMemory: number;
  readonly readyCount: number;
  /** Of the records that have a place in memory. */
  seqNums(): Iterable<number>;
  /** Records that gave up their place to wait in a lane; each stays here until it is settled or deferred. */
  readonly waitingAside: ReadonlyMap<number, Entry>;
  /** Gives it a place in memory; once more when its body has come. */
  hold(entry: Entry): void;
  /** Ready if its lane is free; otherwise it waits. */
  enter(entry: Entry): void;
  /** The next that is ready; it has a place in memory from now on. */
  takeReady(): Entry | undefined;
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
): Lanes {
  const inMemory = createRecordWindow<Entry>(bounds);
  const waitingAside = new Map<number, Entry>();
  const lanes = new Map<string, Lane>();
  const ready = createFifo<Entry>();

  const laneOf = (entry: Entry): Lane | undefined =>
    entry.lane === null ? undefined : lanes.get(entry.lane);

  function enter(entry: Entry): void {
    const lane = laneOf(entry);
    if (lane) {
      lane.waiting.push(entry);
      const isLarge = (entry.record?.body.length ?? 0) > bounds.laneBodyBytes;
      if (isLarge || lane.waiting.size > bounds.laneBodies || lane.head.aside) setBodyAside(entry);
      return;
    }
    if (entry.lane !== null) lanes.set(entry.lane, { head: entry, waiting: createFifo() });
    ready.push(entry);
  }

  function setBodyAside(entry: Entry): void {
    entry.record = undefined;
    inMemory.release(entry.seqNum);
    waitingAside.set(entry.seqNum, entry);
  }

  function givePlace(entry: Entry): void {
    inMemory.release(entry.seqNum);
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
    ready.push(next);
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
    get readyCount() {
      return ready.size;
    },
    seqNums: () => inMemory.seqNums(),
    hold: (entry) => inMemory.hold(entry),
    enter,
    takeReady() {
      const entry = ready.take();
      if (entry) inMemory.hold(entry);
      return entry;
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
      inMemory.hold(entry);
      if (holdsLane && entry.lane !== null) ready.push(entry);
      else enter(entry);
    },
    restore(entry) {
      if (entry.aside) {
        if (entry.aside.holdsLane && entry.lane !== null)
          lanes.set(entry.lane, { head: entry, waiting: createFifo() });
        return;
      }
      waitingAside.set(entry.seqNum, entry);
      enter(entry);
    },
  };
}
