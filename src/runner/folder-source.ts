/**
 * Tools from a folder: built at the start and again after each change of a file. Where nothing can be built,
 * what was live stays live; there is no history here, so nothing can be pinned or rolled back.
 */
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { relative } from 'node:path';
import { watch } from 'chokidar';
import { orAborted } from '../platform/abort.ts';
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { ToolFiles } from './tool-set.ts';

/** As a `ToolSource`, for anybody who wants to know when the folder has changed. */
interface FolderSource {
  run(
    target: { load(files: ToolFiles, signal: AbortSignal): Promise<unknown> },
    signal: AbortSignal,
  ): Promise<void>;
}

/** An editor writes a file in several steps: what follows within this time is one change. */
const SETTLE_MS = 100;
/** Folders that are not the author's, whatever changes in them. */
const IGNORED = /(?:^|[\\/])(?:node_modules|\.git)(?:[\\/]|$)/;

/** @param options.directory a folder with an `index.ts`, or that file itself */
export function createFolderSource(
  deps: { clock: Clock; log: Log },
  options: { directory: string },
): FolderSource {
  const { clock, log } = deps;
  const { directory } = options;
  return {
    async run(target, signal) {
      assertExists(directory);
      let changed = true;
      let isFirst = true;
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
          if (!isFirst) await clock.sleep(SETTLE_MS, signal);
          changed = false;
          isFirst = false;
          await target.load({ directory }, signal);
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
