/**
 * The retention of the local store: deletes what has expired, now and then, a small batch at a time. It goes by a steady
 * time (`steady-time.ts`) that it keeps in a table of its own: a clock that is wrong at a start must not expire
 * everything either. Older releases do not know the table, and leave it alone.
 */
import type { DatabaseSync } from 'node:sqlite';
import type { Clock } from '../platform/clock.ts';
import type { Log } from '../platform/log.ts';
import { startSteadyTime } from '../platform/steady-time.ts';
import { transaction } from './group-commit.ts';
import { localError } from './local-database.ts';
import type { LocalRecords } from './local-records.ts';

const SWEEP_INTERVAL_MS = 60_000;
/** Between two batches of one sweep. */
const SWEEP_PAUSE_MS = 20;
/** The time is kept so often: a start goes on where it stood, and has caught up in minutes. */
const KEEP_TIME_MS = 3_600_000;

const TIME_TABLE =
  'CREATE TABLE IF NOT EXISTS sweep_time (id INTEGER PRIMARY KEY, at_ms REAL NOT NULL) STRICT';

/** @returns what stops it */
export function startSweep(
  { clock, log }: { clock: Clock; log: Log },
  { db, records }: { db: DatabaseSync; records: Pick<LocalRecords, 'sweep' | 'newestMs'> },
): () => void {
  const kept = createKeptTime(db);
  let keptMs = kept.read();
  const steadyMs = startSteadyTime(clock, keptMs ?? records.newestMs() ?? clock.nowMs());
  let swept = 0;

  function sweepOnce(): void {
    let batch = 0;
    const nowMs = steadyMs();
    try {
      batch = transaction(db, () => records.sweep(nowMs));
      if (keptMs === null || Math.abs(nowMs - keptMs) >= KEEP_TIME_MS) kept.write((keptMs = nowMs));
    } catch (error) {
      // Keeping records a little too long harms nobody: the next sweep tries again.
      log.warn({ error: localError(error) }, 'streams.sweep_failed');
    }
    swept += batch;
    if (batch === 0 && swept > 0) {
      log.info({ records: swept }, 'streams.swept');
      swept = 0;
    }
    cancel = clock.after(batch > 0 ? SWEEP_PAUSE_MS : SWEEP_INTERVAL_MS, sweepOnce);
  }
  let cancel = clock.after(SWEEP_INTERVAL_MS, sweepOnce);
  return () => cancel();
}

/** Made when there is something to keep: a disk that is full must not keep a daemon from its start. */
function createKeptTime(db: DatabaseSync): { read(): number | null; write(atMs: number): void } {
  const atMs = (sql: string): number | null => (db.prepare(sql).get()?.['at_ms'] as number | null) ?? null;
  return {
    read() {
      const isThere = db.prepare(`SELECT 1 FROM sqlite_schema WHERE name = 'sweep_time'`).get();
      return isThere ? atMs('SELECT at_ms FROM sweep_time') : null;
    },
    write(at) {
      db.exec(TIME_TABLE);
      db.prepare('INSERT OR REPLACE INTO sweep_time (id, at_ms) VALUES (1, ?)').run(at);
    },
  };
}
