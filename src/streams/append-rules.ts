/**
 * What both stores refuse before they try: batches, records, names and tokens beyond the limits of the
 * contract. One place, so that what one store takes, the other takes too.
 */
import { MillraceError } from '../platform/errors.ts';
import { limits, meteredBytes } from './stream-store.ts';
import type { NewRecord } from './stream-store.ts';

/** S2 carries the name in the path of a URL, where these two would mean another path. */
const PATH_SEGMENTS: readonly string[] = ['.', '..'];

/** Refuses what one store or the other could not name. */
export function assertStreamName(name: string): void {
  const bytes = Buffer.byteLength(name);
  const isName = !name.includes('\0') && name.isWellFormed() && !PATH_SEGMENTS.includes(name);
  if (isName && bytes >= 1 && bytes <= limits.streamNameBytes) return;
  throw new MillraceError('invalid', 'streams.invalid_name', `not a stream's name: ${JSON.stringify(name)}`, {
    hint: `A name has 1 to ${limits.streamNameBytes} bytes of UTF-8 without NUL, and is neither "." nor "..".`,
  });
}

/**
 * @throws MillraceError `streams.too_large` (invalid) beyond a limit, `streams.invalid_name` (invalid) for a
 *   header's name that is empty or not ASCII, `streams.empty_batch` (bug)
 */
export function assertBatch(records: readonly NewRecord[]): void {
  if (records.length === 0)
    throw new MillraceError('bug', 'streams.empty_batch', 'an append needs at least one record');
  if (records.length > limits.batchRecords) {
    throw tooLarge(`${records.length} records`, `${limits.batchRecords} records`);
  }
  let bytes = 0;
  for (const record of records) {
    bytes += meteredBytes(record);
    for (const [name] of record.headers ?? []) assertHeaderName(name);
  }
  if (bytes > limits.batchBytes) throw tooLarge(`${bytes} bytes`, `${limits.batchBytes} bytes, as metered`);
}

export function assertFencingToken(token: string): void {
  const bytes = Buffer.byteLength(token);
  if (bytes >= 1 && bytes <= limits.fencingTokenBytes && token.isWellFormed()) return;
  throw new MillraceError(
    'invalid',
    'streams.invalid_name',
    `not a fencing token: ${JSON.stringify(token)}`,
    {
      hint: `A fencing token has 1 to ${limits.fencingTokenBytes} bytes of UTF-8.`,
    },
  );
}

export function assertSeqNum(seqNum: number): void {
  if (Number.isSafeInteger(seqNum) && seqNum >= 0) return;
  throw new MillraceError('bug', 'streams.invalid_seq_num', `not a sequence number: ${seqNum}`);
}

/** As many commands as fit into one batch. */
export function assertSkip(numbers: number): void {
  if (Number.isSafeInteger(numbers) && numbers >= 1 && numbers <= limits.batchRecords) return;
  throw new MillraceError('bug', 'streams.invalid_seq_num', `not as many as can be skipped: ${numbers}`);
}

/** Printable ASCII; a header without a name is how S2 marks its own commands. */
const HEADER_NAME = /^[\x20-\x7e]+$/u;

function assertHeaderName(name: string): void {
  if (HEADER_NAME.test(name)) return;
  throw new MillraceError('invalid', 'streams.invalid_name', `not a header's name: ${JSON.stringify(name)}`, {
    hint: 'Header names are non-empty printable ASCII.',
  });
}

function tooLarge(what: string, limit: string): MillraceError {
  return new MillraceError('invalid', 'streams.too_large', `a batch of ${what}`, {
    hint: `The limit is ${limit}: append it in pieces.`,
  });
}
