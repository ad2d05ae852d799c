/**
 * A first-in, first-out queue that takes in constant time: `Array.shift` moves all that is behind, which
 * with a hundred thousand waiting records costs more than the records themselves.
 */
export interface Fifo<T> extends Iterable<T> {
  push(item: T): void;
  /** Before all others, such as what has to be tried again. */
  pushFront(item: T): void;
  take(): T | undefined;
  /** What `take` would give. */
  readonly first: T | undefined;
  /** Takes this one out, wherever it stands; false where it is not there. Looks at all before it. */
  remove(item: T): boolean;
  readonly size: number;
}

/** The taken front is let go of when it is this long and at least half of all. */
const COMPACT_ITEMS = 64;

export function createFifo<T>(): Fifo<T> {
  let items: (T | undefined)[] = [];
  let front = 0;
  return {
    push: (item) => void items.push(item),
    pushFront(item) {
      if (front === 0) items.unshift(item);
      else items[--front] = item;
    },
    take() {
      if (front === items.length) return undefined;
      const item = items[front];
      // What was taken is not kept alive by the queue.
      items[front++] = undefined;
      if (front >= COMPACT_ITEMS && front * 2 >= items.length) {
        items = items.slice(front);
        front = 0;
      }
      return item;
    },
    get first() {
      return items[front];
    },
    remove(item) {
      const index = items.indexOf(item, front);
      if (index < 0) return false;
      items.splice(index, 1);
      return true;
    },
    get size() {
      return items.length - front;
    },
    *[Symbol.iterator]() {
      for (let i = front; i < items.length; i++) yield items[i]!;
    },
  };
}
