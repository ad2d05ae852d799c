/**
 * The tools that are live: what a source brings is built beside them, swapped in at once when it is good, and
 * changes nothing when it is not. Each swap and each refusal is a record on the stream `tools`; a swap is on
 * record before mail can run on it. What a run began with it keeps: a `ToolRevision` does not change.
 *
 * `revision` is derived from the code alone, wherever it came from: the record on `tools` joins it to the
 * commit that it was made of, and a commit that changes no code has the revision of the one before.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../platform/clock.ts';
import { orAborted } from '../platform/abort.ts';
import { errorKind, errorMessage } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { toolInboxNames } from '../mail/address.ts';
import { DEFAULT_INBOX } from '../streams/live-tools.ts';
import { jsonRecord, parseJsonRecord, streamNames, toolsStreamSchema } from '../streams/records.ts';
import type { ToolsRecord } from '../streams/records.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import type { ToolBundle } from './bundle.ts';

export interface ToolRevision {
  readonly revision: string;
  readonly bundle: ToolBundle;
  /** The exported function that serves an inbox. */
  readonly toolOf: ReadonlyMap<string, string>;
}

export interface ToolSet {
  current(): ToolRevision | undefined;
  /** The live revision; waits for the first. */
  live(signal: AbortSignal): Promise<ToolRevision>;
  /** Calls back after each swap; returns how to stop that. */
  onLive(callback: (revision: ToolRevision) => void): () => void;
  /** Keeps the tools as its source has them, until the signal is aborted. */
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
  /** Builds; swaps when it is good. A transient failure is thrown, any other is a refusal on record. */
  load(files: ToolFiles, signal: AbortSignal): Promise<'live' | 'refused'>;
  /** Puts on record, once, that tools could not be had. */
  refuse(error: unknown, commit: Commit | undefined, signal: AbortSignal): Promise<void>;
}

/** Where tools come from: a folder or a Git repository. */
export interface ToolSource {
  /** Brings what is there, and each change of it, until the signal is aborted. */
  run(target: ToolTarget, signal: AbortSignal): Promise<void>;
}

const RETRY_MS = 2_000;
const MAX_ERROR_CHARS = 20_000;
/** How far back the newest record is looked for behind mere requests. */
const LOOK_BACK_RECORDS = 200;

interface ToolSetDeps {
  store: StreamStore;
  clock: Clock;
  log: Log;
  /** Builds, inspects and tests. */
  build: (files: ToolFiles, signal: AbortSignal) => Promise<ToolBundle>;
  source: ToolSource;
}

export function createToolSet(deps: ToolSetDeps): ToolSet {
  const { store, clock, log, build, source } = deps;
  const stream = store.stream(streamNames.tools);
  const callbacks = new Set<(revision: ToolRevision) => void>();
  const first = Promise.withResolvers<void>();
  let live: ToolRevision | undefined;

  async function load(files: ToolFiles, signal: AbortSignal): Promise<'live' | 'refused'> {
    let bundle: ToolBundle;
    try {
      bundle = await build(files, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (errorKind(error) === 'transient') throw error;
      await refuse(error, files.commit, signal);
      return 'refused';
    }
    const isSwapped = bundle.revision !== live?.revision;
    const next = isSwapped ? { revision: bundle.revision, bundle, toolOf: inboxesOf(bundle) } : live!;
    const { revision } = next;
    const inboxes = [...next.toolOf.keys()];
    await recordOnce({ revision, status: 'live', inboxes, error: null }, files.commit, signal);
    live = next;
    log.info({ revision, inboxes, commit: files.commit?.id }, 'tools.live');
    first.resolve();
    if (isSwapped) for (const callback of callbacks) callback(next);
    return 'live';
  }

  async function refuse(error: unknown, commit: Commit | undefined, signal: AbortSignal): Promise<void> {
    log.error({ commit: commit?.id, error }, 'tools.refused');
    const message = errorMessage(error).slice(0, MAX_ERROR_CHARS);
    await recordOnce({ revision: 'none', status: 'refused', inboxes: [], error: message }, commit, signal);
  }

  /** A restart, another process or the next look at the same thing adds no record. */
  async function recordOnce(
    fields: Pick<ToolsRecord, 'revision' | 'status' | 'inboxes' | 'error'>,
    commit: Commit | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const at = new Date(clock.nowMs()).toISOString();
    const record: ToolsRecord = { kind: 'tools', version: 1, ...fields, ...(commit && { commit }), at };
    for (;;) {
      try {
        const last = await newestRecord(signal);
        if (last && isDeepStrictEqual({ ...last, at }, record)) return;
        await stream.append([jsonRecord(record)], { signal });
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (errorKind(error) !== 'transient') throw error;
        log.warn({ error }, 'tools.record_failed');
        await clock.sleep(RETRY_MS, signal);
      }
    }
  }

  async function newestRecord(signal: AbortSignal): Promise<ToolsRecord | undefined> {
    const tail = await stream.tail(signal);
    let newest: ToolsRecord | undefined;
    for (let fromSeqNum = Math.max(0, tail - LOOK_BACK_RECORDS); fromSeqNum < tail;) {
      const { records, nextSeqNum } = await stream.read({ fromSeqNum, signal });
      for (const record of records) {
        const parsed = parseJsonRecord(toolsStreamSchema, record);
        if (parsed.kind === 'tools') newest = parsed;
      }
      if (nextSeqNum <= fromSeqNum) break;
      fromSeqNum = nextSeqNum;
    }
    return newest;
  }

  return {
    current: () => live,
    async live(signal) {
      if (!live) await orAborted(first.promise, signal);
      return live!;
    },
    onLive(callback) {
      callbacks.add(callback);
      return () => callbacks.delete(callback);
    },
    run: (signal) => source.run({ load, refuse }, signal),
  };
}

/** Inbox name → exported function. An earlier export wins a name that two would serve. */
function inboxesOf(bundle: ToolBundle): Map<string, string> {
  const toolOf = new Map<string, string>();
  for (const exportName of bundle.exports) {
    const names = exportName === DEFAULT_INBOX ? [DEFAULT_INBOX] : toolInboxNames(exportName);
    for (const name of names) if (!toolOf.has(name)) toolOf.set(name, exportName);
  }
  return toolOf;
}
