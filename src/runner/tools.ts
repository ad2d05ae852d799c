/**
 * Where the tools of this process come from: with a repository from the streams, where a process of the role
 * `sync` publishes them; without one from a folder of this machine, which is built here.
 */
import type { Clock } from '../platform/clock.ts';
import type { Config } from '../platform/config.ts';
import type { Log } from '../platform/log.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import { bundleTools } from './bundle.ts';
import { createFolderSource } from './folder-source.ts';
import { createPublishedTools } from './published-tools.ts';
import type { SandboxPool } from './sandbox/sandbox.ts';
import { createToolRecords } from './tool-records.ts';
import { createToolSet } from './tool-set.ts';
import type { ToolSet } from './tool-set.ts';
import { runToolTests } from './tool-tests.ts';

interface ToolsDeps {
  store: StreamStore;
  clock: Clock;
  log: Log;
  pool: Pick<SandboxPool, 'inspect' | 'run' | 'start'>;
}

export function createTools(
  { store, clock, log, pool }: ToolsDeps,
  { repo, path }: Pick<Config['tools'], 'repo' | 'path'>,
): ToolSet {
  if (repo !== null) return createPublishedTools({ store, clock, log });
  return createToolSet({
    records: createToolRecords({ store, clock, log }),
    log,
    source: createFolderSource({ clock, log }, { directory: path }),
    build: async ({ directory }, signal) => {
      const bundle = await bundleTools({ directory, clock, pool, signal });
      await runToolTests({ pool, clock }, bundle, signal);
      return bundle;
    },
  });
}
