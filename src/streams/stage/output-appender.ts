/**
 * Appends what handlers give to other streams, and tells where it stands; and the intents that hold outputs on the
 * journal until then. It tries again until all is durable: a lost acknowledgement can leave an output there twice.
 */
import type { Clock } from '../../platform/clock.ts';
import { errorKind } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { backoffMs } from '../../platform/retry.ts';
import type { Backoff } from '../../platform/retry.ts';
import type { IntentRecord, OutcomeRecord } from '../journal-records.ts';
import { jsonRecord } from '../records.ts';
import { limits, meteredBytes } from '../stream-store.ts';
import type { NewRecord, StreamStore } from '../stream-store.ts';

const OUTPUT_RETRY: Backoff = { baseMs: 50, maxMs: 5_000 };

/** A record to be appended, and to which stream. */
export interface Output {
  readonly stream: string;
  readonly record: NewRecord;
}

/** Numbers of outputs by stream. */
export type Places = NonNullable<OutcomeRecord['outputs']>;

export type AppendOutputs = (
  outputsOf: readonly (readonly Output[])[],
  signal: AbortSignal,
) => Promise<Places[]>;

export function createOutputAppender(deps: { store: StreamStore; clock: Clock; log: Log }): AppendOutputs {
  const { store, clock, log } = deps;

  /**
   * Appends the outputs of several records, in order within each stream; tries again until they are durable.
   * Gives, for each of the records, where its outputs stand.
   */
  async function append(outputsOf: readonly (readonly Output[])[], signal: AbortSignal): Promise<Places[]> {
    const places: Places[] = outputsOf.map(() => ({}));
    const byStream = new Map<string, { records: NewRecord[]; owners: Places[] }>();
    for (const [at, outputs] of outputsOf.entries()) {
      for (const { stream, record } of outputs) {
        const group = byStream.get(stream) ?? { records: [], owners: [] };
        byStream.set(stream, group);
        group.records.push(record);
        group.owners.push(places[at]!);
      }
    }
    await Promise.all(
      [...byStream].map(async ([stream, { records, owners }]) => {
        const seqNums = await appendAll(stream, records, signal);
        for (const [at, owner] of owners.entries()) (owner[stream] ??= []).push(seqNums[at]!);
      }),
    );
    return places;
  }

  async function appendAll(
    stream: string,
    records: readonly NewRecord[],
    signal: AbortSignal,
  ): Promise<number[]> {
    const seqNums: number[] = [];
    for (const chunk of chunksOf(records)) {
      for (let attempts = 1; ; attempts++) {
        try {
          const { startSeqNum } = await store.stream(stream).append(chunk, { signal });
          seqNums.push(...chunk.map((_, at) => startSeqNum + at));
          break;
        } catch (error) {
          if (errorKind(error) !== 'transient') throw error;
          log.warn({ stream, attempts, error }, 'stage.append_failed');
          await clock.sleep(backoffMs(attempts, OUTPUT_RETRY, clock.random), signal);
        }
      }
    }
    return seqNums;
  }

  return append;
}

/** What is decided about a record, before its outputs are written. */
export function intentOf(outcome: OutcomeRecord, outputs: readonly Output[]): NewRecord {
  const plain = outputs.map(({ stream, record: { headers = [], body } }) => ({
    stream,
    headers,
    body: Buffer.from(body).toString('utf8'),
  }));
  return jsonRecord({ kind: 'intent', version: 1, outcome, outputs: plain });
}

export function outputsOfIntent({ outputs }: IntentRecord): Output[] {
  return outputs.map(({ stream, headers, body }) => ({ stream, record: { headers, body } }));
}

/** Consecutive records in batches that a store takes. */
export function* chunksOf(records: readonly NewRecord[]): Generator<NewRecord[]> {
  let chunk: NewRecord[] = [];
  let bytes = 0;
  for (const record of records) {
    const size = meteredBytes(record);
    if (chunk.length > 0 && (chunk.length >= limits.batchRecords || bytes + size > limits.batchBytes)) {
      yield chunk;
      [chunk, bytes] = [[], 0];
    }
    chunk.push(record);
    bytes += size;
  }
  if (chunk.length > 0) yield chunk;
}
