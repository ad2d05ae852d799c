/**
 * Brings the records of the source, in order, and pauses while there is too much of them in hand.
 *
 * Where records have a fairness key, it does not wait for the memory that one key uses up, but passes its records
 * over (`passed-over.ts`) and reads on, so that a burst under one key does not keep it from those of another. As the
 * key's records settle, those passed over are read again and brought: within a key in order, so also within a lane,
 * whose records have the same key.
 */
import type { Clock } from '../../platform/clock.ts';
import { errorKind, hasCode } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { backoffMs } from '../../platform/retry.ts';
import type { Stream, StreamRecord } from '../stream-store.ts';
import type { ChangeSignal } from './change-signal.ts';
import type { Lanes } from './lanes.ts';
import type { PassedOver } from './passed-over.ts';
import { createReread } from './reread.ts';
import type { StageLimits } from './stage-limits.ts';
import type { Standing } from './standing.ts';

const RETRY = { baseMs: 50, maxMs: 5_000 };
/** That the stage holds all that it may set aside is said again when it has held so much less of it. */
const SAID_AGAIN_BELOW = 0.9;

export interface ReaderOptions extends Pick<StageLimits, 'aside' | 'passedOver'> {
  /** Absent where records have none. */
  fairnessKeyOf: ((record: StreamRecord) => string) | undefined;
  /** Keys come out the same from one call of this to the next. */
  keysMayChange: (() => void) | undefined;
  admit(record: StreamRecord, fairnessKey: string): void;
  /** So many records were gone before they were read: nobody will know what became of them. */
  onMissing(count: number): void;
}

/** Reads until the signal is aborted; rejects when the source cannot be read any more. */
export type Reader = (signal: AbortSignal) => Promise<void>;

export function createReader(
  deps: {
    source: Stream;
    clock: Clock;
    log: Log;
    lanes: Lanes;
    standing: Standing;
    passedOver: PassedOver;
    changed: ChangeSignal;
  },
  options: ReaderOptions,
): Reader {
  const { source, clock, log, lanes, standing, passedOver, changed } = deps;
  const isPassedOver = (seqNum: number): boolean =>
    seqNum < standing.position && !standing.has(seqNum) && !lanes.isInMemory(seqNum);
  const reread = createReread(source, isPassedOver);

  let wasAsideFull = false;

  /** What is due weeks ahead can keep everything behind it unread: that is said, once in a while. */
  function isAsideFull(): boolean {
    const aside = standing.asideCount;
    const isFull = aside >= options.aside;
    if (isFull && !wasAsideFull) log.warn({ source: source.name, aside }, 'stage.aside_full');
    wasAsideFull = isFull || (wasAsideFull && aside > options.aside * SAID_AGAIN_BELOW);
    return isFull;
  }

  function mustPause(): boolean {
    if (isAsideFull()) return true;
    return options.fairnessKeyOf ? passedOver.size >= options.passedOver : lanes.isFull;
  }

  function fairnessKeyOf(record: StreamRecord): string {
    try {
      return options.fairnessKeyOf?.(record) ?? '';
    } catch {
      // What cannot be read takes its turn with all such; what becomes of it, its lane or its handler says.
      return '';
    }
  }

  function sayMissing(range: { fromSeqNum: number; toSeqNum: number }): void {
    log.error({ source: source.name, ...range }, 'stage.records_missing');
    options.onMissing(range.toSeqNum - range.fromSeqNum);
  }

  function bring(record: StreamRecord): void {
    if (passedOver.size === 0) options.keysMayChange?.();
    const fairnessKey = fairnessKeyOf(record);
    const isTooMuch = passedOver.hasAnyOf(fairnessKey) || !lanes.hasRoomFor(fairnessKey);
    if (options.fairnessKeyOf && isTooMuch) return passedOver.add(fairnessKey, record.seqNum);
    options.admit(record, fairnessKey);
    // It may have made room for one passed over: a record that waits gives up its place.
    if (passedOver.size > 0) changed.notify();
  }

  async function readOn(signal: AbortSignal): Promise<void> {
    for await (const batch of source.follow({ fromSeqNum: standing.position, signal })) {
      if (batch.missing) sayMissing(batch.missing);
      for (const record of batch.records) {
        while (mustPause() && !signal.aborted) await changed.wait();
        if (signal.aborted) return;
        standing.position = record.seqNum + 1;
        if (!standing.has(record.seqNum)) bring(record);
      }
      standing.position = Math.max(standing.position, batch.nextSeqNum);
    }
  }

  async function bringPassedOver(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const next = isAsideFull() ? undefined : passedOver.next((key) => lanes.hasRoomFor(key));
      if (!next) {
        await changed.wait();
        continue;
      }
      const record = await readAgain(next.seqNum, signal);
      if (signal.aborted) return;
      passedOver.letIn(next.fairnessKey);
      if (record) options.admit(record, next.fairnessKey);
    }
  }

  /** Undefined for one that has expired meanwhile, as for any that expired unread. */
  async function readAgain(seqNum: number, signal: AbortSignal): Promise<StreamRecord | undefined> {
    for (let attempts = 1; ; attempts++) {
      try {
        return await reread(seqNum, signal);
      } catch (error) {
        if (signal.aborted) return undefined;
        if (hasCode(error, 'stage.record_expired')) {
          sayMissing({ fromSeqNum: seqNum, toSeqNum: seqNum + 1 });
          return undefined;
        }
        if (errorKind(error) !== 'transient') throw error;
        log.warn({ source: source.name, attempts, error }, 'stage.read_failed');
        await clock.sleep(backoffMs(attempts, RETRY, clock.random), signal).catch(() => undefined);
      }
    }
  }

  return async (signal) => {
    await Promise.all([readOn(signal), options.fairnessKeyOf && bringPassedOver(signal)]);
  };
}
