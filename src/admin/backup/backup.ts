/**
 * Backup and restore of all streams, of either store, beside a daemon that runs.
 *
 * There is no moment at which all streams stand still, and none is needed: whatever a record speaks of is read after
 * it. Journals come first, then what stages have written, then what they have read; each up to its tail of that time.
 * So the backup may lack the end of a journal, as after a crash, and what it lacks is done again under the same keys;
 * it never holds an outcome without what the outcome speaks of.
 *
 * A restore keeps every number, because journals and keys speak of numbers: those that commands have used, and those
 * of what had expired, are used up. Left out are heartbeats (`members`), probes, and the streams of mails that have
 * expired; `meta` is written anew. Until the last step it says that the streams are half restored, and no daemon starts.
 */
import type { Clock } from '../../platform/clock.ts';
import { MillraceError } from '../../platform/errors.ts';
import { markInDoubt } from '../../streams/mark-in-doubt.ts';
import { streamFormat } from '../../streams/record-versions.ts';
import { isOfOneMail, jsonRecord, streamNames } from '../../streams/records.ts';
import { limits, meteredBytes } from '../../streams/stream-store.ts';
import type { NewRecord, Stream, StreamRecord, StreamStore } from '../../streams/stream-store.ts';
import { BACKUP_VERSION, backupLines, verifyBackup, writeBackup } from './backup-file.ts';
import type { BackupCounts, BackupLine } from './backup-file.ts';

interface Deps {
  store: StreamStore;
  clock: Clock;
  print: (line: string) => void;
}

const {
  sent,
  received,
  tools,
  reruns,
  outbox,
  mailbox,
  delivery,
  events,
  members,
  probe,
  meta,
  suppressions,
} = streamNames;
/** In this order, and whatever else there is at the end. Each speaks of later ones only. */
const JOURNALS = [sent, 'runs/', received, reruns, suppressions];
const WRITTEN = [outbox, mailbox, delivery, tools, streamNames.inboxPrefix, events, 'mail/', 'request/'];
const LEFT_OUT: readonly string[] = [members, probe, meta];
const PROGRESS_RECORDS = 100_000;
/** Half of what fits: the rest is for what JSON and headers add. */
const BATCH_BYTES = limits.batchBytes / 2;
const HEARTBEAT_MS = 15_000;

/** @throws what the store throws; then there is no file */
export async function backup(
  deps: Deps,
  { path, release }: { path: string; release: string },
  signal: AbortSignal,
): Promise<BackupCounts> {
  const at = new Date(deps.clock.nowMs()).toISOString();
  const header = {
    kind: 'millrace-backup' as const,
    version: BACKUP_VERSION,
    at,
    release,
    format: streamFormat.writes,
  };
  return writeBackup(path, header, linesOfAll(deps, signal));
}

async function* linesOfAll({ store, print }: Deps, signal: AbortSignal): AsyncGenerator<BackupLine> {
  const seen = new Set<string>(LEFT_OUT);
  let records = 0;
  for (const prefix of [...JOURNALS, ...WRITTEN, '']) {
    for await (const name of namesOf(store, prefix, signal)) {
      if (seen.has(name)) continue;
      seen.add(name);
      const stream = store.stream(name);
      const tail = await stream.tail(signal);
      const head = { stream: name, tail };
      let isNamed = !isOfOneMail(name);
      if (isNamed) yield head;
      for await (const record of recordsUpTo(stream, tail, signal)) {
        if (!isNamed) yield head;
        isNamed = true;
        yield lineOf(record);
        if (++records % PROGRESS_RECORDS === 0) print(`${records} records …`);
      }
    }
  }
}

/** A name stands for itself and for all that begin with it: what is more is left to a later prefix. */
async function* namesOf(store: StreamStore, prefix: string, signal: AbortSignal): AsyncGenerator<string> {
  for (let startAfter: string | undefined; ;) {
    const page = await store.list({ prefix, ...(startAfter !== undefined && { startAfter }), signal });
    for (const name of page.names) if (prefix === '' || prefix.endsWith('/') || name === prefix) yield name;
    startAfter = page.names.at(-1);
    if (!page.hasMore || startAfter === undefined) return;
  }
}

async function* recordsUpTo(stream: Stream, tail: number, signal: AbortSignal): AsyncGenerator<StreamRecord> {
  for (let next = 0; next < tail;) {
    const batch = await stream.read({ fromSeqNum: next, signal });
    for (const record of batch.records) if (record.seqNum < tail) yield record;
    if (batch.nextSeqNum === next) return;
    next = batch.nextSeqNum;
  }
}

function lineOf({ seqNum, timestampMs, headers, body }: StreamRecord): BackupLine {
  const line = {
    s: seqNum,
    t: timestampMs,
    h: headers.map(([name, value]): [string, string] => [name, value]),
  };
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  const text = bytes.toString('utf8');
  return Buffer.from(text).equals(bytes) ? { ...line, x: text } : { ...line, b: bytes.toString('base64') };
}

