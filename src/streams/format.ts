/**
 * Keeps an older release away from what a newer one wrote. The stream `meta` states the format of all the others;
 * a release that writes a higher one says so there before it writes anything.
 *
 * - At the start, the stated format and the newest records of every stream are looked at. What is newer ends the
 *   start: nothing was taken over, nothing was written.
 * - While the daemon runs, `meta` is followed: where a newer release comes to the same basin with a format that
 *   we do not read, this process stops. A newer record that arrives before that is refused where it is read
 *   (`records.newer_version`), which stops it too; it is never parked as a dead letter.
 * - Where the store is out of reach at the start, all services wait for the first look.
 */
import { z } from 'zod';
import { orAborted } from '../platform/abort.ts';
import type { Clock } from '../platform/clock.ts';
import { MillraceError, hasCode } from '../platform/errors.ts';
import type { Service } from '../platform/lifecycle.ts';
import type { Log } from '../platform/log.ts';
import { newerVersionOf, streamFormat } from './record-versions.ts';
import { jsonRecord, parseJsonRecord, streamNames } from './records.ts';
import type { StreamRecord, StreamStore } from './stream-store.ts';

/** `meta`: from here on, the streams hold records of this format. */
const formatRecordSchema = z.object({
  kind: z.literal('format'),
  version: z.literal(1),
  format: z.number().int().positive(),
  /** The release that said so, for a person. */
  release: z.string(),
  at: z.string(),
});
type FormatRecord = z.infer<typeof formatRecordSchema>;

/** `meta`, too: the streams were put back from a backup, and what was done after it is not known here. */
const restoredRecordSchema = z.object({
  kind: z.literal('restored'),
  version: z.literal(1),
  backupAt: z.string(),
  restoredAt: z.string(),
});

/** `meta`, too: a restore has begun. Until it is done, what stands on the streams is not to be worked on. */
const restoringRecordSchema = z.object({
  kind: z.literal('restoring'),
  version: z.literal(1),
  backupAt: z.string(),
  at: z.string(),
});

const metaRecordSchema = z.discriminatedUnion('kind', [
  formatRecordSchema,
  restoringRecordSchema,
  restoredRecordSchema,
]);

export interface FormatGuard {
  /**
   * Looks at the streams, and states our format where theirs is lower.
   * @throws MillraceError `streams.newer_format` (invalid), or the store's own
   */
  check(signal?: AbortSignal): Promise<void>;
  /** Follows `meta` for ever; rejects when the streams become newer than this release. */
  readonly service: Service;
  /** The same service, which begins when the streams were looked at. */
  behind(service: Service): Service;
}

/** What a restore leaves unknown: the streams before it went on from the first to the second time. */
export interface Restore {
  readonly backupAtMs: number;
  readonly restoredAtMs: number;
}

/** The newest restore of these streams, or null. */
export async function lastRestore(store: StreamStore, signal?: AbortSignal): Promise<Restore | null> {
  const { records } = await store.stream(streamNames.meta).read({ fromSeqNum: 0, ...(signal && { signal }) });
  const restored = records.map(metaOf).findLast((record) => record.kind === 'restored');
  if (!restored) return null;
  const { backupAt, restoredAt } = restored;
  return { backupAtMs: Date.parse(backupAt), restoredAtMs: Date.parse(restoredAt) };
}

/** Of each stream, this many numbers back from its tail are looked at: fences and trims among them show no record. */
const NEWEST_RECORDS = 16;
const MAX_STREAMS = 10_000;
const STREAMS_AT_ONCE = 16;
const STATING_ATTEMPTS = 5;

const fixedStreams = [
  streamNames.received,
  streamNames.outbox,
  streamNames.sent,
  streamNames.delivery,
  streamNames.suppressions,
  streamNames.tools,
  streamNames.mailbox,
  streamNames.reruns,
  streamNames.members,
];

export function createFormatGuard(
  { store, clock, log }: { store: StreamStore; clock: Clock; log: Log },
  { release }: { release: string },
): FormatGuard {
  const { promise: checked, resolve: markChecked } = Promise.withResolvers<void>();
  const meta = store.stream(streamNames.meta);

  async function state(signal?: AbortSignal): Promise<void> {
    for (let attempts = 1; attempts <= STATING_ATTEMPTS; attempts++) {
      const { format, tail } = await statedFormat(store, signal);
      if (format >= streamFormat.writes) return;
      const at = new Date(clock.nowMs()).toISOString();
      const record = jsonRecord({ kind: 'format', version: 1, format: streamFormat.writes, release, at });
      try {
        await meta.append([record], { matchSeqNum: tail, ...(signal && { signal }) });
        log.info({ format: streamFormat.writes, before: format }, 'streams.format_stated');
        return;
      } catch (error) {
        // Another process was quicker: what it said counts.
        if (!hasCode(error, 'streams.seq_num_mismatch')) throw error;
      }
    }
  }

  async function check(signal?: AbortSignal): Promise<void> {
    await assertReadable(store, signal);
    await state(signal);
    markChecked();
  }

  async function follow(signal: AbortSignal): Promise<void> {
    await check(signal);
    for await (const { records } of meta.follow({ fromSeqNum: 0, signal }))
      for (const record of records) assertKnownFormat(metaOf(record));
  }

  return {
    check,
    service: { name: 'format', run: follow },
    behind: (service) => ({
      name: service.name,
      async run(signal) {
        await orAborted(checked, signal);
        await service.run(signal);
      },
    }),
  };
}

