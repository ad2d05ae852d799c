/**
 * Appending to a stream on S2. A request is sent once, and the SDK never repeats it behind our back: after a
 * lost acknowledgement nobody knows whether it happened, and a second one could write the records twice.
 *
 * With `matchSeqNum` the doubt can be settled: the append is sent again, and its condition lets it happen at
 * most once. When the number is taken by then, the records that stand there are compared with ours byte for
 * byte. That goes on for `MAX_DOUBT_MS`; only a store that stays out of reach leaves the caller in doubt.
 */
import { AppendInput, AppendRecord } from '@s2-dev/streamstore';
import type { S2Basin } from '@s2-dev/streamstore';
import type { Clock } from '../platform/clock.ts';
import { errorKind, hasCode } from '../platform/errors.ts';
import { backoffMs } from '../platform/retry.ts';
import { isStreamNotFound } from './s2-errors.ts';
import type { S2Provision } from './s2-provision.ts';
import type { RawRecord, S2Reader } from './s2-reading.ts';
import type { Request } from './s2-requests.ts';
import { StreamConditionError } from './stream-store.ts';
import type { AppendAck, AppendOptions, NewRecord } from './stream-store.ts';

/** How long an append with `matchSeqNum` tries to find out whether it happened. */
const MAX_DOUBT_MS = 30_000;
const DOUBT_BACKOFF = { baseMs: 50, maxMs: 2_000 };

export interface AppendingDeps {
  basin: S2Basin;
  request: Request;
  provision: S2Provision;
  clock: Clock;
}

interface Conditional {
  matchSeqNum: number;
  signal: AbortSignal | undefined;
}

export type S2Append = (records: readonly AppendRecord[], options?: AppendOptions) => Promise<AppendAck>;

export function createS2Append(
  { basin, request, provision, clock }: AppendingDeps,
  { name, reader }: { name: string; reader: Pick<S2Reader, 'readRaw'> },
): S2Append {
  async function appendOnce(input: AppendInput, signal: AbortSignal | undefined): Promise<AppendAck> {
    const { start, end } = await request({ signal, isAppend: true }, async (ended) => {
      try {
        return await basin.stream(name).append(input, { signal: ended });
      } catch (error) {
        // Deleted by somebody: the next append creates it again.
        if (isStreamNotFound(error)) provision.forgetStream(name);
        throw error;
      }
    });
    return { startSeqNum: start.seqNum, endSeqNum: end.seqNum };
  }

  /** Whether these records stand at `seqNum`; undefined when that cannot be told. */
  async function standsAt(
    seqNum: number,
    records: readonly AppendRecord[],
    signal: AbortSignal | undefined,
  ): Promise<boolean | undefined> {
    const range = { fromSeqNum: seqNum, maxRecords: records.length, waitSecs: 0, signal };
    const found = (await reader.readRaw(range)) ?? [];
    if (found.length > 0 && found[0]?.seqNum !== seqNum) return undefined;
    return found.length === records.length && records.every((record, i) => isSameRecord(record, found[i]));
  }

  /** Sends it; while an earlier one is in doubt, a refusal may mean that the number is taken by that one. */
  async function append(input: AppendInput, options: Conditional, doubt: unknown): Promise<AppendAck> {
    const { matchSeqNum, signal } = options;
    try {
      return await appendOnce(input, signal);
    } catch (error) {
      if (!doubt || !(error instanceof StreamConditionError)) throw error;
      const isOurs = await standsAt(matchSeqNum, input.records, signal);
      if (isOurs === undefined) throw doubt;
      if (!isOurs) throw error;
      return { startSeqNum: matchSeqNum, endSeqNum: matchSeqNum + input.records.length };
    }
  }

  async function appendUntilSettled(input: AppendInput, options: Conditional): Promise<AppendAck> {
    const giveUpMs = clock.monotonicMs() + MAX_DOUBT_MS;
    let doubt: unknown;
    for (let attempts = 1; ; attempts++) {
      try {
        return await append(input, options, doubt);
      } catch (error) {
        if (hasCode(error, 'streams.append_ambiguous')) doubt ??= error;
        if (!doubt || errorKind(error) !== 'transient') throw error;
        if (clock.monotonicMs() >= giveUpMs) throw doubt;
      }
      await clock.sleep(backoffMs(attempts, DOUBT_BACKOFF, clock.random), options.signal);
    }
  }

  return async (records, options = {}) => {
    const { matchSeqNum, fencingToken, signal } = options;
    signal?.throwIfAborted();
    await provision.ensureStream(name);
    const input = AppendInput.create(records, {
      ...(matchSeqNum !== undefined && { matchSeqNum }),
      ...(fencingToken !== undefined && { fencingToken }),
    });
    if (matchSeqNum === undefined) return appendOnce(input, signal);
    return appendUntilSettled(input, { matchSeqNum, signal });
  };
}

/** Bytes throughout: strings of the SDK's would be taken apart into JSON on the way. */
export function appendRecordOf({ headers = [], body, timestampMs }: NewRecord): AppendRecord {
  return AppendRecord.bytes({
    headers,
    body: typeof body === 'string' ? Buffer.from(body) : body,
    ...(timestampMs !== undefined && { timestamp: timestampMs }),
  });
}

function isSameRecord(ours: AppendRecord, found: RawRecord | undefined): boolean {
  if (!found || !isSameBytes(ours.body, found.body)) return false;
  const headers = ours.headers ?? [];
  return (
    headers.length === found.headers.length &&
    headers.every(([name, value], i) => {
      const header = found.headers[i];
      return header !== undefined && isSameBytes(name, header[0]) && isSameBytes(value, header[1]);
    })
  );
}

function isSameBytes(a: string | Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(typeof a === 'string' ? Buffer.from(a) : a, b) === 0;
}
