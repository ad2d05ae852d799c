/**
 * Reads records again that were set aside, when their turn comes. They tend to come in turn one after another
 * (a long lane, many scheduled at once), so each read brings those behind along, as far as somebody waits for
 * them. What it keeps is bounded: whoever comes too late reads once more.
 */
import { MillraceError } from '../../platform/errors.ts';
import type { Stream, StreamRecord } from '../stream-store.ts';

const AHEAD_RECORDS = 64;
const KEPT_RECORDS = 256;
const KEPT_BYTES = 8 * 1024 * 1024;

/** `isWanted` tells of a number whether its record waits to be read again. */
export function createReread(
  source: Stream,
  isWanted: (seqNum: number) => boolean,
): (seqNum: number, signal: AbortSignal) => Promise<StreamRecord> {
  const kept = new Map<number, StreamRecord>();
  const underWay = new Set<{ fromSeqNum: number; done: Promise<unknown> }>();

  /** The record itself, where it is left; those behind that are wanted are kept. */
  async function readBatch(fromSeqNum: number, signal: AbortSignal): Promise<StreamRecord | undefined> {
    const { records } = await source.read({ fromSeqNum, maxRecords: AHEAD_RECORDS, signal });
    for (const record of records)
      if (record.seqNum !== fromSeqNum && isWanted(record.seqNum)) kept.set(record.seqNum, record);
    let bytes = [...kept.values()].reduce((sum, { body }) => sum + body.length, 0);
    for (const [oldest, { body }] of kept) {
      if (kept.size <= KEPT_RECORDS && bytes <= KEPT_BYTES) break;
      kept.delete(oldest);
      bytes -= body.length;
    }
    return records[0]?.seqNum === fromSeqNum ? records[0] : undefined;
  }

  return async (seqNum, signal) => {
    const near = [...underWay].find(
      ({ fromSeqNum }) => fromSeqNum <= seqNum && seqNum < fromSeqNum + AHEAD_RECORDS,
    );
    // If that read fails or did not get so far, this one is made all the same.
    if (near) await near.done.catch(() => undefined);
    const known = kept.get(seqNum);
    kept.delete(seqNum);
    if (known) return known;
    const read = { fromSeqNum: seqNum, done: readBatch(seqNum, signal) };
    underWay.add(read);
    const record = await read.done.finally(() => underWay.delete(read));
    if (record) return record;
    throw new MillraceError(
      'permanent',
      'stage.record_expired',
      `record ${seqNum} of ${source.name} expired before it was handled`,
      { hint: 'Raise RETENTION_DAYS if records must wait longer.' },
    );
  };
}
