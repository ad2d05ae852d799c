/**
 * What the local store does to its tables: append a batch, read one, list, sweep. All of it is synchronous and
 * knows nothing of promises, waiting or grouping; a writer calls `write` inside a transaction of its own.
 *
 * - Conditions are checked before anything is written, so a refused write has no effect to undo.
 * - Timestamps of a stream never go back, though the clock may: what expires is always a prefix.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { StreamConditionError, limits, meteredBytes } from './stream-store.ts';
import type {
  AppendAck,
  NewRecord,
  ReadBatch,
  RecordHeader,
  Retention,
  RetentionFor,
  StreamRecord,
} from './stream-store.ts';

/** One append, or one command, with its conditions. */
export interface LocalWrite {
  readonly stream: string;
  readonly content:
    | { readonly records: readonly NewRecord[] }
    | { readonly fence: string }
    | { readonly trimBefore: number }
    | { readonly skip: number };
  readonly matchSeqNum?: number | undefined;
  readonly fencingToken?: string | undefined;
}

export interface LocalRecords {
  /** @throws StreamConditionError, having written nothing; SQLite's own errors, having written anything */
  write(write: LocalWrite): AppendAck;
  tail(stream: string): number;
  read(stream: string, range: { fromSeqNum: number; maxRecords: number }): ReadBatch;
  list(range: { prefix: string; startAfter: string; limit: number }): { names: string[]; hasMore: boolean };
  /** The timestamp of the newest record there ever was, or null; looks at all streams. */
  newestMs(): number | null;
  /** Deletes one small batch of records that are trimmed, or expired at that time; 0 when nothing is due. */
  sweep(nowMs: number): number;
}

interface StreamRow {
  id: number;
  name: string;
  first_seq_num: number;
  next_seq_num: number;
  last_timestamp_ms: number;
  fencing_token: string;
  retention_seconds: number | null;
  sweep_at_ms: number | null;
}

interface RecordRow {
  seq_num: number;
  timestamp_ms: number;
  headers: string | null;
  body: Uint8Array;
}

interface SizeRow {
  seq_num: number;
  timestamp_ms: number;
  bytes: number;
}

/** One batch of the sweep holds up the event loop for a few milliseconds, whatever the sizes of records. */
const SWEEP_STREAMS = 32;
const SWEEP_RECORDS = 256;
const SWEEP_BYTES = 8 * 1024 * 1024;

