/**
 * A queue in which keys take turns: however much waits under one key, the next of another is one turn away.
 * A key that has as many out as it may is passed over until `release` is called for it.
 */
import { createFifo } from './fifo.ts';
import type { Fifo } from './fifo.ts';

export interface FairQueue<T> {
  readonly size: number;
  /** How many `take` would give out now. */
  readonly takeable: number;
  push(key: string, item: T): void;
  /** To the front of its key, such as for what has to be tried again. */
  pushFront(key: string, item: T): void;
  /** The next item whose key has fewer than the permitted number out; it counts as out until released. */
  take(): T | undefined;
  /** What `take` would give out now. */
  next(): T | undefined;
  release(key: string): void;
  remove(key: string, item: T): boolean;
  /** Empties the queue. */
  drain(): T[];
}

export function createFairQueue<T>(options: { maxOutPerKey: number }): FairQueue<T> {
  /** Keys in the order of their turns: the first has waited longest. */
  const waiting = new Map<string, Fifo<T>>();
  const out = new Map<string, number>();
  let size = 0;

  function itemsOf(key: string): Fifo<T> {
    size += 1;
    const items = waiting.get(key) ?? createFifo<T>();
    waiting.set(key, items);
    return items;
  }

  function nextKey(): string | undefined {
    for (const key of waiting.keys()) if ((out.get(key) ?? 0) < options.maxOutPerKey) return key;
    return undefined;
  }

  return {
    get size() {
      return size;
    },
    get takeable() {
      let count = 0;
      for (const [key, items] of waiting)
        count += Math.min(items.size, options.maxOutPerKey - (out.get(key) ?? 0));
      return count;
    },
    push: (key, item) => itemsOf(key).push(item),
    pushFront: (key, item) => itemsOf(key).pushFront(item),
    take() {
      const key = nextKey();
      if (key === undefined) return undefined;
      const items = waiting.get(key)!;
      const item = items.take()!;
      size -= 1;
      out.set(key, (out.get(key) ?? 0) + 1);
      waiting.delete(key);
      if (items.size > 0) waiting.set(key, items);
      return item;
    },
    next() {
      const key = nextKey();
      return key === undefined ? undefined : waiting.get(key)!.first;
    },
    release(key) {
      const left = (out.get(key) ?? 1) - 1;
      if (left > 0) out.set(key, left);
      else out.delete(key);
    },
    remove(key, item) {
      const items = waiting.get(key);
      if (!items?.remove(item)) return false;
      size -= 1;
      if (items.size === 0) waiting.delete(key);
      return true;
    },
    drain() {
      const all = [...waiting.values()].flatMap((items) => [...items]);
      waiting.clear();
      size = 0;
      return all;
    },
  };
}
