/**
 * How a revision is built that is to be trusted: bundled, its types checked, the author's own tests run. So do the role
 * `sync` before anything goes live, and an author's `millrace check` before it is pushed: both judge alike.
 */
import type { Clock } from '../../platform/clock.ts';
import { bundleTools } from '../bundle.ts';
import type { ToolBundle } from '../bundle.ts';
import type { SandboxPool } from '../sandbox/sandbox.ts';
import type { ToolFiles } from '../tool-set.ts';
import { runToolTests } from '../tool-tests.ts';
import { createTypeCheck } from './type-check.ts';

/** Bundles; then the compiler and the author's tests look at it, side by side. The first to object is heard. */
export function createCheckedBuild({
  clock,
  pool,
}: {
  clock: Clock;
  pool: Pick<SandboxPool, 'inspect' | 'run' | 'start'>;
}): (files: ToolFiles, signal: AbortSignal) => Promise<ToolBundle> {
  const checkTypes = createTypeCheck({ clock });
  return async (files, signal) => {
    const { directory, root } = files;
    const failed = new AbortController();
    const all = AbortSignal.any([signal, failed.signal]);
    const types = checkTypes(files, all);
    types.catch(() => {});
    try {
      const bundle = await bundleTools({
        directory,
        clock,
        pool,
        signal: all,
        ...(root === undefined ? {} : { root }),
      });
      const tests = runToolTests({ pool, clock }, bundle, all);
      tests.catch(() => {});
      await types;
      await tests;
      return bundle;
    } finally {
      failed.abort();
      await types.catch(() => {});
    }
  };
}