export function createLocalRecords(
  db: DatabaseSync,
  options: {
    nowMs: () => number;
    retentionFor: RetentionFor;
    endsWithItsRecords?: ((streamName: string) => boolean) | undefined;
  },
): LocalRecords {
  const statements = prepareStatements(db);

  function streamRow(name: string): StreamRow | undefined {
    return statements.stream.get(name) as StreamRow | undefined;
  }

  /** The stream's row, made or brought to the retention that holds for it now. */
  function streamForWrite(name: string, existing: StreamRow | undefined): StreamRow {
    const retention = secondsOf(options.retentionFor(name));
    const row = existing ?? (statements.createStream.get(name, retention) as unknown as StreamRow);
    if (row.retention_seconds === retention) return row;
    row.retention_seconds = retention;
    row.sweep_at_ms = sweepAtMs(row);
    statements.retain.run(retention, row.sweep_at_ms, row.id);
    return row;
  }

  /** When the stream's oldest record is to go: 0 for at once, null for never. */
  function sweepAtMs(row: StreamRow): number | null {
    const oldest = statements.oldest.get(row.id) as RecordRow | undefined;
    if (!oldest) return null;
    if (oldest.seq_num < row.first_seq_num) return 0;
    return row.retention_seconds === null ? null : oldest.timestamp_ms + row.retention_seconds * 1000;
  }

  function insertRecords(row: StreamRow, records: readonly NewRecord[]): void {
    const nowMs = options.nowMs();
    for (const record of records) {
      const timestampMs = Math.max(record.timestampMs ?? nowMs, row.last_timestamp_ms);
      if (row.retention_seconds !== null) row.sweep_at_ms ??= timestampMs + row.retention_seconds * 1000;
      row.last_timestamp_ms = timestampMs;
      const headers = record.headers?.length ? headersJson(record.headers) : null;
      const body = typeof record.body === 'string' ? Buffer.from(record.body) : record.body;
      statements.insert.run(row.id, row.next_seq_num++, timestampMs, headers, body);
    }
  }

  /** Deletes the prefix that is due, as far as one batch goes. */
  function sweepStream(row: StreamRow, nowMs: number): { records: number; bytes: number } {
    const keptSeconds = row.retention_seconds ?? Infinity;
    const expiredMs = nowMs - keptSeconds * 1000;
    const due = { records: 0, bytes: 0 };
    let lastSeqNum = -1;
    for (const record of statements.sizes.iterate(row.id) as Iterable<SizeRow>) {
      const isDue = record.seq_num < row.first_seq_num || record.timestamp_ms <= expiredMs;
      if (!isDue || due.records >= SWEEP_RECORDS || due.bytes >= SWEEP_BYTES) break;
      due.records += 1;
      due.bytes += record.bytes;
      lastSeqNum = record.seq_num;
    }
    statements.sweep.run(row.id, lastSeqNum);
    const isEmpty = statements.oldest.get(row.id) === undefined;
    if (isEmpty && row.fencing_token === '' && options.endsWithItsRecords?.(row.name)) {
      statements.end.run(row.id);
      return due;
    }
    row.first_seq_num = Math.max(row.first_seq_num, lastSeqNum + 1);
    statements.swept.run(row.first_seq_num, sweepAtMs(row), row.id);
    return due;
  }

  return {
    write({ stream, content, matchSeqNum, fencingToken }) {
      const existing = streamRow(stream);
      assertConditions(existing, { stream, matchSeqNum, fencingToken });
      const row = streamForWrite(stream, existing);
      const startSeqNum = row.next_seq_num;
      if ('records' in content) {
        insertRecords(row, content.records);
      } else {
        // A command uses up a number and leaves no row.
        row.next_seq_num += 'skip' in content ? content.skip : 1;
        if ('fence' in content) row.fencing_token = content.fence;
        if ('trimBefore' in content)
          row.first_seq_num = Math.max(row.first_seq_num, Math.min(content.trimBefore, startSeqNum));
        row.sweep_at_ms = sweepAtMs(row);
      }
      statements.update.run(
        row.first_seq_num,
        row.next_seq_num,
        row.last_timestamp_ms,
        row.fencing_token,
        row.sweep_at_ms,
        row.id,
      );
      return { startSeqNum, endSeqNum: row.next_seq_num };
    },
    tail: (stream) => streamRow(stream)?.next_seq_num ?? 0,
    read(stream, { fromSeqNum, maxRecords }) {
      const row = streamRow(stream);
      if (!row) return { records: [], nextSeqNum: fromSeqNum };
      const start = Math.max(fromSeqNum, row.first_seq_num);
      const { records, complete } = takeBatch(statements.read.iterate(row.id, start), maxRecords);
      const last = records.at(-1);
      return {
        records,
        nextSeqNum: complete || !last ? Math.max(start, row.next_seq_num) : last.seqNum + 1,
        ...(start > fromSeqNum && { missing: { fromSeqNum, toSeqNum: start } }),
      };
    },
    list({ prefix, startAfter, limit }) {
      const names: string[] = [];
      for (const row of statements.list.iterate(prefix, startAfter)) {
        const name = String(row['name']);
        if (!name.startsWith(prefix)) break;
        if (names.length === limit) return { names, hasMore: true };
        names.push(name);
      }
      return { names, hasMore: false };
    },
    newestMs: () => Number(statements.newest.get()?.['at_ms']) || null,
    sweep(nowMs) {
      const swept = { records: 0, bytes: 0 };
      for (let streams = 0; streams < SWEEP_STREAMS; streams++) {
        const row = statements.toSweep.get(nowMs) as StreamRow | undefined;
        if (!row || swept.records >= SWEEP_RECORDS || swept.bytes >= SWEEP_BYTES) break;
        const batch = sweepStream(row, nowMs);
        swept.records += batch.records;
        swept.bytes += batch.bytes;
      }
      return swept.records;
    },
  };
}

