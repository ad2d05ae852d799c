/**
 * The tools that mail runs on. A swap is at once, and on record on the stream `tools` before mail can run on
 * it; what a run began with it keeps: a `ToolRevision` does not change.
 *
 * There are two: `createToolSet` builds what a source brings itself (the folder of one machine);
 * `published-tools.ts` takes what a process of the role `sync` has built. Where something cannot be built,
 * what was live stays live, and why is on record.
 *
 * `revision` is derived from the code alone, wherever it came from: the record on `tools` joins it to the
 * commit that it was made of, and a commit that changes no code has the revision of the one before.
 */
import { errorKind } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { ToolsRecord } from '../streams/records.ts';
import type { ToolBundle } from './bundle.ts';
import type { ToolRecords } from './tool-records.ts';
import { createLiveRevision, servedBy, toolRevision } from './tool-revision.ts';
import type { LiveRevision, ToolRevision } from './tool-revision.ts';

export interface ToolSet extends LiveRevision {
  /** The live revision, once all that is on record by now has been taken in: for whoever misses an inbox in it. */
  upToDate(signal: AbortSignal): Promise<ToolRevision>;
  /** Keeps the tools as they should be, until the signal is aborted. */
  run(signal: AbortSignal): Promise<void>;
}

/** Tools as they lie on this machine, not built yet. */
export interface ToolFiles {
  /** A folder with an `index.ts`, or that file itself. */
  readonly directory: string;
  /** The repository around it, where there is one, and its commit. */
  readonly root?: string;
  readonly commit?: Commit;
}
export type Commit = NonNullable<ToolsRecord['commit']>;

/** What a source does with what it finds. */
export interface ToolTarget {
  /** Builds; live when it is good. A transient failure is thrown, any other is a refusal on record. */
  load(files: ToolFiles, signal: AbortSignal): Promise<ToolsRecord>;
}

/** Where tools come from. */
export interface ToolSource {
  /** Brings what is there, and each change of it, until the signal is aborted. */
  run(target: ToolTarget, signal: AbortSignal): Promise<void>;
}

interface ToolSetDeps {
  records: ToolRecords;
  log: Log;
  /** Builds, inspects and tests. */
  build: (files: ToolFiles, signal: AbortSignal) => Promise<ToolBundle>;
  source: ToolSource;
}

export function createToolSet(deps: ToolSetDeps): ToolSet {
  const { records, log, build, source } = deps;
  const holder = createLiveRevision();

  async function load(files: ToolFiles, signal: AbortSignal): Promise<ToolsRecord> {
    let next: ToolRevision;
    try {
      next = toolRevision(await build(files, signal));
    } catch (error) {
      signal.throwIfAborted();
      if (errorKind(error) === 'transient') throw error;
      return records.refuse(error, files.commit, signal);
    }
    const { revision } = next;
    const served = servedBy(next);
    const record = await records.live({ revision, ...served }, signal);
    holder.swap(next);
    log.info({ revision, ...served }, 'tools.live');
    return record;
  }

  return {
    ...holder,
    upToDate: (signal) => holder.live(signal),
    run: (signal) => source.run({ load }, signal),
  };
}
