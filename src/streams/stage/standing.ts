/**
 * Where a stage stands while it works: what it recovered, changed by all that becomes durable, and saved as a
 * checkpoint from time to time. What no recovery needs any more is trimmed after a checkpoint.
 *
 * A checkpoint is `low`, the settled numbers above it, the records that are set aside, and the settled keys. `low`
 * is the lowest number that is neither settled nor set aside; it never moves back, so a record that is due again
 * keeps its place in `progress.aside` until its next outcome. What the reader has passed over counts as unread.
 */
import type { Clock } from '../../platform/clock.ts';
import type { Log } from '../../platform/log.ts';
import type { OutcomeRecord } from '../journal-records.ts';
import { applyJournalRecord, emptyProgress } from '../journal.ts';
import type { Journal, Progress } from '../journal.ts';
import { fingerprint } from '../settled-keys.ts';
import { asideOf } from './entry.ts';
import type { Lanes } from './lanes.ts';
import type { PassedOver } from './passed-over.ts';
import type { StageLimits } from './stage-limits.ts';

const CHECKPOINT_MS = 30_000;

export interface Standing {
  /** Empty until `recover`. */
  readonly progress: Progress;
  /** The next source record to be read. */
  position: number;
  /** All that are set aside: deferred, or waiting in a lane. */
  readonly asideCount: number;
  /** Its outcome is on record, or it is set aside: the reader need not bring it. */
  has(seqNum: number): boolean;
  hasSettledKey(key: string): boolean;
  recover(signal: AbortSignal): Promise<void>;
  /** An outcome that is durable. */
  apply(record: OutcomeRecord): void;
  /** Saves, and trims, where it is time for it. */
  saveIfDue(signal: AbortSignal): Promise<void>;
  save(signal: AbortSignal): Promise<void>;
}

export function createStanding(
  deps: { clock: Clock; log: Log; journal: Journal; lanes: Lanes; passedOver: PassedOver },
  bounds: Pick<StageLimits, 'checkpointOutcomes' | 'trimMs'>,
): Standing {
  const { clock, log, journal, lanes, passedOver } = deps;
  let progress = emptyProgress();
  let position = 0;
  let startedMs = 0;
  let runningMsBefore = 0;
  let checkpointDueMs = 0;
  let trimDueMs = 0;

  const runningMs = (): number => runningMsBefore + (clock.monotonicMs() - startedMs);
  const asideCount = (): number => progress.aside.size + lanes.waitingAside.size;

  /**
   * A checkpoint writes everything that is set aside, so with much of it, more has to happen in between: the
   * cost of a checkpoint and the length of a recovery stay in proportion to what there is to know.
   */
  function isDue(): boolean {
    const isTime = clock.monotonicMs() >= checkpointDueMs && progress.sinceCheckpoint >= asideCount() / 40;
    return isTime || progress.sinceCheckpoint >= Math.max(bounds.checkpointOutcomes, asideCount() / 4);
  }

  async function save(signal: AbortSignal): Promise<void> {
    progress.runningMs = runningMs();
    progress.low = Math.min(position, passedOver.lowest ?? position);
    for (const seqNum of lanes.seqNums())
      if (seqNum < progress.low && !progress.aside.has(seqNum) && !lanes.waitingAside.has(seqNum))
        progress.low = seqNum;
    for (const seqNum of progress.settled) if (seqNum < progress.low) progress.settled.delete(seqNum);
    progress.sinceCheckpoint = 0;
    const aside = new Map(progress.aside);
    // Those above `low` are read again, in their place among those of their lane that are still in memory.
    for (const entry of lanes.waitingAside.values())
      if (entry.seqNum < progress.low && !aside.has(entry.seqNum)) aside.set(entry.seqNum, asideOf(entry));
    await journal.checkpoint({ ...progress, aside }, signal);
    log.debug({ low: progress.low, aside: aside.size, keys: progress.keys.size }, 'stage.checkpoint');
  }

  return {
    get progress() {
      return progress;
    },
    get position() {
      return position;
    },
    set position(seqNum) {
      position = seqNum;
    },
    get asideCount() {
      return asideCount();
    },
    has: (seqNum) =>
      progress.settled.has(seqNum) || progress.aside.has(seqNum) || lanes.waitingAside.has(seqNum),
    hasSettledKey: (key) => progress.keys.has(fingerprint(key)),
    async recover(signal) {
      progress = await journal.acquire(signal);
      position = progress.low;
      runningMsBefore = progress.runningMs;
      startedMs = clock.monotonicMs();
      checkpointDueMs = startedMs + CHECKPOINT_MS;
      trimDueMs = startedMs + bounds.trimMs;
      const { low, aside, keys } = progress;
      log.info({ low, aside: aside.size, keys: keys.size }, 'stage.recovered');
    },
    apply(record) {
      progress.runningMs = runningMs();
      applyJournalRecord(progress, record);
    },
    async saveIfDue(signal) {
      if (!isDue()) return;
      await save(signal);
      checkpointDueMs = clock.monotonicMs() + CHECKPOINT_MS;
      if (clock.monotonicMs() < trimDueMs) return;
      await journal.trimHistory(signal);
      trimDueMs = clock.monotonicMs() + bounds.trimMs;
    },
    save,
  };
}
