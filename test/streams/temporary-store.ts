/** A local store in a folder of its own, new for each test of the file that calls this and gone after it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';

/** Gives the store of the test that runs. */
export function useTemporaryStore(): () => StreamStore {
  let directory: string;
  let store: StreamStore;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'millrace-store-'));
    store = await openLocalStore(
      { clock, log: createLog('silent') },
      { directory, retentionFor: () => 'forever' },
    );
  });
  afterEach(async () => {
    await store.close();
    await rm(directory, { recursive: true });
  });
  return () => store;
}
