/**
 * Whether a key was settled so long ago that the stage has forgotten it (`settled-keys.ts`): its journal says so for as
 * long as it is kept. That is asked only of a record that comes late, so long after its cause that a first copy of it
 * may be beyond the horizon: whoever wrote that one ended before it knew, was away for days, and has written it again.
 *
 * However many come late, what is needed of the journal is read once: back to the earliest cause, and on to its tail as
 * it was no longer ago than the stage remembers every key.
 */
import type { Clock } from '../../platform/clock.ts';
import { MillraceError, errorKind } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { backoffMs } from '../../platform/retry.ts';
import { firstSince } from '../first-since.ts';
import { FingerprintTable } from '../fingerprint-table.ts';
import { fingerprint } from '../settled-keys.ts';
import { outcomeOf, scan } from '../stream-scan.ts';
import type { Stream } from '../stream-store.ts';

export interface SettledLongAgo {
  /**
   * Waits while the store is away.
   * @throws MillraceError `stage.too_late` (permanent) where too much was settled since to say
   */
  has(key: string, causedAtMs: number, signal: AbortSignal): Promise<boolean>;
}

/** Of the journal, for one turn of the stage; their keys take 24 to 48 bytes each. */
const MAX_RECORDS = 1_000_000;
/** Who wrote the time of the cause and who wrote the journal may have different clocks. */
const CLOCK_MARGIN_MS = 2 * 3_600_000;
const RETRY = { baseMs: 50, maxMs: 5_000 };

/** @param options.staleMs how old what was read of the journal may be: less than the stage remembers keys for */
export function createSettledLongAgo(
  { journal, clock, log }: { journal: Stream; clock: Clock; log: Log },
  options: { staleMs: number },
): SettledLongAgo {
  const keys = new FingerprintTable();
  /** What of the journal is read: records from `from` to below `until`, which hold all since `sinceMs`. */
  let known: { sinceMs: number; from: number; until: number; atMs: number } | undefined;
  let records = 0;
  let reading: Promise<unknown> = Promise.resolve();

  async function readRange(range: { from: number; until: number }, signal: AbortSignal): Promise<void> {
    const { from: fromSeqNum, until: untilSeqNum } = range;
    const maxRecords = MAX_RECORDS - records;
    let seen = 0;
    const rest = await scan(journal, { fromSeqNum, untilSeqNum, maxRecords, signal }, (record) => {
      seen += 1;
      const outcome = outcomeOf(record);
      // As recovery has it: of two copies the second may be settled before the first one.
      if (outcome && outcome.outcome !== 'deferred' && outcome.outcome !== 'duplicate')
        keys.add(fingerprint(outcome.key), 0);
    });
    if (rest !== null) throw tooLate();
    records += seen;
  }

  async function cover(sinceMs: number, signal: AbortSignal): Promise<void> {
    const atMs = clock.monotonicMs();
    if (!known || atMs - known.atMs > options.staleMs) {
      const until = await journal.tail(signal);
      const from = known?.until ?? (await firstSince(journal, sinceMs, signal));
      await readRange({ from, until }, signal);
      known = { sinceMs: known?.sinceMs ?? sinceMs, from: known?.from ?? from, until, atMs };
    }
    if (sinceMs >= known.sinceMs) return;
    const from = await firstSince(journal, sinceMs, signal);
    if (from < known.from) await readRange({ from, until: known.from }, signal);
    known = { ...known, sinceMs, from: Math.min(from, known.from) };
  }

  async function coverAtLast(sinceMs: number, signal: AbortSignal): Promise<void> {
    for (let attempts = 1; ; attempts++) {
      signal.throwIfAborted();
      try {
        return await cover(sinceMs, signal);
      } catch (error) {
        if (errorKind(error) !== 'transient') throw error;
        log.warn({ stream: journal.name, attempts, error }, 'stage.read_failed');
        await clock.sleep(backoffMs(attempts, RETRY, clock.random), signal);
      }
    }
  }

  return {
    async has(key, causedAtMs, signal) {
      // One after another: those behind find what the first one read.
      const mine = reading.then(() => coverAtLast(causedAtMs - CLOCK_MARGIN_MS, signal));
      reading = mine.catch(() => undefined);
      await mine;
      return keys.has(fingerprint(key));
    },
  };
}

function tooLate(): MillraceError {
  return new MillraceError(
    'permanent',
    'stage.too_late',
    `it comes late, and more than ${MAX_RECORDS} records were settled since, so that it is not known whether it was`,
    { hint: 'Look whether its mail was answered. If it was not, redrive the dead letter.' },
  );
}
