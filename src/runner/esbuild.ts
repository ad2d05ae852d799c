/**
 * esbuild works in a process of its own, one for all builds of ours. A file of a stranger's can make that process die, or
 * never answer, and esbuild starts no other by itself. So one build is made at a time, what happens to the process happens
 * to that one alone, and the next finds a process that works.
 */
import { build, stop } from 'esbuild';
import type { BuildFailure, BuildOptions, BuildResult } from 'esbuild';
import { orAborted } from '../platform/abort.ts';

/** The last build's end. It is esbuild that has one process for all, so this is kept for all, too. */
let turn: Promise<unknown> = Promise.resolve();

/**
 * One build. The process may have ended since the last, through no fault of this one's files: it is tried twice.
 * @throws BuildFailure for what esbuild says of the files; Error where its process died of them, or the signal's reason
 */
export function buildAlone<T extends BuildOptions>(
  options: T,
  signal?: AbortSignal,
): Promise<BuildResult<T>> {
  const attempt = async (): Promise<BuildResult<T>> => {
    signal?.throwIfAborted();
    try {
      const built: Promise<BuildResult<T>> = build(options as never);
      return await (signal ? orAborted(built, signal) : built);
    } catch (error) {
      // Builds that were under way are never settled then: there are none beside this.
      if (!isBuildFailure(error)) await stop();
      throw error;
    }
  };
  const result = turn.then(attempt).catch((error: unknown) => {
    if (isBuildFailure(error)) throw error;
    return attempt();
  });
  turn = result.catch(() => {});
  return signal ? orAborted(result, signal) : result;
}

export function isBuildFailure(error: unknown): error is BuildFailure {
  return error instanceof Error && Array.isArray((error as Partial<BuildFailure>).errors);
}
