/**
 * How many records wait for a time that somebody named, by fairness key. They wait for weeks, each takes memory and
 * stands in every checkpoint: so there is a limit, and of it a key may hold as many as are free. One alone gets half of
 * it, and another key always finds room. What is beyond is a dead letter, which can be redriven when fewer wait; the
 * other records of its key go on.
 *
 * A record holds its place until it is settled, so that one which is woken early and put off again has it.
 */
import { MillraceError } from '../../platform/errors.ts';
import type { Entry } from './entry.ts';
import type { Outcome } from './handler.ts';
import type { StageLimits } from './stage-limits.ts';

type Waiting = Pick<Entry, 'seqNum' | 'fairnessKey'>;

export interface Scheduled {
  /** The outcome, or a dead letter where it is put off and there is no place for it. */
  admit(entry: Waiting, outcome: Outcome): Outcome;
  /** One that recovery finds, whatever the limit is now. */
  restore(entry: Waiting): void;
  settle(seqNum: number): void;
}

export function createScheduled(bounds: Pick<StageLimits, 'scheduled'>): Scheduled {
  const keys = new Map<number, string>();
  const counts = new Map<string, number>();

  function count(fairnessKey: string, change: number): void {
    const counted = (counts.get(fairnessKey) ?? 0) + change;
    if (counted > 0) counts.set(fairnessKey, counted);
    else counts.delete(fairnessKey);
  }

  function restore({ seqNum, fairnessKey }: Waiting): void {
    if (keys.has(seqNum)) return;
    keys.set(seqNum, fairnessKey);
    count(fairnessKey, 1);
  }

  return {
    restore,
    admit(entry, outcome) {
      if (outcome.kind !== 'deferred' || outcome.holdsLane) return outcome;
      const { seqNum, fairnessKey } = entry;
      const hasRoom = (counts.get(fairnessKey) ?? 0) < bounds.scheduled - keys.size;
      if (!hasRoom && !keys.has(seqNum)) return fullOutcome(fairnessKey);
      restore(entry);
      return outcome;
    },
    settle(seqNum) {
      const fairnessKey = keys.get(seqNum);
      if (fairnessKey === undefined) return;
      keys.delete(seqNum);
      count(fairnessKey, -1);
    },
  };
}

function fullOutcome(fairnessKey: string): Outcome {
  const whose = fairnessKey === '' ? '' : ` of ${fairnessKey}`;
  const message = `too many records${whose} wait for their time already`;
  const hint =
    'It waits no longer, and nothing was sent. Redrive it when fewer wait; it goes out when it is due.';
  const error = new MillraceError('permanent', 'stage.too_many_scheduled', message, { hint });
  return { kind: 'dead-letter', reason: error.code, error };
}
