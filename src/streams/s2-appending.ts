/**
 * Appending to a stream on S2. A request is sent once and never repeated behind anybody's back: after a lost
 * acknowledgement nobody knows whether it happened, and a second one could write the records twice.
 *
 * - With `matchSeqNum` the doubt can be settled: the append is sent again, and its condition lets it happen at
 *   most once. When the number is taken by then, the records that stand there are compared with ours byte for
 *   byte. That goes on for `MAX_DOUBT_MS`; only a store that stays out of reach leaves the caller in doubt.
 * - Without any condition, appends to one stream share requests (`s2-groups.ts`).
 * - A stream is there before it is appended to (`s2-provision.ts`), but for a first record (`matchSeqNum` 0):
 *   that makes the stream itself, in one request instead of two. Every mail is such a stream.
 */
import type { Clock } from '../platform/clock.ts';
import { MillraceError, errorKind, hasCode } from '../platform/errors.ts';
import { backoffMs } from '../platform/retry.ts';
import { isStreamNotFound } from './s2-errors.ts';
import { createS2Groups } from './s2-groups.ts';
import type { S2Provision } from './s2-provision.ts';
import type { S2Reader } from './s2-reading.ts';
import type { S2AppendInput, S2Records } from './s2-records.ts';
import type { Request } from './s2-requests.ts';
import { isSameRecord, wireRecordOf } from './s2-wire.ts';
import type { NewWireRecord } from './s2-wire.ts';
import { StreamConditionError } from './stream-store.ts';
import type { AppendAck, AppendOptions, NewRecord } from './stream-store.ts';

/** How long an append with `matchSeqNum` tries to find out whether it happened. */
const MAX_DOUBT_MS = 30_000;
const DOUBT_BACKOFF = { baseMs: 50, maxMs: 2_000 };

export interface AppendingDeps {
  records: S2Records;
  request: Request;
  provision: S2Provision;
  clock: Clock;
}

interface Conditional {
  matchSeqNum: number;
  signal: AbortSignal | undefined;
}

/** Where to append. */
interface Target {
  name: string;
  reader: Pick<S2Reader, 'readRaw'>;
}

export interface S2Appender {
  append(target: Target, records: readonly NewRecord[], options?: AppendOptions): Promise<AppendAck>;
  /** `trim` and `fence`, which are records of their own. */
  commands(target: Target, commands: readonly NewWireRecord[], options?: AppendOptions): Promise<AppendAck>;
}

export function createS2Appender({ records: s2, request, provision, clock }: AppendingDeps): S2Appender {
  async function appendOnce(
    name: string,
    input: S2AppendInput,
    signal: AbortSignal | undefined,
  ): Promise<AppendAck> {
    const createWith = input.matchSeqNum === 0 ? provision.madeByFirstAppend(name) : undefined;
    if (createWith === undefined) await provision.ensureStream(name);
    try {
      return await request({ signal, isAppend: true }, (ended) =>
        s2.append(name, { ...input, createWith }, ended),
      );
    } catch (error) {
      if (!(error instanceof MillraceError && isStreamNotFound(error.cause))) throw error;
      if (createWith === undefined) {
        // Deleted by somebody: the next append makes it again.
        provision.forgetStream(name);
        throw error;
      }
      provision.makeStreamsBeforehand();
      return appendOnce(name, input, signal);
    }
  }

  /** Sends it; while an earlier one is in doubt, a refusal may mean that the number is taken by that one. */
  async function appendInDoubt(
    target: Target,
    input: S2AppendInput,
    { matchSeqNum, signal, doubt }: Conditional & { doubt: unknown },
  ): Promise<AppendAck> {
    try {
      return await appendOnce(target.name, input, signal);
    } catch (error) {
      if (!doubt || !(error instanceof StreamConditionError)) throw error;
      const isOurs = await standThere(target, { ...input, matchSeqNum }, signal);
      if (isOurs === undefined) throw doubt;
      if (!isOurs) throw error;
      return { startSeqNum: matchSeqNum, endSeqNum: matchSeqNum + input.records.length };
    }
  }

  async function appendUntilSettled(
    target: Target,
    input: S2AppendInput,
    options: Conditional,
  ): Promise<AppendAck> {
    const giveUpMs = clock.monotonicMs() + MAX_DOUBT_MS;
    let doubt: unknown;
    for (let attempts = 1; ; attempts++) {
      try {
        return await appendInDoubt(target, input, { ...options, doubt });
      } catch (error) {
        if (hasCode(error, 'streams.append_ambiguous')) doubt ??= error;
        if (!doubt || errorKind(error) !== 'transient') throw error;
        if (clock.monotonicMs() >= giveUpMs) throw doubt;
      }
      await clock.sleep(backoffMs(attempts, DOUBT_BACKOFF, clock.random), options.signal);
    }
  }

  const appendGrouped = createS2Groups((name, records, signal) =>
    appendOnce(name, { records: records.map(wireRecordOf) }, signal),
  );

  async function appendWire(
    target: Target,
    records: readonly NewWireRecord[],
    { matchSeqNum, fencingToken, signal }: AppendOptions,
  ): Promise<AppendAck> {
    signal?.throwIfAborted();
    const input = { records, matchSeqNum, fencingToken };
    if (matchSeqNum === undefined) return appendOnce(target.name, input, signal);
    return appendUntilSettled(target, input, { matchSeqNum, signal });
  }

  return {
    commands: (target, commands, options = {}) => appendWire(target, commands, options),
    async append(target, records, options = {}) {
      const { matchSeqNum, fencingToken, signal } = options;
      signal?.throwIfAborted();
      if (matchSeqNum === undefined && fencingToken === undefined)
        return appendGrouped(target.name, records, signal);
      return appendWire(target, records.map(wireRecordOf), options);
    },
  };
}

/** Whether these records stand at `matchSeqNum`; undefined when that cannot be told. */
async function standThere(
  { reader }: Target,
  { records, matchSeqNum }: { records: readonly NewWireRecord[]; matchSeqNum: number },
  signal: AbortSignal | undefined,
): Promise<boolean | undefined> {
  const range = { fromSeqNum: matchSeqNum, maxRecords: records.length, waitSecs: 0, signal };
  const found = (await reader.readRaw(range)) ?? [];
  if (found.length > 0 && found[0]?.seq_num !== matchSeqNum) return undefined;
  return found.length === records.length && records.every((record, i) => isSameRecord(record, found[i]));
}
