/** What the tests of the S2 store share: a server for the file, a store for the test, and their end. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { S2 } from '@s2-dev/streamstore';
import type { S2Basin } from '@s2-dev/streamstore';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { openS2Store } from '../../src/streams/s2-store.ts';
import type { S2StoreOptions } from '../../src/streams/s2-store.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { startS2Lite } from './s2-lite.ts';
import type { S2Lite } from './s2-lite.ts';

const BASIN = 'millrace-test';

export interface S2Fixture {
  readonly server: S2Lite;
  /** The SDK itself, for looking behind the store's back. */
  readonly client: S2;
  readonly basin: S2Basin;
  /** Starts the server again over the same data, on the same port. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export async function startS2Fixture(): Promise<S2Fixture> {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-s2-lite-'));
  let server = await startS2Lite({ directory });
  const endpoints = { account: server.url, basin: server.url };
  const client = new S2({ accessToken: 'ignored', endpoints });
  return {
    get server() {
      return server;
    },
    client,
    basin: client.basin(BASIN),
    async restart() {
      server = await startS2Lite({ directory, port: server.port });
    },
    async stop() {
      await server.stop();
      rmSync(directory, { recursive: true });
    },
  };
}

/** A store on that endpoint; everything is kept for ever unless told otherwise. */
export function openStoreAt(
  url: string,
  { clock = systemClock, ...options }: Partial<S2StoreOptions> & { clock?: typeof systemClock } = {},
): Promise<StreamStore> {
  return openS2Store(
    { clock, log: createLog('silent') },
    {
      basin: BASIN,
      accessToken: 'ignored',
      accountEndpoint: url,
      basinEndpoint: url,
      retentionFor: () => 'forever',
      ...options,
    },
  );
}
