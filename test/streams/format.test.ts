/**
 * What a newer release wrote is never misread by this one: fabricated newer records and formats, before the start
 * and under a running stage, on the local store and on a real `s2 lite`.
 */
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import { createFormatGuard } from '../../src/streams/format.ts';
import type { FormatGuard } from '../../src/streams/format.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { recordVersions, streamFormat } from '../../src/streams/record-versions.ts';
import { jsonRecord, parseJsonRecord, rerunRecordSchema } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { s2Binary } from './s2-lite.ts';
import { openStoreAt, startS2Fixture } from './s2-fixture.ts';
import type { S2Fixture } from './s2-fixture.ts';
import { useTemporaryStore } from './temporary-store.ts';

const sources = fileURLToPath(new URL('../../src', import.meta.url));
const log = createLog('silent');
const guardOf = (store: StreamStore, release = 'test'): FormatGuard =>
  createFormatGuard({ store, clock, log }, { release });
const newerFormat = {
  kind: 'format',
  version: 1,
  format: streamFormat.reads + 1,
  release: '9.0.0',
  at: 'now',
};

function guardSuite(open: () => Promise<StreamStore>): void {
  let store: StreamStore;
  let stop: AbortController;
  beforeEach(async () => {
    store = await open();
    stop = new AbortController();
  });
  afterEach(async () => {
    stop.abort();
    await store.close();
  });

  it('states the format on streams that say nothing, once', async () => {
    await guardOf(store, '1.2.3').check();
    await guardOf(store, '1.2.4').check();
    const { records } = await store.stream('meta').read({ fromSeqNum: 0 });
    const bodies = records.map(({ body }) => JSON.parse(Buffer.from(body).toString()) as unknown);
    expect(bodies).toMatchObject([{ kind: 'format', format: streamFormat.writes, release: '1.2.3' }]);
  });

  it('refuses a newer stated format, and changes nothing', async () => {
    await store.stream('meta').append([jsonRecord(newerFormat)]);
    await expect(guardOf(store).check()).rejects.toMatchObject({
      kind: 'invalid',
      code: 'streams.newer_format',
      message: expect.stringContaining('9.0.0') as string,
    });
    expect(await store.stream('meta').tail()).toBe(1);
  });

  it('refuses a record of meta that it cannot read', async () => {
    await store.stream('meta').append([jsonRecord({ kind: 'something-else', version: 1 })]);
    await expect(guardOf(store).check()).rejects.toMatchObject({ code: 'streams.newer_format' });
  });

  it.each([
    ['inbox/reverser', 'email'],
    ['inbox/unrouted', 'email'],
    ['runs/reverser', 'outcome'],
    ['received', 'checkpoint'],
    ['sent', 'attempt'],
    ['outbox', 'request'],
    ['tools', 'tools'],
    ['members', 'member'],
  ])('refuses to start over a newer record on %s (%s), also behind a fence', async (name, kind) => {
    await store.stream(name).append([jsonRecord({ kind, version: 2, novelty: true })]);
    await store.stream(name).fence('somebody');
    await expect(guardOf(store).check()).rejects.toMatchObject({
      code: 'streams.newer_format',
      message: expect.stringContaining(name) as string,
    });
    expect(await store.stream('meta').tail()).toBe(0);
  });

  it('stops a daemon that runs when a newer release comes to its streams', async () => {
    const guard = guardOf(store);
    await guard.check();
    const running = guard.service.run(stop.signal);
    await store.stream('meta').append([jsonRecord(newerFormat)]);
    await expect(running).rejects.toMatchObject({ code: 'streams.newer_format' });
  });

  it('stops a stage that meets a newer record, which is neither settled nor parked', async () => {
    const source = store.stream('reruns');
    const stage = createStage(
      { store, clock, log },
      {
        name: 'test',
        source: 'reruns',
        journal: 'journal',
        concurrency: 1,
        async handle(record) {
          parseJsonRecord(rerunRecordSchema, record);
          return { kind: 'done' };
        },
        backoff: { baseMs: 1, maxMs: 1 },
        maxAttempts: 1,
      },
    );
    await source.append([jsonRecord({ kind: 'rerun', version: 2 })]);
    await expect(stage.run(stop.signal)).rejects.toMatchObject({
      kind: 'bug',
      code: 'records.newer_version',
    });
    const { records } = await store.stream('journal').read({ fromSeqNum: 0 });
    expect(records.map(({ body }) => Buffer.from(body).toString()).join()).not.toContain('outcome');
  });
}

describe('on the local store', () => {
  let directory: string;
  beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'millrace-format-'))));
  afterEach(() => rmSync(directory, { recursive: true }));
  guardSuite(() => openLocalStore({ clock, log }, { directory, retentionFor: () => 'forever' }));
});

describe.skipIf(s2Binary() === null)('on s2 lite', () => {
  let fixture: S2Fixture;
  let basins = 0;
  beforeAll(async () => {
    fixture = await startS2Fixture();
  });
  afterAll(() => fixture.stop());
  guardSuite(() => openStoreAt(fixture.server.url, { basin: `format-test-${basins++}` }));
});

describe('where the store is out of reach at the start', () => {
  const temporaryStore = useTemporaryStore();

  it('holds services back until it could be looked at', async () => {
    const store = temporaryStore();
    let isDown = true;
    const meta = store.stream('meta');
    const unreachable: StreamStore = {
      ...store,
      stream: (name) => ({
        ...store.stream(name),
        async read(options) {
          if (isDown) throw new MillraceError('transient', 'streams.unavailable', 'down');
          return meta.read(options);
        },
      }),
    };
    const guard = guardOf(unreachable);
    await expect(guard.check()).rejects.toMatchObject({ kind: 'transient' });
    let hasBegun = false;
    const work = guard.behind({ name: 'work', run: async () => void (hasBegun = true) });
    const begun = work.run(new AbortController().signal);
    await new Promise((resolve) => setImmediate(resolve));
    expect(hasBegun).toBe(false);
    isDown = false;
    await guard.check();
    await begun;
    expect(hasBegun).toBe(true);
  });
});

it('the table of versions is in step with every record that is written or read', () => {
  const written = new Map<string, number>();
  for (const path of globSync(`${sources}/**/*.ts`))
    for (const [, kind, version] of readFileSync(path, 'utf8').matchAll(
      /kind: (?:z\.literal\()?'([a-z-]+)'\)?(?: as const)?,\s+version: (?:z\.literal\()?(\d+)/g,
    ))
      written.set(kind!, Math.max(Number(version), written.get(kind!) ?? 0));
  expect(Object.fromEntries([...written].toSorted())).toEqual(
    Object.fromEntries([...recordVersions].toSorted()),
  );
});
