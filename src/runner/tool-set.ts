/**
 * The tools that are live: built from a folder, swapped at once when a new build is good, kept when it is not.
 * Each swap and each refusal is a record on the stream `tools`; a swap is on record before mail can run on it.
 * What a run began with it keeps: a `ToolRevision` does not change.
 */
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { relative } from 'node:path';
import { watch } from 'chokidar';
import type { Clock } from '../platform/clock.ts';
import { orAborted } from '../platform/abort.ts';
import { MillraceError, errorKind, errorMessage } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { toolInboxNames } from '../mail/address.ts';
import { DEFAULT_INBOX } from '../streams/live-tools.ts';
import { jsonRecord, parseJsonRecord, streamNames, toolsRecordSchema } from '../streams/records.ts';
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
  /** Builds the folder, then again after each change, until the signal is aborted. */
  run(signal: AbortSignal): Promise<void>;
}

/** An editor writes a file in several steps: what follows within this time is one change. */
const SETTLE_MS = 100;
const RETRY_MS = 2_000;
/** Folders that are not the author's, whatever changes in them. */
const IGNORED = /(?:^|[\\/])(?:node_modules|\.git)(?:[\\/]|$)/;

interface ToolSetDeps {
  store: StreamStore;
  clock: Clock;
  log: Log;
  /** Builds and inspects what lies in a folder: `bundleTools` with a sandbox pool. */
  build: (directory: string) => Promise<ToolBundle>;
}

export function createToolSet(deps: ToolSetDeps, options: { directory: string }): ToolSet {
  const { store, clock, log, build } = deps;
  const { directory } = options;
  const stream = store.stream(streamNames.tools);
  const callbacks = new Set<(revision: ToolRevision) => void>();
  const first = Promise.withResolvers<void>();
  let live: ToolRevision | undefined;
  let lastRefusal: string | undefined;

  /** Builds; swaps when it is good. A refusal is recorded once, however often the same fault is met. */
  async function load(signal: AbortSignal): Promise<void> {
    let bundle: ToolBundle;
    try {
      bundle = await build(directory);
    } catch (error) {
      if (errorKind(error) === 'transient') throw error;
      const message = errorMessage(error);
      log.error({ directory, error }, 'tools.refused');
      if (message !== lastRefusal)
        await record(
          { revision: 'none', status: 'refused', inboxes: [], error: message.slice(0, 20_000) },
          signal,
        );
      lastRefusal = message;
      return;
    }
    lastRefusal = undefined;
    if (bundle.revision === live?.revision) return;
    const next: ToolRevision = { revision: bundle.revision, bundle, toolOf: inboxesOf(bundle) };
    const inboxes = [...next.toolOf.keys()];
    if (!(await isOnRecord(next, signal)))
      await record({ revision: next.revision, status: 'live', inboxes, error: null }, signal);
    live = next;
    log.info({ revision: next.revision, inboxes }, 'tools.live');
    first.resolve();
    for (const callback of callbacks) callback(next);
  }

  async function record(
    fields: Pick<ToolsRecord, 'revision' | 'status' | 'inboxes' | 'error'>,
    signal: AbortSignal,
  ): Promise<void> {
    const at = new Date(clock.nowMs()).toISOString();
    for (;;) {
      try {
        await stream.append(
          [jsonRecord({ kind: 'tools', version: 1, ...fields, at } satisfies ToolsRecord)],
          { signal },
        );
        return;
      } catch (error) {
        log.warn({ error }, 'tools.record_failed');
        await clock.sleep(RETRY_MS, signal);
      }
    }
  }

  /** A restart with the same tools adds no record. */
  async function isOnRecord(next: ToolRevision, signal: AbortSignal): Promise<boolean> {
    const tail = await stream.tail(signal);
    if (tail === 0) return false;
    const { records } = await stream.read({ fromSeqNum: tail - 1, signal });
    const last = records.at(-1);
    if (!last) return false;
    const { status, revision, inboxes } = parseJsonRecord(toolsRecordSchema, last);
    return (
      status === 'live' && revision === next.revision && inboxes.join() === [...next.toolOf.keys()].join()
    );
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
    async run(signal) {
      assertExists(directory);
      let changed = true;
      let wake = Promise.withResolvers<void>();
      const watcher = watch(directory, {
        ignoreInitial: true,
        ignored: (path) => IGNORED.test(relative(directory, path)),
      });
      await using _ = { [Symbol.asyncDispose]: () => watcher.close() };
      watcher.on('error', (error) => log.error({ directory, error }, 'tools.watch_failed'));
      watcher.on('all', () => {
        changed = true;
        wake.resolve();
      });
      // What is written from here on is noticed.
      await orAborted(once(watcher, 'ready'), signal).catch(() => {});
      try {
        while (!signal.aborted) {
          if (!changed) await orAborted(wake.promise, signal);
          wake = Promise.withResolvers<void>();
          if (live) await clock.sleep(SETTLE_MS, signal);
          changed = false;
          await load(signal);
        }
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    },
  };
}

function assertExists(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })) return;
  throw new MillraceError('invalid', 'tools.not_found', `there are no tools at ${path}`, {
    hint: 'Set TOOLS_PATH to a folder with an index.ts, or to that file.',
  });
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
