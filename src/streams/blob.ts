/**
 * Bytes of any size in a stream whose records are limited to 1 MiB: a blob lies there in pieces, one a record.
 *
 * - Each piece names its set (the SHA-256 of the whole), its index, the number of pieces and the whole size.
 *   Equal blobs have equal pieces, so it does not matter which of two attempts wrote which piece.
 * - Writing is idempotent: it appends the pieces that are not there yet, none when all are. A crash in the
 *   middle leaves an incomplete set, which no reader takes for a blob. What is small goes into a new stream in
 *   one append, which asks by its condition whether the stream is new: most mail costs no look beforehand.
 * - Pieces expire with their stream. Who writes a record that outlives old ones says what time it is, and has
 *   those that are not young appended again: a set is then complete for as long as the record lasts.
 * - Reading takes a complete set and verifies the SHA-256.
 */
import { createHash } from 'node:crypto';
import { MillraceError, hasCode } from '../platform/errors.ts';
import { headerOf } from './records.ts';
import type { BlobPointer } from './records.ts';
import { limits, meteredBytes } from './stream-store.ts';
import type { NewRecord, Stream, StreamRecord, StreamStore } from './stream-store.ts';

export const MAX_BLOB_BYTES = 64 * 1024 * 1024;
/** Leaves room for the headers below the limit of a record. */
const PIECE_BYTES = 960 * 1024;
/** A mail may wait for two thirds of `RETENTION_DAYS`: its bytes outlast that by 8 h where it is one day. */
const MAX_YOUNG_MS = 6 * 3_600_000;
/** A stream of blobs holds a few attempts at a few sets; beyond this it is something else. */
const MAX_SCANNED_RECORDS = 10_000;

const HEADERS = { set: 'blob', index: 'piece', pieces: 'pieces', bytes: 'bytes' } as const;

interface Piece {
  readonly sha256: string;
  readonly index: number;
  readonly pieces: number;
  /** Size of the whole. */
  readonly bytes: number;
  readonly body: Uint8Array;
  readonly timestampMs: number;
}

/**
 * Makes sure that a complete set of these bytes is in the stream; given `nowMs`, one that was written in the last hours.
 * @throws MillraceError `streams.too_large` (invalid) beyond `MAX_BLOB_BYTES`, and what `append` and `read`
 *   throw; after a transient one the same call goes on where it stopped
 */
export async function writeBlob(
  stream: Stream,
  bytes: Uint8Array,
  { nowMs, signal }: { nowMs?: number; signal?: AbortSignal } = {},
): Promise<BlobPointer> {
  if (bytes.length > MAX_BLOB_BYTES) {
    throw new MillraceError('invalid', 'streams.too_large', `a blob of ${bytes.length} bytes`, {
      hint: `The limit is ${MAX_BLOB_BYTES} bytes.`,
    });
  }
  const sha256 = sha256Of(bytes);
  const pointer = { stream: stream.name, bytes: bytes.length, sha256 };
  // An empty blob has one piece too, or it could not be told from none.
  const pieces = Math.max(1, Math.ceil(bytes.length / PIECE_BYTES));
  const only = pieces === 1 ? pieceRecord(bytes, { sha256, index: 0, pieces }) : undefined;
  if (only && (await areAppendedFirst(stream, [only], signal))) return pointer;
  const youngSinceMs = nowMs === undefined ? -Infinity : nowMs - MAX_YOUNG_MS;
  const present = new Set<number>();
  for await (const piece of piecesOf(stream, signal)) {
    if (piece.sha256 === sha256 && piece.timestampMs >= youngSinceMs) present.add(piece.index);
  }
  for (let index = 0; index < pieces; index++) {
    if (present.has(index)) continue;
    await stream.append([pieceRecord(bytes, { sha256, index, pieces })], signal ? { signal } : {});
  }
  return pointer;
}

/**
 * The same into a new stream, in one append with another record: both are there, or neither.
 * @returns null, with nothing written, where the stream is not new or both are too much for one append
 */
export async function writeBlobWith(
  stream: Stream,
  bytes: Uint8Array,
  { beside, signal }: { beside: NewRecord; signal?: AbortSignal },
): Promise<BlobPointer | null> {
  if (bytes.length > PIECE_BYTES) return null;
  const sha256 = sha256Of(bytes);
  const records = [pieceRecord(bytes, { sha256, index: 0, pieces: 1 }), beside];
  if (records.reduce((sum, record) => sum + meteredBytes(record), 0) > limits.batchBytes) return null;
  const isWritten = await areAppendedFirst(stream, records, signal);
  return isWritten ? { stream: stream.name, bytes: bytes.length, sha256 } : null;
}

