/**
 * A stage's journal: the only progress that there is. What stands on it: `journal-records.ts`.
 *
 * Whoever takes over fences the journal with its own token first, so that nobody else can write any more, and
 * recovers then: backwards to the newest complete checkpoint, and forwards from there. Every append names the
 * token and the expected sequence number, so that the owner before fails at its next commit.
 *
 * What recovery no longer needs is history, for people: it is trimmed when it is older than `historyMs`, by a steady time
 * that goes on from the newest record: a wall clock that is months ahead must not trim all of it.
 */
import type { Clock } from '../platform/clock.ts';
import { MillraceError, hasCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { backoffMs } from '../platform/retry.ts';
import { startSteadyTime } from '../platform/steady-time.ts';
import { rangesOf, sharesOf } from './checkpoint-lists.ts';
import { firstSince } from './first-since.ts';
import { journalRecordSchema } from './journal-records.ts';
import type { Aside, CheckpointPart, IntentRecord, JournalRecord } from './journal-records.ts';
import { jsonRecord, parseJsonRecord } from './records.ts';
import { SettledKeys, fingerprint } from './settled-keys.ts';
import type { NewRecord, Stream, StreamRecord } from './stream-store.ts';

/** Where a stage stands: what recovery yields and a checkpoint saves. */
export interface Progress {
  low: number;
  settled: Set<number>;
  aside: Map<number, Aside>;
  doubts: Map<number, number>;
  keys: SettledKeys;
  /** Intents without their outcome; none is open when a checkpoint is written. */
  intents: Map<number, IntentRecord>;
  runningMs: number;
  /** Outcomes and attempts that stand on the journal behind the newest checkpoint. */
  sinceCheckpoint: number;
}

export interface Journal {
  /** Makes this process the owner, and recovers the progress. */
  acquire(signal: AbortSignal): Promise<Progress>;
  /** Appends as the owner, exactly once, however often it must be tried; resolves to the first sequence number. */
  append(records: readonly NewRecord[], signal: AbortSignal): Promise<number>;
  /** Saves the progress, so that recovery need not look further back. */
  checkpoint(progress: Progress, signal: AbortSignal): Promise<void>;
  /** Lets go of what is older than `historyMs` and not needed for recovery. */
  trimHistory(signal: AbortSignal): Promise<void>;
}

interface JournalOptions {
  stream: Stream;
  /** Fencing token of this owner: at most 36 bytes, never used before. */
  owner: string;
  horizonMs: number;
  /** How long outcomes are kept for people to look at; `Infinity` for ever. */
  historyMs: number;
}

const READ_BACK_RECORDS = 1000;
const RETRY = { baseMs: 50, maxMs: 5_000 };

export function createJournal(deps: { clock: Clock; log: Log }, options: JournalOptions): Journal {
  const { clock, log } = deps;
  const { stream, owner } = options;
  let nextSeqNum = -1;
  /** The lowest record that a recovery from our newest checkpoint would read; undefined before the first. */
  let neededFrom: number | undefined;
  let trimmedTo = 0;
  /** Since `acquire`. */
  let steadyMs: () => number = () => clock.nowMs();

  const ownershipLost = (cause: unknown): MillraceError =>
    new MillraceError('permanent', 'stage.ownership_lost', `another process took over ${stream.name}`, {
      cause,
      hint: 'On S2 it has the work now, and nothing need be done. On the local store, stop the other daemon.',
    });

  /** True when the records at `nextSeqNum` are these, so that a lost acknowledgement was a success. */
  async function landed(records: readonly NewRecord[], signal: AbortSignal): Promise<boolean> {
    const found: StreamRecord[] = [];
    for (let from = nextSeqNum; found.length < records.length;) {
      const batch = await stream.read({
        fromSeqNum: from,
        maxRecords: records.length - found.length,
        signal,
      });
      if (batch.nextSeqNum === from) break;
      found.push(...batch.records);
      from = batch.nextSeqNum;
    }
    return records.every(
      (record, i) =>
        found[i]?.seqNum === nextSeqNum + i &&
        Buffer.compare(Buffer.from(found[i].body), Buffer.from(record.body)) === 0,
    );
  }

  async function append(records: readonly NewRecord[], signal: AbortSignal): Promise<number> {
    const first = nextSeqNum;
    let inDoubt = false;
    /** Somebody's records stand where these were to stand: an earlier attempt's, or another owner's. */
    let mismatch: unknown;
    for (let attempts = 1; ; attempts++) {
      signal.throwIfAborted();
      try {
        if (inDoubt && (await landed(records, signal))) break;
        if (mismatch) throw ownershipLost(mismatch);
        await stream.append(records, { matchSeqNum: nextSeqNum, fencingToken: owner, signal });
        break;
      } catch (error) {
        if (hasCode(error, 'streams.fenced')) throw ownershipLost(error);
        if (hasCode(error, 'streams.seq_num_mismatch')) {
          if (!inDoubt) throw ownershipLost(error);
          mismatch = error;
          continue;
        }
        if (!(error instanceof MillraceError) || error.kind !== 'transient') throw error;
        inDoubt ||= error.code === 'streams.append_ambiguous';
        log.warn({ stream: stream.name, attempts, error }, 'journal.append_failed');
        await clock.sleep(
          Math.max(error.retryAfterMs ?? 0, backoffMs(attempts, RETRY, clock.random)),
          signal,
        );
      }
    }
    nextSeqNum = first + records.length;
    return first;
  }

  async function tailOf(signal: AbortSignal): Promise<number> {
    for (let attempts = 1; ; attempts++) {
      try {
        return await stream.tail(signal);
      } catch (error) {
        if (!(error instanceof MillraceError) || error.kind !== 'transient') throw error;
        await clock.sleep(backoffMs(attempts, RETRY, clock.random), signal);
      }
    }
  }

  return {
    append,
    async acquire(signal) {
      // From here on the owner before us cannot write: what stands below is all that there is to recover. A
      // fence that lost its acknowledgement may be there twice, which harms nobody.
      nextSeqNum = await stream.fence(owner, { signal });
      const { horizonMs } = options;
      const { progress, newestMs } = await recover(stream, { tail: nextSeqNum, horizonMs, signal });
      steadyMs = startSteadyTime(clock, newestMs ?? clock.nowMs());
      return progress;
    },
    async checkpoint(progress, signal) {
      progress.keys.expire(progress.runningMs);
      for (const unsaved of progress.keys.takeUnsaved(progress.runningMs)) {
        const { fingerprints } = unsaved;
        const seqNum = await append([jsonRecord({ kind: 'keys', version: 1, fingerprints })], signal);
        progress.keys.saved(unsaved, seqNum);
      }
      const first = nextSeqNum;
      for (const part of checkpointParts(progress, clock.uuid())) await append([jsonRecord(part)], signal);
      neededFrom = Math.min(first, ...progress.keys.segments().map(({ seqNum }) => seqNum));
    },
    async trimHistory(signal) {
      if (neededFrom === undefined || options.historyMs === Infinity) return;
      try {
        const historyFrom = await firstSince(stream, steadyMs() - options.historyMs, signal);
        const to = Math.min(historyFrom, neededFrom);
        if (to <= trimmedTo) return;
        await stream.trim(to, { fencingToken: owner, signal });
        trimmedTo = to;
      } catch (error) {
        // Whoever fenced the journal will be met at the next append; what was not trimmed now is trimmed later.
        if (!(error instanceof MillraceError) || error.kind === 'bug') throw error;
        log.warn({ stream: stream.name, error }, 'journal.trim_failed');
      }
      // The command used up a number, if it got there. An owner after us holds another token, and so is not mistaken.
      nextSeqNum = await tailOf(signal);
    },
  };
}

/** Each part holds a share of each list, and fits into one append whatever the keys and lanes are. */
function checkpointParts(progress: Progress, id: string): CheckpointPart[] {
  const settled = sharesOf(rangesOf([...progress.settled].filter((seqNum) => seqNum >= progress.low)));
  const aside = sharesOf([...progress.aside.values()]);
  const doubts = sharesOf([...progress.doubts]);
  const parts = Math.max(1, settled.length, aside.length, doubts.length);
  return Array.from({ length: parts }, (_, part) => ({
    kind: 'checkpoint',
    version: 1,
    id,
    part,
    parts,
    low: progress.low,
    settled: settled[part] ?? [],
    aside: aside[part] ?? [],
    doubts: doubts[part] ?? [],
    keySegments: part === 0 ? progress.keys.segments() : [],
    runningMs: progress.runningMs,
  }));
}

/** Where the stage of this journal stands, for who only looks: nothing is fenced. */
export async function readProgress(stream: Stream, signal: AbortSignal): Promise<Progress> {
  const { progress } = await recover(stream, {
    tail: await stream.tail(signal),
    horizonMs: Infinity,
    signal,
  });
  return progress;
}

/** Where a stage stands before its first record. */
export function emptyProgress(keys = new SettledKeys(Infinity)): Progress {
  return {
    low: 0,
    settled: new Set(),
    aside: new Map(),
    doubts: new Map(),
    keys,
    intents: new Map(),
    runningMs: 0,
    sinceCheckpoint: 0,
  };
}

interface RecoverOptions {
  tail: number;
  horizonMs: number;
  signal: AbortSignal;
}

/** With the timestamp of the newest record, or null where there is none. */
async function recover(
  stream: Stream,
  { tail, horizonMs, signal }: RecoverOptions,
): Promise<{ progress: Progress; newestMs: number | null }> {
  const { checkpoint, after, newestMs } = await newestCheckpoint(stream, { tail, signal });
  const keys = new SettledKeys(horizonMs);
  for (const segment of checkpoint[0]?.keySegments ?? []) {
    const { records } = await stream.read({ fromSeqNum: segment.seqNum, maxRecords: 1, signal });
    const record =
      records[0]?.seqNum === segment.seqNum ? parseJsonRecord(journalRecordSchema, records[0]) : undefined;
    if (record?.kind !== 'keys')
      throw new MillraceError(
        'bug',
        'stage.journal_damaged',
        `${stream.name} lacks its key segment ${segment.seqNum}`,
      );
    keys.restore(segment, record.fingerprints);
  }
  const progress: Progress = {
    ...emptyProgress(keys),
    low: checkpoint[0]?.low ?? 0,
    aside: new Map(checkpoint.flatMap((part) => part.aside.map((aside) => [aside.seqNum, aside]))),
    doubts: new Map(checkpoint.flatMap((part) => part.doubts)),
    runningMs: checkpoint[0]?.runningMs ?? 0,
  };
  for (const [from, to] of checkpoint.flatMap((part) => part.settled))
    for (let seqNum = from; seqNum < to; seqNum++) progress.settled.add(seqNum);
  for (const record of after) applyJournalRecord(progress, record);
  return { progress, newestMs };
}

/** Reads back, in growing steps, to the newest checkpoint of which all parts are there. */
async function newestCheckpoint(stream: Stream, { tail, signal }: { tail: number; signal: AbortSignal }) {
  for (let back = READ_BACK_RECORDS; ; back *= 4) {
    const from = Math.max(0, tail - back);
    const { records, newestMs } = await readRange(stream, { from, to: tail, signal });
    const last = records.findLastIndex(
      (record) => record.kind === 'checkpoint' && record.part === record.parts - 1,
    );
    const final = records[last];
    if (final?.kind === 'checkpoint') {
      const checkpoint = records
        .slice(Math.max(0, last - final.parts + 1), last + 1)
        .filter((record) => record.kind === 'checkpoint' && record.id === final.id) as CheckpointPart[];
      if (checkpoint.length === final.parts) return { checkpoint, after: records.slice(last + 1), newestMs };
    }
    if (from === 0) return { checkpoint: [], after: records, newestMs };
  }
}

async function readRange(
  stream: Stream,
  { from, to, signal }: { from: number; to: number; signal: AbortSignal },
) {
  const records: JournalRecord[] = [];
  let newestMs: number | null = null;
  for (let next = from; next < to;) {
    const batch = await stream.read({ fromSeqNum: next, signal });
    for (const record of batch.records) {
      if (record.seqNum >= to) break;
      records.push(parseJsonRecord(journalRecordSchema, record));
      newestMs = record.timestampMs;
    }
    if (batch.nextSeqNum === next) break;
    next = batch.nextSeqNum;
  }
  return { records, newestMs };
}

/** What one journal record changes: the same at recovery as it was when it was written. */
export function applyJournalRecord(progress: Progress, record: JournalRecord): void {
  progress.sinceCheckpoint++;
  if (record.kind === 'attempt') {
    if (!progress.doubts.has(record.seqNum)) progress.doubts.set(record.seqNum, Date.parse(record.at));
  } else if (record.kind === 'intent') {
    progress.intents.set(record.outcome.seqNum, record);
  } else if (record.kind === 'outcome') {
    progress.doubts.delete(record.seqNum);
    progress.intents.delete(record.seqNum);
    if (record.outcome === 'deferred' && record.aside) {
      progress.aside.set(record.seqNum, record.aside);
      return;
    }
    progress.aside.delete(record.seqNum);
    progress.settled.add(record.seqNum);
    // A second copy may be settled before the first one, and then the key is not yet settled at all.
    if (record.outcome !== 'duplicate') progress.keys.add(fingerprint(record.key), progress.runningMs);
  }
}