/**
 * Reads only.
 * @throws MillraceError `streams.newer_format` (invalid) where a newer release has written to these streams
 */
export async function assertReadable(store: StreamStore, signal?: AbortSignal): Promise<void> {
  const { newest } = await statedFormat(store, signal);
  if (newest) assertKnownFormat(newest);
  const names = await streamsOfRecords(store, signal);
  for (let first = 0; first < names.length; first += STREAMS_AT_ONCE)
    await Promise.all(
      names.slice(first, first + STREAMS_AT_ONCE).map((name) => assertNewestKnown(store, name, signal)),
    );
}

/** What `meta` says, and its tail; format 0 where it says nothing. It holds a record a release, and is read whole. */
async function statedFormat(
  store: StreamStore,
  signal?: AbortSignal,
): Promise<{ format: number; newest: FormatRecord | null; tail: number }> {
  let newest: FormatRecord | null = null;
  const { records, nextSeqNum: tail } = await store
    .stream(streamNames.meta)
    .read({ fromSeqNum: 0, ...(signal && { signal }) });
  let isHalfRestored = false;
  for (const record of records.map(metaOf)) {
    if (record.kind === 'restoring') isHalfRestored = true;
    if (record.kind === 'restored') isHalfRestored = false;
    if (record.kind === 'format' && record.format > (newest?.format ?? 0)) newest = record;
  }
  if (isHalfRestored) throw halfRestored();
  return { format: newest?.format ?? 0, newest, tail };
}

function metaOf(record: StreamRecord): z.infer<typeof metaRecordSchema> {
  try {
    return parseJsonRecord(metaRecordSchema, record);
  } catch (cause) {
    // Who cannot read what the format is may not go on either, whatever the reason.
    throw newerFormat(`${streamNames.meta} cannot be read`, cause);
  }
}

function assertKnownFormat(record: z.infer<typeof metaRecordSchema>): void {
  if (record.kind !== 'format' || record.format <= streamFormat.reads) return;
  throw newerFormat(
    `the streams have format ${record.format}, written by release ${record.release}; this one reads ${streamFormat.reads}`,
  );
}

async function streamsOfRecords(store: StreamStore, signal?: AbortSignal): Promise<string[]> {
  const names: string[] = [...fixedStreams];
  for (const prefix of [streamNames.inboxPrefix, streamNames.runs('')]) {
    for (let startAfter: string | undefined, hasMore = true; hasMore && names.length < MAX_STREAMS;) {
      const page = await store.list({
        prefix,
        ...(startAfter !== undefined && { startAfter }),
        ...(signal && { signal }),
      });
      names.push(...page.names);
      startAfter = page.names.at(-1);
      hasMore = page.hasMore && startAfter !== undefined;
    }
  }
  return names;
}

async function assertNewestKnown(store: StreamStore, name: string, signal?: AbortSignal): Promise<void> {
  const stream = store.stream(name);
  const tail = await stream.tail(signal);
  const fromSeqNum = Math.max(0, tail - NEWEST_RECORDS);
  const { records } = await stream.read({ fromSeqNum, ...(signal && { signal }) });
  for (const { seqNum, body } of records) {
    const newer = newerVersionOf(jsonOrUndefined(body));
    if (!newer) continue;
    const { kind, version, known } = newer;
    throw newerFormat(
      `${name} holds a record (${seqNum}) of kind ${kind}, version ${version}; this release reads ${known}`,
    );
  }
}

function jsonOrUndefined(body: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(body).toString('utf8'));
  } catch {
    // What is no JSON is judged by whoever reads it.
    return undefined;
  }
}

function newerFormat(message: string, cause?: unknown): MillraceError {
  return new MillraceError('invalid', 'streams.newer_format', message, {
    hint: 'A newer release has worked on these streams. Run that release, or a newer one: nothing was changed by this start.',
    cause,
  });
}

function halfRestored(): MillraceError {
  return new MillraceError(
    'invalid',
    'streams.half_restored',
    'a restore was begun on these streams and not ended',
    {
      hint: 'Begin it again: into an empty DATA_DIR, or a basin of another name (S2_BASIN).',
    },
  );
}