/** False where something is in the stream already; nothing is appended then. */
async function areAppendedFirst(
  stream: Stream,
  records: readonly NewRecord[],
  signal?: AbortSignal,
): Promise<boolean> {
  try {
    await stream.append(records, { matchSeqNum: 0, ...(signal && { signal }) });
    return true;
  } catch (error) {
    if (hasCode(error, 'streams.seq_num_mismatch')) return false;
    throw error;
  }
}

/**
 * The bytes that a pointer names.
 * @throws MillraceError `streams.blob_missing` (permanent: expired, or never completely written),
 *   `streams.blob_damaged` (permanent), and what `read` throws
 */
export async function readBlob(
  store: Pick<StreamStore, 'stream'>,
  pointer: BlobPointer,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const found = new Map<number, Uint8Array>();
  for await (const piece of piecesOf(store.stream(pointer.stream), signal)) {
    if (piece.sha256 !== pointer.sha256) continue;
    found.set(piece.index, piece.body);
    if (found.size === piece.pieces) return assemble(found, pointer);
  }
  throw new MillraceError('permanent', 'streams.blob_missing', `no complete blob ${describe(pointer)}`, {
    hint: 'It has expired (RETENTION_DAYS), or was never completely written.',
  });
}

/** The first complete set in the stream, or null: whether a download has already happened. */
export async function findBlob(stream: Stream, signal?: AbortSignal): Promise<BlobPointer | null> {
  const found = new Map<string, Set<number>>();
  for await (const { sha256, index, pieces, bytes } of piecesOf(stream, signal)) {
    const indexes = found.get(sha256) ?? new Set();
    found.set(sha256, indexes.add(index));
    if (indexes.size === pieces) return { stream: stream.name, bytes, sha256 };
  }
  return null;
}

/** The pieces that are in the stream by now, in order, of whatever set. */
async function* piecesOf(stream: Stream, signal: AbortSignal | undefined): AsyncGenerator<Piece> {
  let scanned = 0;
  for (let next = 0; scanned < MAX_SCANNED_RECORDS;) {
    const batch = await stream.read({ fromSeqNum: next, ...(signal && { signal }) });
    if (batch.nextSeqNum === next) return;
    next = batch.nextSeqNum;
    scanned += batch.records.length;
    for (const record of batch.records) {
      const piece = pieceFromRecord(record);
      if (piece) yield piece;
    }
  }
}

function pieceRecord(bytes: Uint8Array, piece: Pick<Piece, 'sha256' | 'index' | 'pieces'>): NewRecord {
  const start = piece.index * PIECE_BYTES;
  return {
    headers: [
      [HEADERS.set, piece.sha256],
      [HEADERS.index, String(piece.index)],
      [HEADERS.pieces, String(piece.pieces)],
      [HEADERS.bytes, String(bytes.length)],
    ],
    body: bytes.subarray(start, start + PIECE_BYTES),
  };
}

/** Null for a record that is no piece. */
function pieceFromRecord(record: StreamRecord): Piece | null {
  const sha256 = headerOf(record, HEADERS.set);
  const [index, pieces, bytes] = [HEADERS.index, HEADERS.pieces, HEADERS.bytes].map((name) =>
    Number(headerOf(record, name) ?? Number.NaN),
  );
  if (sha256 === undefined || index === undefined || pieces === undefined || bytes === undefined) return null;
  // A number that is none makes the comparison false.
  if (!(index >= 0 && index < pieces && bytes >= 0 && bytes <= MAX_BLOB_BYTES)) return null;
  return { sha256, index, pieces, bytes, body: record.body, timestampMs: record.timestampMs };
}

function assemble(found: ReadonlyMap<number, Uint8Array>, pointer: BlobPointer): Uint8Array {
  const ordered = [...found].sort(([a], [b]) => a - b).map(([, body]) => body);
  const bytes = Buffer.concat(ordered);
  if (bytes.length === pointer.bytes && sha256Of(bytes) === pointer.sha256) return bytes;
  throw new MillraceError('permanent', 'streams.blob_damaged', `not the bytes of blob ${describe(pointer)}`, {
    hint: 'The store gave back other bytes than were written: look at the disk, restore from a backup.',
  });
}

function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function describe({ stream, sha256 }: BlobPointer): string {
  return `${sha256.slice(0, 12)} in ${stream}`;
}