function prepareStatements(db: DatabaseSync): Record<StatementName, StatementSync> {
  const entries = Object.entries(SQL).map(([name, sql]) => [name, db.prepare(sql)]);
  return Object.fromEntries(entries) as Record<StatementName, StatementSync>;
}

type StatementName = keyof typeof SQL;
/** Whoever reads rows stops by itself: for another number at `LIMIT ?` SQLite compiles the statement again. */
const SQL = {
  stream: 'SELECT * FROM streams WHERE name = ?',
  createStream: 'INSERT INTO streams (name, retention_seconds) VALUES (?, ?) RETURNING *',
  retain: 'UPDATE streams SET retention_seconds = ?, sweep_at_ms = ? WHERE id = ?',
  update: `UPDATE streams SET first_seq_num = ?, next_seq_num = ?, last_timestamp_ms = ?, fencing_token = ?,
    sweep_at_ms = ? WHERE id = ?`,
  insert: 'INSERT INTO records (stream_id, seq_num, timestamp_ms, headers, body) VALUES (?, ?, ?, ?, ?)',
  read: `SELECT seq_num, timestamp_ms, headers, body FROM records
    WHERE stream_id = ? AND seq_num >= ? ORDER BY seq_num`,
  list: 'SELECT name FROM streams WHERE name >= ? AND name > ? ORDER BY name',
  oldest: 'SELECT seq_num, timestamp_ms FROM records WHERE stream_id = ? ORDER BY seq_num LIMIT 1',
  newest: 'SELECT max(last_timestamp_ms) AS at_ms FROM streams',
  toSweep: 'SELECT * FROM streams WHERE sweep_at_ms <= ? ORDER BY sweep_at_ms LIMIT 1',
  sizes: `SELECT seq_num, timestamp_ms, length(body) AS bytes FROM records
    WHERE stream_id = ? ORDER BY seq_num`,
  sweep: 'DELETE FROM records WHERE stream_id = ? AND seq_num <= ?',
  end: 'DELETE FROM streams WHERE id = ?',
  swept: 'UPDATE streams SET first_seq_num = ?, sweep_at_ms = ? WHERE id = ?',
} as const;

/** As UTF-8 would carry them: a lone surrogate, which JSON could keep, becomes U+FFFD as it does on S2. */
function headersJson(headers: readonly RecordHeader[]): string {
  return JSON.stringify(headers.map(([name, value]) => [name, value.toWellFormed()]));
}

function secondsOf(retention: Retention): number | null {
  return retention === 'forever' ? null : retention;
}

/** A stream that does not exist has tail 0 and no token, on S2 as here. */
function assertConditions(
  row: StreamRow | undefined,
  write: Pick<LocalWrite, 'stream' | 'matchSeqNum' | 'fencingToken'>,
): void {
  if (write.fencingToken !== undefined && write.fencingToken !== (row?.fencing_token ?? '')) {
    throw new StreamConditionError('streams.fenced', `${write.stream} is held by another fencing token`);
  }
  const tail = row?.next_seq_num ?? 0;
  if (write.matchSeqNum === undefined || write.matchSeqNum === tail) return;
  throw new StreamConditionError(
    'streams.seq_num_mismatch',
    `the next sequence number of ${write.stream} is ${tail}, not ${write.matchSeqNum}`,
    tail,
  );
}

/** Records up to `maxRecords` and about 1 MiB, at least one; `complete` when there are no more rows. */
function takeBatch(
  rows: Iterable<unknown>,
  maxRecords: number,
): { records: StreamRecord[]; complete: boolean } {
  const records: StreamRecord[] = [];
  let bytes = 0;
  for (const row of rows as Iterable<RecordRow>) {
    const record = {
      seqNum: row.seq_num,
      timestampMs: row.timestamp_ms,
      headers: row.headers === null ? [] : (JSON.parse(row.headers) as RecordHeader[]),
      body: row.body,
    };
    bytes += meteredBytes(record);
    if (records.length === maxRecords || (records.length > 0 && bytes > limits.batchBytes)) {
      return { records, complete: false };
    }
    records.push(record);
  }
  return { records, complete: true };
}
