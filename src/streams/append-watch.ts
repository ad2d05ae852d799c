/**
 * Remembers whether the store takes records. One that can be read may take none: its disk is full, or its token may only
 * read.
 *
 * - What is told begins with an append that failed for a reason that may pass, or took too long for who asked for it,
 *   and ends with one that was taken and was as large: on a disk with a little room left, small ones tell nothing.
 * - Where nobody appends any more, whoever asks is answered by an append of that size to `probe`, which is trimmed at
 *   once.
 */
import type { Clock } from '../platform/clock.ts';
import { errorKind } from '../platform/errors.ts';
import { streamNames } from './records.ts';
import { meteredBytes } from './stream-store.ts';
import type { NewRecord, StreamStore } from './stream-store.ts';

export interface AppendFault {
  readonly sinceMs: number;
  /** Why the last one failed. */
  readonly error: unknown;
}

export interface AppendWatch {
  /** The same store; what is appended to it is watched. */
  readonly store: StreamStore;
  /** Why appends fail, or null. Does not reject. */
  fault(signal: AbortSignal): Promise<AppendFault | null>;
}

/** Between a failed append and the next probe. */
const PROBE_AFTER_MS = 2_000;
/** A trim, a fence, the least record. */
const LEAST_BYTES = 8;
const leastBytes = (): number => LEAST_BYTES;

export function watchAppends({ store, clock }: { store: StreamStore; clock: Clock }): AppendWatch {
  let fault: (AppendFault & { bytes: number; lastMs: number }) | null = null;
  let probing: Promise<void> | null = null;

  /** @param size in bytes; it is asked only where something has failed */
  async function watched<T>(size: () => number, append: Promise<T>): Promise<T> {
    try {
      const done = await append;
      if (fault !== null && size() >= fault.bytes) fault = null;
      return done;
    } catch (error) {
      if (errorKind(error) === 'transient' || isTimeout(error)) {
        const { sinceMs, bytes: before } = fault ?? { sinceMs: clock.nowMs(), bytes: 0 };
        fault = { sinceMs, error, bytes: Math.max(size(), before), lastMs: clock.monotonicMs() };
      }
      throw error;
    }
  }

  async function probe(bytes: number, signal: AbortSignal): Promise<void> {
    const stream = store.stream(streamNames.probe);
    try {
      const { endSeqNum } = await watched(() => bytes, stream.append([probeRecord(bytes)], { signal }));
      await stream.trim(endSeqNum, { signal });
    } catch {
      // What failed is remembered; what was not trimmed expires.
    }
  }

  return {
    store: {
      ...store,
      stream(name) {
        const stream = store.stream(name);
        return {
          ...stream,
          append: (records, options) => watched(() => bytesOf(records), stream.append(records, options)),
          trim: (beforeSeqNum, options) => watched(leastBytes, stream.trim(beforeSeqNum, options)),
          fence: (token, options) => watched(leastBytes, stream.fence(token, options)),
        };
      },
    },
    async fault(signal) {
      if (fault !== null && clock.monotonicMs() - fault.lastMs >= PROBE_AFTER_MS) {
        probing ??= probe(fault.bytes, signal).finally(() => (probing = null));
        await probing;
      }
      return fault;
    },
  };
}

/** The time of whoever waited was over (`createDeadline`); that somebody did not want it any more says nothing. */
function isTimeout(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'TimeoutError';
}

function bytesOf(records: readonly NewRecord[]): number {
  return records.reduce((bytes, record) => bytes + meteredBytes(record), 0);
}

/** One record that is as large; what follows its JSON is blank. */
function probeRecord(bytes: number): NewRecord {
  return { body: JSON.stringify({ kind: 'probe', version: 1 }).padEnd(bytes - LEAST_BYTES) };
}
