/**
 * The S2 store against a real `s2 lite`: the contract, basin and retention, a server that is killed and started
 * again, and the end of the process. Faults of the network are in `s2-faults.test.ts`.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { hasCode } from '../../src/platform/errors.ts';
import type { RetentionFor, StreamStore } from '../../src/streams/stream-store.ts';
import { startFollowing } from './follow.contract.ts';
import { openStoreAt, startS2Fixture } from './s2-fixture.ts';
import type { S2Fixture } from './s2-fixture.ts';
import { s2Binary } from './s2-lite.ts';
import { readBodies, text } from './store-reading.ts';
import { describeStreamStoreContract } from './stream-store.contract.ts';

describe.skipIf(!s2Binary())('with s2 lite', { timeout: 60_000 }, () => {
  let fixture: S2Fixture;
  const stores: StreamStore[] = [];

  beforeAll(async () => {
    fixture = await startS2Fixture();
  }, 60_000);
  afterEach(async () => {
    for (const store of stores.splice(0)) await store.close();
  });
  afterAll(() => fixture.stop(), 60_000);

  async function openStore(options: Parameters<typeof openStoreAt>[1] = {}): Promise<StreamStore> {
    const store = await openStoreAt(fixture.server.url, options);
    stores.push(store);
    return store;
  }

  describeStreamStoreContract('s2', async () => {
    let store = await openStoreAt(fixture.server.url);
    return {
      get store() {
        return store;
      },
      async reopen() {
        await store.close();
        store = await openStoreAt(fixture.server.url);
      },
      dispose: () => store.close(),
    };
  });

  describe('retention', () => {
    const retentionOf = async (name: string): Promise<unknown> =>
      (await fixture.basin.streams.getConfig({ stream: name })).retentionPolicy;

    test('is set on every stream, before its first record', async () => {
      const retentionFor: RetentionFor = (name) => (name === 'retention/journal' ? 'forever' : 7_776_000);
      const store = await openStore({ retentionFor });
      await store.stream('retention/journal').append([text('a')]);
      await store.stream('retention/mail').append([text('a')]);
      await store.stream('retention/fenced').fence('one');
      await store.stream('retention/first').append([text('a')], { matchSeqNum: 0 });
      expect(await retentionOf('retention/journal')).toEqual({ infinite: {} });
      expect(await retentionOf('retention/mail')).toEqual({ ageSecs: 7_776_000 });
      expect(await retentionOf('retention/fenced')).toEqual({ ageSecs: 7_776_000 });
      expect(await retentionOf('retention/first')).toEqual({ ageSecs: 7_776_000 });
    });

    test('is changed where a stream has another, and nothing else is', async () => {
      await (await openStore()).stream('warm-up').append([text('the basin is there')]);
      await fixture.basin.streams.create({
        stream: 'retention/by-hand',
        config: { storageClass: 'standard' },
      });
      const days = (count: number): Promise<StreamStore> => openStore({ retentionFor: () => count * 86_400 });
      await (await days(30)).stream('retention/by-hand').append([text('a')]);
      expect(await retentionOf('retention/by-hand')).toEqual({ ageSecs: 30 * 86_400 });
      await (await days(60)).stream('retention/by-hand').append([text('b')]);
      expect(await fixture.basin.streams.getConfig({ stream: 'retention/by-hand' })).toMatchObject({
        retentionPolicy: { ageSecs: 60 * 86_400 },
        storageClass: 'standard',
      });
    });
  });

  describe('the basin', () => {
    test('is created where it is missing', async () => {
      const store = await openStore({ basin: 'millrace-created' });
      await store.stream('a').append([text('1')]);
      expect(await readBodies(store.stream('a'))).toEqual(['1']);
    });

    test('is not created where that is not wanted', async () => {
      await expect(openStore({ basin: 'millrace-absent', createBasin: false })).rejects.toMatchObject({
        code: 'streams.no_basin',
        kind: 'invalid',
      });
    });

    test.each(['short', 'Upper-Case', '-hyphen-first', 'hyphen-last-', 'x'.repeat(49)])(
      'is not called %s',
      async (basin) => {
        await expect(openStore({ basin })).rejects.toMatchObject({ code: 'streams.invalid_name' });
      },
    );
  });

  test('a server that is killed and comes back: what it acknowledged is there, followers go on', async () => {
    const store = await openStore();
    const stream = store.stream('restart');
    const following = startFollowing(stream);
    const acknowledged: string[] = [];
    let isWriting = true;
    const writing = (async () => {
      for (let batch = 0; isWriting; batch++) {
        const records = [`${batch}/0`, `${batch}/1`].map(text);
        try {
          await stream.append(records);
          acknowledged.push(`${batch}/0`, `${batch}/1`);
        } catch (error) {
          if (!hasCode(error, 'streams.unavailable') && !hasCode(error, 'streams.append_ambiguous'))
            throw error;
        }
      }
    })();
    for (let restarts = 1; restarts <= 2; restarts++) {
      await following.saw(20 * restarts);
      await fixture.server.kill('SIGKILL');
      await fixture.restart();
    }
    await following.saw(100);
    isWriting = false;
    await writing;
    const read = await readBodies(stream);
    await following.saw(read.length);
    await following.stop();
    expect(following.bodies).toEqual(read);
    expect(acknowledged.filter((body) => !read.includes(body))).toEqual([]);
    expect(read.filter((body) => body.endsWith('/1')).length * 2).toBe(read.length);
  });

  test('a store that opens while the server is away works as soon as it is back', async () => {
    await fixture.server.kill('SIGKILL');
    const store = await openStore({ basin: 'millrace-later' });
    const following = startFollowing(store.stream('a'));
    await expect(store.stream('a').append([text('1')])).rejects.toMatchObject({
      code: 'streams.unavailable',
      kind: 'transient',
    });
    await expect(store.stream('a').read({ fromSeqNum: 0 })).rejects.toMatchObject({ kind: 'transient' });
    await expect(store.list({ prefix: '' })).rejects.toMatchObject({ kind: 'transient' });
    await fixture.restart();
    // Who reads before anybody has written finds the basin, too.
    expect(await store.stream('a').tail()).toBe(0);
    expect((await store.list({ prefix: '' })).names).toEqual([]);
    await store.stream('a').append([text('2')]);
    await following.saw(1);
    await following.stop();
    expect(following.bodies).toEqual(['2']);
  });

  test('after close nothing keeps the process alive', async () => {
    const script = fileURLToPath(new URL('s2-short-life.ts', import.meta.url));
    const child = spawn(process.execPath, [script, fixture.server.url], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const output: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
    const [code] = (await once(child, 'close')) as [number | null];
    expect([code, Buffer.concat(output).toString()]).toEqual([0, 'followed\nclosed\n']);
  });
});
