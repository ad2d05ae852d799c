/**
 * Putting records back: appends copies of records to a stream, each of them once, however often it is asked for
 * and wherever it breaks off.
 *
 * - The key of a copy is derived from what it is a copy of and from why: two copies with one key are settled
 *   once by the stage that reads them, as any record that is there twice.
 * - A stage forgets keys after its horizon. Therefore each batch is noted on the stream `reruns` before
 *   (`begun`) and after (`done`). What is noted as done is not appended again; for what was only begun, the
 *   target is searched for the copy, from the tail that it had before.
 *
 * Requests stand in line, so that two at once do not both append. What is worth putting back is decided in
 * `redrive.ts` and `replay.ts`.
 */
import type { Clock } from '../platform/clock.ts';
import type { Log } from '../platform/log.ts';
import {
  KEY_HEADER,
  headerOf,
  jsonRecord,
  parseJsonRecord,
  rerunRecordSchema,
  streamNames,
} from '../streams/records.ts';
import type { RerunRecord } from '../streams/records.ts';
import { limits, meteredBytes } from '../streams/stream-store.ts';
import type { NewRecord, StreamStore } from '../streams/stream-store.ts';
import type { Copy } from './record-copy.ts';
import { scan } from '../streams/stream-scan.ts';

/** Records that one request puts back: each is held in memory, up to 1 MiB. */
export const MAX_COPIES = 50;
/** Notes that are looked at, from the newest on; each has up to `MAX_COPIES` copies. */
const MAX_NOTES = 20_000;
/** On the target, for a copy that was begun. */
const MAX_SEARCHED = 1_000_000;

export interface PutBack {
  readonly action: RerunRecord['action'];
  readonly from: string;
  readonly to: string;
  readonly copies: readonly Copy[];
}

/** What the notes say of one copy. */
export interface RerunNote {
  readonly phase: RerunRecord['phase'];
  readonly toTail: number;
  readonly at: string;
}

export interface Rerun {
  /**
   * Makes sure that each copy is there.
   * @returns the keys of those that were not there yet
   * @throws MillraceError what the store throws; after a transient one the same call goes on where it stopped
   */
  putBack(request: PutBack, signal: AbortSignal): Promise<ReadonlySet<string>>;
  /** By the key of the copy on this stream. */
  notes(to: string, signal: AbortSignal): Promise<ReadonlyMap<string, RerunNote>>;
}

export function createRerun(deps: { store: StreamStore; clock: Clock; log: Log }): Rerun {
  const { store, clock, log } = deps;
  const noteStream = store.stream(streamNames.reruns);
  let line: Promise<unknown> = Promise.resolve();

  async function notes(to: string, signal: AbortSignal): Promise<Map<string, RerunNote>> {
    const found = new Map<string, RerunNote>();
    for (const record of await readNotes(store, signal)) {
      if (record.to !== to) continue;
      const { phase, toTail, at } = record;
      for (const { key } of record.copies)
        if (found.get(key)?.phase !== 'done') found.set(key, { phase, toTail, at });
    }
    return found;
  }

  async function note(
    phase: RerunRecord['phase'],
    { request, toTail, signal }: { request: PutBack; toTail: number; signal: AbortSignal },
  ): Promise<void> {
    if (request.copies.length === 0) return;
    const { action, from, to } = request;
    const copies = request.copies.map(({ seqNum, key }) => ({ seqNum, key }));
    const at = new Date(clock.nowMs()).toISOString();
    const record: RerunRecord = { kind: 'rerun', version: 1, action, phase, from, to, toTail, copies, at };
    await noteStream.append([jsonRecord(record)], { signal });
  }

  async function putBackNow(request: PutBack, signal: AbortSignal): Promise<Set<string>> {
    const target = store.stream(request.to);
    const known = await notes(request.to, signal);
    const open = request.copies.filter(({ key }) => known.get(key)?.phase !== 'done');
    const begunAt = open.flatMap(({ key }) => known.get(key)?.toTail ?? []);
    const landed = new Set<string>();
    if (begunAt.length > 0) {
      const keys = new Set(open.map(({ key }) => key));
      const range = { fromSeqNum: Math.min(...begunAt), maxRecords: MAX_SEARCHED, signal };
      await scan(target, range, (record) => {
        const key = headerOf(record, KEY_HEADER);
        if (key !== undefined && keys.has(key)) landed.add(key);
      });
    }
    const missing = open.filter(({ key }) => !landed.has(key));
    const toTail = await target.tail(signal);
    const begin = missing.filter(({ key }) => !known.has(key));
    await note('begun', { request: { ...request, copies: begin }, toTail, signal });
    for (const chunk of chunksOf(missing.map(({ record }) => record))) await target.append(chunk, { signal });
    await note('done', { request: { ...request, copies: open }, toTail, signal });
    const { action, from, to } = request;
    log.info({ action, from, to, copies: missing.length }, 'rerun.put_back');
    return new Set(missing.map(({ key }) => key));
  }

  return {
    notes,
    putBack(request, signal) {
      const turn = line.then(() => putBackNow(request, signal));
      line = turn.catch(() => {});
      return turn;
    },
  };
}

/** All notes that are looked at, oldest first. */
export async function readNotes(store: StreamStore, signal: AbortSignal): Promise<RerunRecord[]> {
  const stream = store.stream(streamNames.reruns);
  const tail = await stream.tail(signal);
  const found: RerunRecord[] = [];
  const range = { fromSeqNum: Math.max(0, tail - MAX_NOTES), maxRecords: MAX_NOTES, signal };
  await scan(stream, range, (record) => void found.push(parseJsonRecord(rerunRecordSchema, record)));
  return found;
}

/** Consecutive records in batches that a store takes. */
function* chunksOf(records: readonly NewRecord[]): Generator<NewRecord[]> {
  let chunk: NewRecord[] = [];
  let bytes = 0;
  for (const record of records) {
    const size = meteredBytes(record);
    if (chunk.length > 0 && bytes + size > limits.batchBytes) {
      yield chunk;
      [chunk, bytes] = [[], 0];
    }
    chunk.push(record);
    bytes += size;
  }
  if (chunk.length > 0) yield chunk;
}
