/**
 * A revision of the tools as mail runs on it, and the place that holds the live one. What a run began with it
 * keeps: a `ToolRevision` does not change.
 */
import { orAborted } from '../platform/abort.ts';
import type { ToolBundle } from './bundle.ts';
import { inboxesOf, unreachableOf } from './tool-inboxes.ts';

/** What a revision needs to run. */
export type RunnableBundle = Omit<ToolBundle, 'tests'>;

export interface ToolRevision {
  readonly revision: string;
  readonly bundle: RunnableBundle;
  /** The exported function that serves an inbox. */
  readonly toolOf: ReadonlyMap<string, string>;
}

export interface LiveRevision {
  current(): ToolRevision | undefined;
  /** The live revision; waits for the first. */
  live(signal: AbortSignal): Promise<ToolRevision>;
  /** Calls back after each swap; returns how to stop that. */
  onLive(callback: (revision: ToolRevision) => void): () => void;
}

/** @throws MillraceError `tools.inbox_conflict` (invalid) */
export function toolRevision(bundle: RunnableBundle): ToolRevision {
  return { revision: bundle.revision, bundle, toolOf: inboxesOf(bundle.exports) };
}

/** What the stream `tools` says that a revision serves. */
export function servedBy({ bundle, toolOf }: ToolRevision): { inboxes: string[]; unreachable?: string[] } {
  const unreachable = unreachableOf(bundle.exports, toolOf);
  return { inboxes: [...toolOf.keys()], ...(unreachable.length > 0 && { unreachable }) };
}

/** Holds what is live, for those who ask and those who wait. */
export function createLiveRevision(): LiveRevision & {
  /** The same revision again changes nothing. */
  swap(next: ToolRevision): void;
} {
  const callbacks = new Set<(revision: ToolRevision) => void>();
  const first = Promise.withResolvers<void>();
  let live: ToolRevision | undefined;
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
    swap(next) {
      if (next.revision === live?.revision) return;
      live = next;
      first.resolve();
      for (const callback of callbacks) callback(next);
    },
  };
}
