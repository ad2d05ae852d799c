/**
 * A priority queue by due time: a binary heap, because ten thousand deferred records must cost nothing
 * while they wait. Items of the same time leave in the order in which they came.
 */
export interface DueQueue<T> {
  push(dueMs: number, item: T): void;
  /** The earliest due time, or undefined when empty. */
  nextDueMs(): number | undefined;
  /** Takes the earliest item if it is due at `nowMs`. */
  takeDue(nowMs: number): T | undefined;
  readonly size: number;
}

export function createDueQueue<T>(): DueQueue<T> {
  const heap: { dueMs: number; order: number; item: T }[] = [];
  let pushed = 0;

  const before = (i: number, j: number): boolean => {
    const [a, b] = [heap[i]!, heap[j]!];
    return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
  };
  const swap = (i: number, j: number): void => {
    [heap[i], heap[j]] = [heap[j]!, heap[i]!];
  };

  return {
    push(dueMs, item) {
      heap.push({ dueMs, order: pushed++, item });
      for (let i = heap.length - 1; i > 0;) {
        const parent = (i - 1) >> 1;
        if (!before(i, parent)) break;
        swap(i, parent);
        i = parent;
      }
    },
    nextDueMs: () => heap[0]?.dueMs,
    takeDue(nowMs) {
      const first = heap[0];
      if (!first || first.dueMs > nowMs) return undefined;
      const last = heap.pop()!;
      if (heap.length > 0) {
        heap[0] = last;
        for (let i = 0; ;) {
          let least = i;
          for (const child of [2 * i + 1, 2 * i + 2])
            if (child < heap.length && before(child, least)) least = child;
          if (least === i) break;
          swap(i, least);
          i = least;
        }
      }
      return first.item;
    },
    get size() {
      return heap.length;
    },
  };
}
