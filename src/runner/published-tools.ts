/**
 * The tools as a process of the role `sync` publishes them: a revision's bundle is a blob on the stream
 * `revision/<revision>`, and the record on `tools` that says "live" points to it. So a runner needs no Git, no
 * token and no compiler, and all runners of a basin follow one order of revisions.
 *
 * A bundle that cannot be read leaves what was live, and the log has why: the process that published it finds
 * it missing at its next start, and makes it again.
 */
import { z } from 'zod';
import { orAborted } from '../platform/abort.ts';
import type { Clock } from '../platform/clock.ts';
import { errorKind, MillraceError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { backoffMs } from '../platform/retry.ts';
import { readBlob } from '../streams/blob.ts';
import { newestThat } from '../streams/newest-record.ts';
import { parseJsonRecord, streamNames, toolsStreamSchema } from '../streams/records.ts';
import type { ToolsRecord } from '../streams/records.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { createLiveRevision, toolRevision } from './tool-revision.ts';
import type { RunnableBundle } from './tool-revision.ts';
import type { ToolSet } from './tool-set.ts';
import { checkedSettings } from './tool-settings.ts';

const RETRY = { baseMs: 500, maxMs: 15_000 };

const publishedSchema = z.object({
  kind: z.literal('revision'),
  version: z.literal(1),
  revision: z.string(),
  code: z.string(),
  sourceMap: z.string(),
  exports: z.array(z.string()),
  settings: z.unknown(),
});

/** What the blob of a revision holds. */
export function publishedBytes(bundle: RunnableBundle): Uint8Array {
  const { revision, code, sourceMap, exports, settings } = bundle;
  const published: z.input<typeof publishedSchema> = {
    kind: 'revision',
    version: 1,
    revision,
    code,
    sourceMap,
    exports: [...exports],
    settings,
  };
  return Buffer.from(JSON.stringify(published));
}

function bundleFrom(bytes: Uint8Array): RunnableBundle {
  const parsed = publishedSchema.safeParse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  if (!parsed.success) {
    throw new MillraceError('permanent', 'tools.revision_unreadable', z.prettifyError(parsed.error), {
      hint: 'It was published by another release: run the same one everywhere.',
    });
  }
  const { revision, code, sourceMap, exports, settings } = parsed.data;
  return { revision, code, sourceMap, exports, settings: checkedSettings(settings, exports) };
}

export function createPublishedTools(deps: { store: StreamStore; clock: Clock; log: Log }): ToolSet {
  const { store, clock, log } = deps;
  const stream = store.stream(streamNames.tools);
  const holder = createLiveRevision();
  /** Up to here the stream has been taken in. */
  let taken = 0;
  let progress = Promise.withResolvers<void>();

  async function load(record: ToolsRecord, signal: AbortSignal): Promise<void> {
    if (record.revision === holder.current()?.revision) return;
    for (let failures = 0; ;) {
      try {
        holder.swap(toolRevision(bundleFrom(await readBlob(store, record.bundle!, signal))));
        log.info({ revision: record.revision, commit: record.commit?.id }, 'tools.live');
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (errorKind(error) !== 'transient') {
          log.error({ revision: record.revision, error }, 'tools.revision_missing');
          return;
        }
        await clock.sleep(backoffMs(++failures, RETRY, clock.random), signal);
      }
    }
  }

  async function follow(signal: AbortSignal): Promise<void> {
    const tail = await stream.tail(signal);
    await take(await newestThat(stream, { before: tail, signal }, publishedOf), tail, signal);
    for await (const { records, nextSeqNum } of stream.follow({ fromSeqNum: tail, signal }))
      await take(records.map(publishedOf).findLast(Boolean), nextSeqNum, signal);
  }

  /** The newest one up to there: what was live before it is no answer. */
  async function take(newest: ToolsRecord | undefined, upTo: number, signal: AbortSignal): Promise<void> {
    if (newest) await load(newest, signal);
    taken = upTo;
    progress.resolve();
    progress = Promise.withResolvers();
  }

  return {
    ...holder,
    async upToDate(signal) {
      const tail = await stream.tail(signal);
      while (taken < tail) await orAborted(progress.promise, signal);
      return holder.live(signal);
    },
    async run(signal) {
      try {
        await follow(signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    },
  };
}

function publishedOf(record: StreamRecord): ToolsRecord | undefined {
  const tools = parseJsonRecord(toolsStreamSchema, record);
  const isPublished = tools.kind === 'tools' && tools.status === 'live' && tools.bundle !== undefined;
  return isPublished ? tools : undefined;
}
