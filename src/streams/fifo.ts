/**
 * A first-in, first-out queue that takes in constant time: `Array.shift` moves all that is behind, which
 * with a hundred thousand waiting records costs more than the records themselves.
 */
export interface Fifo<T> extends Iterable<T> {
  push(item: T): void;
  take(): T | undefined;
  readonly size: number;
}

/** The taken front is let go of when it is this long and at least half of all. */
const COMPACT_ITEMS = 64;

export function createFifo<T>(): Fifo<T> {
  let items: T[] = [];
  let front = 0;
  return {
    push: (item) => void items.push(item),
    take() {
      if (front === items.length) return undefined;
      const item = items[front++]!;
      if (front >= COMPACT_ITEMS && front * 2 >= items.length) {
        items = items.slice(front);
        front = 0;
      }
      return item;
    },
    get size() {
      return items.length - front;
    },
    *[Symbol.iterator]() {
      for (let i = front; i < items.length; i++) yield items[i]!;
    },
  };
}
