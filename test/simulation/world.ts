/**
 * The simulated world: virtual time, one seeded source of randomness, and the events that are due. One event
 * happens at a time, and all promises that it settles run to their end before the next one. So a seed decides
 * everything; the hash over the trace shows that it does.
 */
import { createHash } from 'node:crypto';
import { createDueQueue } from '../../src/streams/stage/due-queue.ts';

export interface World {
  /** True time: what the provider's and the store's clocks show. */
  nowMs(): number;
  /** In [0, 1). */
  random(): number;
  /** A whole number in [0, below). */
  int(below: number): number;
  chance(probability: number): boolean;
  pick<T>(choices: readonly T[]): T;
  uuid(): string;
  /** Lets `happen` happen after a while, unless the returned function is called before. */
  after(ms: number, happen: () => void): () => void;
  /** Lets the next event happen; false when there is none. */
  step(): Promise<boolean>;
  /** Notes something for the hash, and for whoever watches. */
  trace(line: string): void;
  traceHash(): string;
  readonly events: number;
}

const START_MS = Date.UTC(2026, 0, 1);

export function createWorld(seed: number, watch?: (line: string) => void): World {
  const random = mulberry32(seed);
  const due = createDueQueue<{ happen: (() => void) | null }>();
  const hash = createHash('sha256');
  let nowMs = START_MS;
  let events = 0;

  const world: World = {
    nowMs: () => nowMs,
    random,
    int: (below) => Math.floor(random() * below),
    chance: (probability) => random() < probability,
    pick: (choices) => choices[Math.floor(random() * choices.length)]!,
    uuid: () =>
      'xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx'.replaceAll('x', () => Math.floor(random() * 16).toString(16)),
    after(ms, happen) {
      const event: { happen: (() => void) | null } = { happen };
      due.push(nowMs + Math.max(0, Math.round(ms)), event);
      return () => {
        event.happen = null;
      };
    },
    async step() {
      for (;;) {
        const dueMs = due.nextDueMs();
        if (dueMs === undefined) return false;
        const event = due.takeDue(dueMs);
        if (!event?.happen) continue;
        nowMs = dueMs;
        events++;
        event.happen();
        await new Promise((resolve) => setImmediate(resolve));
        return true;
      }
    },
    trace(line) {
      hash.update(`${nowMs} ${line}\n`);
      watch?.(`${new Date(nowMs).toISOString()} ${line}`);
    },
    traceHash: () => hash.copy().digest('hex'),
    get events() {
      return events;
    },
  };
  return world;
}

/** A small generator of good enough quality, by Tommy Ettinger. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
