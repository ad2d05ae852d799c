/**
 * The records that the reader has passed over, because their fairness key has its share of memory: it goes on to
 * those of other keys behind them. Only their numbers are kept, so that a hundred thousand of one key are less than a
 * megabyte. As far as the journal knows they are unread: a restart meets them again.
 */
import { createFifo } from '../../platform/fifo.ts';
import type { Fifo } from '../../platform/fifo.ts';

export interface PassedOver {
  readonly size: number;
  /** The lowest number, or undefined where there is none. */
  readonly lowest: number | undefined;
  hasAnyOf(fairnessKey: string): boolean;
  /** Numbers of a key come in order. */
  add(fairnessKey: string, seqNum: number): void;
  /** The first of a key that has room, keys taking turns. It stays here until it is let in. */
  next(hasRoomFor: (fairnessKey: string) => boolean): { fairnessKey: string; seqNum: number } | undefined;
  /** The first of this key goes. */
  letIn(fairnessKey: string): void;
}

export function createPassedOver(): PassedOver {
  /** Keys in the order of their turns. */
  const waiting = new Map<string, Fifo<number>>();
  let size = 0;
  return {
    get size() {
      return size;
    },
    get lowest() {
      const firsts = [...waiting.values()].map(({ first }) => first!);
      return firsts.length === 0 ? undefined : Math.min(...firsts);
    },
    hasAnyOf: (fairnessKey) => waiting.has(fairnessKey),
    add(fairnessKey, seqNum) {
      const seqNums = waiting.get(fairnessKey) ?? createFifo<number>();
      seqNums.push(seqNum);
      waiting.set(fairnessKey, seqNums);
      size++;
    },
    next(hasRoomFor) {
      for (const [fairnessKey, { first }] of waiting)
        if (hasRoomFor(fairnessKey)) return { fairnessKey, seqNum: first! };
      return undefined;
    },
    letIn(fairnessKey) {
      const seqNums = waiting.get(fairnessKey)!;
      seqNums.take();
      size--;
      waiting.delete(fairnessKey);
      if (seqNums.size > 0) waiting.set(fairnessKey, seqNums);
    },
  };
}
