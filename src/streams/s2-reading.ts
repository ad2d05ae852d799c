/**
 * Reading and following a stream on S2, with plain requests: following is long polling. That has none of the
 * ways in which a read session of the SDK ends (a clean end, a spent budget of reconnects on an idle tail, a
 * lost abort), and costs one round trip a batch.
 *
 * Commands are not filtered by the server but dropped here, so that a jump in the sequence numbers can mean one
 * thing only: records that were trimmed or have expired.
 */
import type { Clock } from '../platform/clock.ts';
import { errorKind } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { backoffMs } from '../platform/retry.ts';
import { isStreamNotFound } from './s2-errors.ts';
import type { S2ReadInput, S2Records } from './s2-records.ts';
import type { Request } from './s2-requests.ts';
import { recordOfWire } from './s2-wire.ts';
import type { WireRecord } from './s2-wire.ts';
import { limits } from './stream-store.ts';
import type { ReadBatch, Stream } from './stream-store.ts';

export interface ReadingDeps {
  records: S2Records;
  request: Request;
  clock: Clock;
  log: Log;
  /** Aborted when the store closes. */
  closing: AbortSignal;
}

interface Range extends S2ReadInput {
  signal?: AbortSignal | undefined;
}

export interface S2Reader {
  tail: Stream['tail'];
  read(range: Range): Promise<ReadBatch>;
  follow: Stream['follow'];
  /** Records and commands from `fromSeqNum` on, or null at or beyond the tail. */
  readRaw(range: Range): Promise<readonly WireRecord[] | null>;
}

/** S2 takes up to 60; a shorter poll notices a dead connection earlier. */
const LONG_POLL_SECS = 25;
/** A long poll that comes back empty before this was not waited out: the next one is held back. */
const EARLY_MS = 1_000;
const EARLY_BACKOFF = { baseMs: 50, maxMs: 1_000 };
const FAULT_BACKOFF = { baseMs: 100, maxMs: 5_000 };

export function createS2Reader(deps: ReadingDeps, name: string): S2Reader {
  const { request, records } = deps;

  async function tail(signal?: AbortSignal): Promise<number> {
    return request({ signal }, async (ended) => {
      try {
        return await records.tail(name, ended);
      } catch (error) {
        if (isStreamNotFound(error)) return 0;
        throw error;
      }
    });
  }

  async function readRaw({ signal, ...input }: Range): Promise<readonly WireRecord[] | null> {
    return request({ signal, waitMs: input.waitSecs * 1000 }, async (ended) => {
      try {
        return await records.read(name, input, ended);
      } catch (error) {
        if (isStreamNotFound(error)) return null;
        throw error;
      }
    });
  }

  /** Below the tail there is nothing left: how far that goes. Asked in this order, no new record is passed over. */
  async function readPastTheGone(range: Range): Promise<ReadBatch> {
    const toSeqNum = await tail(range.signal);
    const raw = await readRaw(range);
    if (raw === null || raw.length > 0) return batchOf(range.fromSeqNum, raw ?? []);
    return { records: [], nextSeqNum: toSeqNum, missing: { fromSeqNum: range.fromSeqNum, toSeqNum } };
  }

  async function readOnce(range: Range): Promise<ReadBatch> {
    const raw = await readRaw(range);
    if (raw === null || raw.length > 0 || range.waitSecs > 0) return batchOf(range.fromSeqNum, raw ?? []);
    return readPastTheGone(range);
  }

  async function read(range: Range): Promise<ReadBatch> {
    let batch = await readOnce(range);
    // Nothing but commands is not yet the tail. Each turn goes on behind commands that somebody has written.
    for (let from = range.fromSeqNum; batch.records.length === 0 && batch.nextSeqNum > from;) {
      from = batch.nextSeqNum;
      const following = await readOnce({ ...range, fromSeqNum: from, waitSecs: 0 });
      const missing = batch.missing ?? following.missing;
      batch = { ...following, ...(missing && { missing }) };
    }
    return batch;
  }

  return {
    tail,
    read,
    readRaw,
    follow: ({ fromSeqNum, signal }) => followWith(deps, { name, read, fromSeqNum, signal }),
  };
}

interface Following {
  name: string;
  read: S2Reader['read'];
  fromSeqNum: number;
  signal: AbortSignal;
}

async function* followWith(
  { clock, log, closing }: ReadingDeps,
  { name, read, fromSeqNum, signal }: Following,
): AsyncGenerator<ReadBatch, void> {
  const ended = AbortSignal.any([signal, closing]);
  const pause = (ms: number): Promise<void> => clock.sleep(ms, ended).catch(() => undefined);
  let next = fromSeqNum;
  let waitSecs = 0;
  let faults = 0;
  let early = 0;
  while (!ended.aborted) {
    const startedMs = clock.monotonicMs();
    let batch: ReadBatch;
    try {
      batch = await read({ fromSeqNum: next, maxRecords: limits.batchRecords, waitSecs, signal: ended });
    } catch (error) {
      if (ended.aborted) return;
      if (errorKind(error) !== 'transient') throw error;
      faults += 1;
      // One line an outage, however long it takes.
      log[faults === 1 ? 'warn' : 'debug']({ stream: name, faults, error }, 'streams.follow_interrupted');
      waitSecs = 0;
      await pause(backoffMs(faults, FAULT_BACKOFF, clock.random));
      continue;
    }
    faults = 0;
    const hasMoved = batch.nextSeqNum > next;
    next = batch.nextSeqNum;
    if (batch.records.length > 0 || batch.missing) yield batch;
    // Where the stream is not there yet, or ends before `next`, the server does not wait: neither may we hurry.
    const cameEarly = !hasMoved && waitSecs > 0 && clock.monotonicMs() - startedMs < EARLY_MS;
    if (cameEarly) await pause(backoffMs(++early, EARLY_BACKOFF, clock.random));
    else if (hasMoved || waitSecs > 0) early = 0;
    // After an empty wait one plain read, which can tell an idle tail from records that are gone.
    waitSecs = hasMoved || waitSecs === 0 ? LONG_POLL_SECS : 0;
  }
}

/** The records of one answer without its commands; a first number beyond `fromSeqNum` is a jump. */
function batchOf(fromSeqNum: number, raw: readonly WireRecord[]): ReadBatch {
  const first = raw[0]?.seq_num ?? fromSeqNum;
  const last = raw.at(-1);
  return {
    records: raw.flatMap((record) => recordOfWire(record) ?? []),
    nextSeqNum: last ? last.seq_num + 1 : fromSeqNum,
    ...(first > fromSeqNum && { missing: { fromSeqNum, toSeqNum: first } }),
  };
}
