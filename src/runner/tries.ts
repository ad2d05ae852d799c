/**
 * How often each mail has waited for one thing. The stage's attempts count every failure: after an outage of the store the
 * first wait would be the last. A restart begins anew.
 */

/** Mails that wait and are counted; beyond, the count of the oldest begins anew. */
const MAX_COUNTED = 10_000;

export interface Tries {
  /** False once for each mail that has waited as often as it may: then its count begins anew. */
  mayTryAgain(seqNum: number): boolean;
  /** Whether it has waited, and its count has not ended. */
  readonly has: (seqNum: number) => boolean;
  end(seqNum: number): void;
}

/** @param max how often a mail is tried, the first time included */
export function createTries(max: number): Tries {
  const counts = new Map<number, number>();
  return {
    mayTryAgain(seqNum) {
      const count = (counts.get(seqNum) ?? 0) + 1;
      counts.delete(seqNum);
      if (count >= max) return false;
      counts.set(seqNum, count);
      const [oldest] = counts.keys();
      if (counts.size > MAX_COUNTED && oldest !== undefined) counts.delete(oldest);
      return true;
    },
    has: (seqNum) => counts.has(seqNum),
    end: (seqNum) => void counts.delete(seqNum),
  };
}