/**
 * Into an empty store.
 * @returns besides the counts, how many requests of the outbox are in doubt now
 * @throws MillraceError `restore.not_empty`, `restore.daemon_runs`, `backup.…` (invalid), having changed nothing
 */
export async function restore(
  deps: Deps,
  { path, release }: { path: string; release: string },
  signal: AbortSignal,
): Promise<BackupCounts & { inDoubt: number; at: string }> {
  const { store, clock, print } = deps;
  const { header, streams, records } = await verifyBackup(path);
  if (header.format > streamFormat.reads)
    throw new MillraceError(
      'invalid',
      'backup.newer_version',
      `${path} holds records of format ${header.format}`,
      {
        hint: `Restore it with release ${header.release}, or a newer one.`,
      },
    );
  await assertEmpty(deps, signal);
  const note = (value: { kind: string; [field: string]: unknown }) =>
    store.stream(meta).append([jsonRecord({ ...value, version: 1 })], { signal });
  const now = (): string => new Date(clock.nowMs()).toISOString();
  await note({ kind: 'restoring', backupAt: header.at, at: now() });
  print(`Putting back ${records} records on ${streams} streams, as of ${header.at} …`);
  await putBack(deps, path, signal);
  const inDoubt = await markInDoubt(store, { since: header.at, signal });
  await note({ kind: 'format', format: header.format, release, at: now() });
  await note({ kind: 'restored', backupAt: header.at, restoredAt: now() });
  return { streams, records, inDoubt, at: header.at };
}

async function assertEmpty({ store, clock }: Deps, signal: AbortSignal): Promise<void> {
  const { names } = await store.list({ prefix: '', limit: LEFT_OUT.length + 1, signal });
  const filled = names.find((name) => !LEFT_OUT.includes(name));
  if (filled !== undefined || (await store.stream(meta).tail(signal)) > 0)
    throw new MillraceError('invalid', 'restore.not_empty', `there are streams already: ${filled ?? meta}`, {
      hint: 'Restore into an empty DATA_DIR, or into a basin of another name (S2_BASIN). What a broken restore left counts as full, too.',
    });
  const stream = store.stream(members);
  const { records } = await stream.read({ fromSeqNum: Math.max(0, (await stream.tail(signal)) - 1), signal });
  const newest = records.at(-1);
  if (newest && clock.nowMs() - newest.timestampMs < HEARTBEAT_MS)
    throw new MillraceError('invalid', 'restore.daemon_runs', 'a daemon works on this basin', {
      hint: 'Stop all daemons of the basin first: systemctl stop millrace.target.',
    });
}

async function putBack({ store, print }: Deps, path: string, signal: AbortSignal): Promise<void> {
  let writer: StreamWriter | undefined;
  let records = 0;
  for await (const line of backupLines(path)) {
    if ('stream' in line) {
      await writer?.end();
      writer = createStreamWriter(store.stream(line.stream), line.tail, signal);
      continue;
    }
    const body = line.x ?? Buffer.from(line.b ?? '', 'base64');
    await writer!.write(line.s, { headers: line.h, body, timestampMs: line.t });
    if (++records % PROGRESS_RECORDS === 0) print(`${records} records …`);
  }
  await writer?.end();
}

interface StreamWriter {
  write(seqNum: number, record: NewRecord): Promise<void>;
  end(): Promise<void>;
}

/** Writes records under the numbers that they had; each append says which it expects, so that it happens once. */
function createStreamWriter(stream: Stream, tail: number, signal: AbortSignal): StreamWriter {
  let next = 0;
  let bytes = 0;
  let batch: NewRecord[] = [];

  async function flush(): Promise<void> {
    if (batch.length === 0) return;
    await stream.append(batch, { matchSeqNum: next - batch.length, signal });
    batch = [];
    bytes = 0;
  }

  async function add(record: NewRecord): Promise<void> {
    const size = meteredBytes(record);
    if (batch.length === limits.batchRecords || (batch.length > 0 && bytes + size > BATCH_BYTES))
      await flush();
    batch.push(record);
    bytes += size;
    next++;
  }

  /** Uses up the numbers below `seqNum`. No record stands there for a while: a trim may take effect much later. */
  async function skipTo(seqNum: number, timestampMs?: number): Promise<void> {
    if (next < seqNum) await flush();
    while (next < seqNum) {
      const numbers = Math.min(seqNum - next, limits.batchRecords);
      // Times of a stream never go back: a command of now would take those of all that follow with it.
      const time = timestampMs === undefined ? {} : { timestampMs };
      await stream.skip(numbers, { ...time, matchSeqNum: next, signal });
      next += numbers;
    }
  }

  return {
    async write(seqNum, record) {
      await skipTo(seqNum, record.timestampMs);
      await add(record);
    },
    async end() {
      await flush();
      await skipTo(tail);
    },
  };
}
