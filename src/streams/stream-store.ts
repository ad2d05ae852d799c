/**
 * The stream store: the only database. Two implementations (`local-store.ts`, `s2-store.ts`) keep one
 * contract, and one suite (`test/streams/stream-store.contract.ts`) holds both to it.
 *
 * - A store holds named streams. A stream comes into being with its first append, with the retention
 *   that `retentionFor` names for it; reading one that does not exist is reading an empty one.
 * - `append` takes a batch: all of it becomes durable, in order and without a gap, or none of it does.
 *   It resolves only when the batch is durable; what it acknowledged, every later read sees.
 * - Sequence numbers of a stream start at 0 and only grow. They may have gaps: `trim` and `fence` use up
 *   numbers of their own, which no read shows, and `skip` nothing else.
 * - `matchSeqNum` makes an append conditional: it is refused (`streams.seq_num_mismatch`) unless the first
 *   record would get this number. Such an append is never in doubt: after a lost acknowledgement the store
 *   looks whether the records are there and answers accordingly.
 * - An append without it that loses its acknowledgement is refused as `streams.append_ambiguous`
 *   (transient): the caller may append again, and whoever reads must drop what it has seen by its key.
 * - A fencing token is cooperative: once `fence` has set one, an append that carries another is refused
 *   (`streams.fenced`); an append that carries none is accepted.
 * - `trim(n)` lets go of all records below `n`, at once or a little later. Retention does the same by age.
 *   A read that starts below what is left begins at the first record left and reports the jump as `missing`.
 *   On the local store streams of one mail (`records.ts`) are gone with their last record, and begin anew.
 *
 * Errors: `streams.seq_num_mismatch`, `streams.fenced` (permanent, `StreamConditionError`);
 * `streams.unavailable`, `streams.append_ambiguous` (transient); `streams.unauthorized` (transient, because
 * a token can be mended while we wait) and, of S2, `streams.refused` (likewise); `streams.too_large`,
 * `streams.invalid_name` (invalid).
 */
import { MillraceError } from '../platform/errors.ts';

/** Header of a record. Names are non-empty and ASCII. */
export type RecordHeader = readonly [name: string, value: string];

export interface NewRecord {
  readonly headers?: readonly RecordHeader[];
  /** A string is stored as UTF-8. */
  readonly body: string | Uint8Array;
  /** When it was taken first, for a record that is put back from a backup. Default: now. */
  readonly timestampMs?: number;
}

export interface StreamRecord {
  readonly seqNum: number;
  /** When the store took it, milliseconds since the epoch. */
  readonly timestampMs: number;
  readonly headers: readonly RecordHeader[];
  readonly body: Uint8Array;
}

/** Limits of S2, which `local` keeps too, so that what runs on one runs on the other. */
export const limits = {
  /** Metered size of a batch: see `meteredBytes`. */
  batchBytes: 1024 * 1024,
  batchRecords: 1000,
  streamNameBytes: 512,
  fencingTokenBytes: 36,
} as const;

/** The size of a record as S2 meters it: 8 + 2 a header + names, values and body, in bytes of UTF-8. */
export function meteredBytes(record: NewRecord): number {
  let bytes = 8 + Buffer.byteLength(record.body);
  for (const [name, value] of record.headers ?? [])
    bytes += 2 + Buffer.byteLength(name) + Buffer.byteLength(value);
  return bytes;
}

export interface AppendOptions {
  /** Refuse unless the first record gets this sequence number. */
  matchSeqNum?: number;
  /** Refuse unless this token is the stream's, where it has one. */
  fencingToken?: string;
  /** Of a command (`skip`), where a backup is put back: as `NewRecord.timestampMs`. */
  timestampMs?: number;
  signal?: AbortSignal;
}

/** The half-open range [startSeqNum, endSeqNum) that an append was given. */
export interface AppendAck {
  readonly startSeqNum: number;
  readonly endSeqNum: number;
}

export interface ReadOptions {
  fromSeqNum: number;
  /** At most this many records (default and ceiling 1000). */
  maxRecords?: number;
  signal?: AbortSignal;
}

export interface ReadBatch {
  /** At most 1000 records and about 1 MiB; empty at the tail. */
  readonly records: readonly StreamRecord[];
  /** Where the next read goes on. Beyond the last record's number + 1 where commands followed it. */
  readonly nextSeqNum: number;
  /** The half-open range of numbers that were trimmed or expired before this read could see them. */
  readonly missing?: { readonly fromSeqNum: number; readonly toSeqNum: number };
}

export interface Stream {
  readonly name: string;
  append(records: readonly NewRecord[], options?: AppendOptions): Promise<AppendAck>;
  /** The number that the next record will get; 0 for a stream that does not exist. */
  tail(signal?: AbortSignal): Promise<number>;
  /** One batch from `fromSeqNum` on; at the tail an empty one, at once. Beyond the tail likewise. */
  read(options: ReadOptions): Promise<ReadBatch>;
  /**
   * Batches from `fromSeqNum` on, for ever: what is there, then what arrives, each record exactly once.
   * It survives the end of a session, an idle tail, a restart and an outage of the store, and ends only
   * when `signal` is aborted (it then returns and does not throw) or with an error that is not transient.
   * Batches may be empty but for `missing`.
   */
  follow(options: { fromSeqNum: number; signal: AbortSignal }): AsyncIterable<ReadBatch>;
  /** Lets go of all records below `beforeSeqNum`. */
  trim(beforeSeqNum: number, options?: AppendOptions): Promise<void>;
  /** Uses up so many numbers, at most a batch's, without a record: where a backup is put back. */
  skip(numbers: number, options?: AppendOptions): Promise<void>;
  /** Sets the fencing token (1 to 36 bytes); `options.fencingToken` and `matchSeqNum` are its conditions. Resolves to the tail behind the command. */
  fence(token: string, options?: AppendOptions): Promise<number>;
}

export interface StreamStore {
  stream(name: string): Stream;
  /** Names of streams in byte order, at most `limit` (default and ceiling 1000). */
  list(options: {
    prefix: string;
    startAfter?: string;
    limit?: number;
    signal?: AbortSignal;
  }): Promise<{ names: string[]; hasMore: boolean }>;
  /** Ends all follows and lets go of files and sockets. Idempotent. */
  close(): Promise<void>;
}

/** How long a stream's records are kept, in seconds; `'forever'` expires nothing. */
export type Retention = number | 'forever';
export type RetentionFor = (streamName: string) => Retention;

/** An append was refused by its own condition: somebody else wrote, or owns the stream. */
export class StreamConditionError extends MillraceError {
  /** For `streams.seq_num_mismatch`: the number that would have matched. */
  readonly expectedSeqNum: number | undefined;

  constructor(
    code: 'streams.seq_num_mismatch' | 'streams.fenced',
    message: string,
    expectedSeqNum?: number,
    cause?: unknown,
  ) {
    super('permanent', code, message, { cause });
    this.name = 'StreamConditionError';
    this.expectedSeqNum = expectedSeqNum;
  }
}
