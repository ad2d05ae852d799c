/**
 * Making a revision known: its bundle first, as a blob under its own name, then the record that says it is
 * live. Both are idempotent, so a crash in between, or two processes at once, add nothing twice.
 */
import { errorKind } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { findBlob, writeBlob } from '../../streams/blob.ts';
import { streamNames } from '../../streams/records.ts';
import type { ToolsRecord } from '../../streams/records.ts';
import type { StreamStore } from '../../streams/stream-store.ts';
import type { ToolBundle } from '../bundle.ts';
import { publishedBytes } from '../published-tools.ts';
import type { ToolRecords } from '../tool-records.ts';
import { servedBy, toolRevision } from '../tool-revision.ts';
import type { Commit, ToolFiles, ToolTarget } from '../tool-set.ts';

export interface Publisher extends ToolTarget {
  /** What was live once is live again, as it was built then; null where its bundle is not kept any more. */
  again(record: ToolsRecord, signal: AbortSignal): Promise<ToolsRecord | null>;
  refuse(error: unknown, commit: Commit | undefined, signal: AbortSignal): Promise<ToolsRecord>;
  /** Makes what a record says the newest again; nothing is built or brought. */
  recordAgain(record: ToolsRecord, signal: AbortSignal): Promise<ToolsRecord>;
  /** True where what the record points to is there, and was made the way we make it. */
  isServing(record: ToolsRecord, signal: AbortSignal): Promise<boolean>;
  /** Lets go of the bundle that a record points to. */
  forget(record: ToolsRecord, signal: AbortSignal): Promise<void>;
}

interface PublisherDeps {
  store: StreamStore;
  records: ToolRecords;
  log: Log;
  /** Builds, inspects, checks and tests. */
  build: (files: ToolFiles, signal: AbortSignal) => Promise<ToolBundle>;
  /** Names the way in which `build` builds. */
  builder: string;
}

export function createPublisher(deps: PublisherDeps): Publisher {
  const { store, records, log, build, builder } = deps;

  async function isServing({ bundle, ...record }: ToolsRecord, signal: AbortSignal): Promise<boolean> {
    if (!bundle || record.builder !== builder) return false;
    return (await findBlob(store.stream(bundle.stream), signal)) !== null;
  }

  async function load(files: ToolFiles, signal: AbortSignal): Promise<ToolsRecord> {
    const { commit } = files;
    let bundle: ToolBundle;
    let served: ReturnType<typeof servedBy>;
    try {
      bundle = await build(files, signal);
      served = servedBy(toolRevision(bundle));
    } catch (error) {
      signal.throwIfAborted();
      if (errorKind(error) === 'transient') throw error;
      return records.refuse(error, commit, signal);
    }
    const { revision } = bundle;
    const blob = await writeBlob(store.stream(streamNames.revision(revision)), publishedBytes(bundle), {
      signal,
    });
    log.info({ revision, ...served, commit: commit?.id }, 'tools.published');
    return records.live({ revision, ...served, bundle: blob, builder, ...(commit && { commit }) }, signal);
  }

  return {
    load,
    isServing,
    refuse: (error, commit, signal) => records.refuse(error, commit, signal),
    recordAgain: (record, signal) => records.again(record, signal),
    async again(record, signal) {
      if (!(await isServing(record, signal))) return null;
      const { revision, inboxes, unreachable, bundle, commit } = record;
      log.info({ revision, inboxes, commit: commit?.id }, 'tools.published_again');
      return records.live({ revision, inboxes, unreachable, bundle, builder, commit }, signal);
    },
    async forget({ bundle }, signal) {
      if (!bundle) return;
      const stream = store.stream(bundle.stream);
      await stream.trim(await stream.tail(signal), { signal });
    },
  };
}
