/**
 * For tests of the S2 store in a network that fails: a real `s2 lite` for the file, and for each test a proxy in
 * front of it with a store behind that. What is opened ends with the test.
 */
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest';
import type { Stream, StreamStore } from '../../src/streams/stream-store.ts';
import { startFaultyProxy } from './faulty-proxy.ts';
import type { Fate, FaultyProxy } from './faulty-proxy.ts';
import { openStoreAt, startS2Fixture } from './s2-fixture.ts';
import type { S2Fixture } from './s2-fixture.ts';
import { text } from './store-reading.ts';

export interface S2BehindProxy {
  readonly fixture: S2Fixture;
  readonly proxy: FaultyProxy;
  /** Sees the server through the proxy. */
  readonly store: StreamStore;
  /** A name that no other test of the file has. */
  freshName(): string;
  openStore(url: string, options?: Parameters<typeof openStoreAt>[1]): Promise<StreamStore>;
  /** A stream with one record, `first`, seen through the proxy and past it. */
  freshStream(through?: StreamStore): Promise<{ stream: Stream; direct: Stream }>;
  /** Each fate befalls one append, in order; the rest goes through. */
  appendsMeet(...fates: Fate[]): void;
  appendsSent(): number;
}

/** To be called in a `describe`. */
export function useS2BehindProxy(): S2BehindProxy {
  let fixture: S2Fixture;
  let proxy: FaultyProxy;
  let store: StreamStore;
  let names = 0;
  const stores: StreamStore[] = [];

  const openStore: S2BehindProxy['openStore'] = async (url, options) => {
    const opened = await openStoreAt(url, options);
    stores.push(opened);
    return opened;
  };
  beforeAll(async () => {
    fixture = await startS2Fixture();
  }, 60_000);
  beforeEach(async () => {
    proxy = await startFaultyProxy(fixture.server.url);
    store = await openStore(proxy.url);
  });
  afterEach(async () => {
    for (const opened of stores.splice(0)) await opened.close();
    await proxy.close();
  });
  afterAll(() => fixture.stop(), 60_000);

  const freshName = (): string => `faults/${++names}`;
  return {
    get fixture() {
      return fixture;
    },
    get proxy() {
      return proxy;
    },
    get store() {
      return store;
    },
    freshName,
    openStore,
    async freshStream(through = store) {
      const name = freshName();
      const direct = (await openStore(fixture.server.url)).stream(name);
      const stream = through.stream(name);
      await stream.append([text('first')]);
      return { stream, direct };
    },
    appendsMeet(...fates) {
      proxy.decide((request) => (request.isAppend ? (fates.shift() ?? 'forward') : 'forward'));
    },
    appendsSent: () => proxy.requests.filter((request) => request.isAppend).length,
  };
}
