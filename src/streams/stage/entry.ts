/** A record on its way through a stage, and how it stands on the journal while it is set aside. */
import type { Aside } from '../journal-records.ts';
import type { StreamRecord } from '../stream-store.ts';

export interface Entry {
  readonly seqNum: number;
  readonly key: string;
  readonly lane: string | null;
  /** Empty for none. */
  readonly fairnessKey: string;
  /** Absent while it is set aside. */
  record: StreamRecord | undefined;
  attempts: number;
  /** Begin of the first attempt whose effect is not known, or null. */
  doubtSinceMs: number | null;
  /** While deferred. */
  aside: Aside | undefined;
  /** No handler has had it yet: its key may have been settled longer ago than the stage remembers. */
  isUntried: boolean;
}

/** Without a deferral it waits behind another of its lane. */
export function asideOf(
  { seqNum, key, lane, fairnessKey, attempts, doubtSinceMs }: Entry,
  deferral: Pick<Aside, 'untilMs' | 'holdsLane' | 'waitMs'> = { untilMs: 0, holdsLane: false },
): Aside {
  const base = { seqNum, key, lane, attempts, doubtSinceMs, ...deferral };
  return fairnessKey === '' ? base : { ...base, fairnessKey };
}

/** As recovery finds it; its body is read again when its turn comes. */
export function entryOf(aside: Aside, doubtSinceMs: number | null): Entry {
  const { seqNum, key, lane, attempts } = aside;
  return {
    seqNum,
    key,
    lane,
    fairnessKey: aside.fairnessKey ?? '',
    record: undefined,
    attempts,
    doubtSinceMs: aside.doubtSinceMs ?? doubtSinceMs,
    aside: aside.untilMs > 0 ? aside : undefined,
    isUntried: aside.untilMs === 0,
  };
}
