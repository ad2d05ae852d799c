/** Backup and restore of streams as they come to be: with fences, trims, expired beginnings, bytes that are no text. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { backup, restore } from '../../src/admin/backup/backup.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { createFormatGuard } from '../../src/streams/format.ts';
import { readProgress } from '../../src/streams/journal.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { s2Binary } from '../streams/s2-lite.ts';
import { openStoreAt, startS2Fixture } from '../streams/s2-fixture.ts';
import type { S2Fixture } from '../streams/s2-fixture.ts';

const { signal } = new AbortController();
const log = createLog('silent');
const release = '1.0.0';
let directory: string;
let path: string;
const stores: StreamStore[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'millrace-backup-'));
  path = join(directory, 'backup.gz');
});
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  rmSync(directory, { recursive: true });
});

const deps = (store: StreamStore) => ({ store, clock, print: () => {} });
const save = (store: StreamStore) => backup(deps(store), { path, release }, signal);
const putBack = (store: StreamStore) => restore(deps(store), { path, release }, signal);

const request = (key: string) => jsonRecord({ kind: 'request', version: 1 }, key);
const outcome = (seqNum: number, fields: Record<string, unknown> = {}) =>
  jsonRecord({
    kind: 'outcome',
    version: 1,
    seqNum,
    key: `key-${seqNum}`,
    outcome: 'done',
    attempts: 1,
    reason: null,
    error: null,
    at: '2026-01-01T00:00:00Z',
    durationMs: 1,
    facts: {},
    ...fields,
  });

/** Streams with all that can make numbers and bytes hard to keep. */
async function fill(store: StreamStore): Promise<void> {
  const events = store.stream('events');
  for (let batch = 0; batch < 5; batch++)
    await events.append(Array.from({ length: 500 }, (_, i) => ({ body: `event ${batch * 500 + i}` })));
  await events.trim(2_000);
  await events.append([
    {
      body: 'the last',
      headers: [
        ['key', 'ä\u0000b'],
        ['key', 'twice'],
      ],
    },
  ]);
  await store
    .stream('mail/1')
    .append([{ body: Buffer.from([0xff, 0, 0xfe, 0x80]) }, { body: '' }, { body: 'x'.repeat(900_000) }]);
  const runs = store.stream('runs/box');
  await runs.fence('first');
  await runs.append([outcome(0)]);
  await runs.fence('second');
  await runs.fence('third');
  await runs.append([outcome(1)]);
  await runs.fence('last');
  await store.stream('inbox/box').append([{ body: 'only' }]);
  await store.stream('inbox/gone').append([{ body: 'a' }, { body: 'b' }]);
  await store.stream('inbox/gone').trim(2);
  await store.stream('members').append([{ body: 'a heartbeat' }]);
}

async function contents(store: StreamStore): Promise<unknown> {
  const { names } = await store.list({ prefix: '' });
  const found = [];
  for (const name of names.filter((one) => !['members', 'meta'].includes(one))) {
    const stream = store.stream(name);
    const records = [];
    for (let next = 0, tail = await stream.tail(); next < tail;) {
      const batch = await stream.read({ fromSeqNum: next });
      records.push(
        ...batch.records.map(({ body, ...rest }) => ({
          ...rest,
          body: Buffer.from(body).toString('base64'),
        })),
      );
      if (batch.nextSeqNum === next) break;
      next = batch.nextSeqNum;
    }
    found.push({ name, tail: await stream.tail(), records });
  }
  return found;
}

function backupSuite(open: () => Promise<StreamStore>): void {
  const opened = async (): Promise<StreamStore> => {
    const store = await open();
    stores.push(store);
    return store;
  };

  it('puts back every record with its number, time, headers and bytes, and every tail', async () => {
    const before = await opened();
    await fill(before);
    await save(before);
    const after = await opened();
    await putBack(after);
    expect(await contents(after)).toEqual(await contents(before));
  });

  it('marks what had not gone out by the backup as in doubt since then', async () => {
    const before = await opened();
    await before.stream('outbox').append([0, 1, 2, 3].map((number) => request(`key-${number}`)));
    const aside = {
      seqNum: 2,
      key: 'key-2',
      lane: null,
      attempts: 0,
      untilMs: 1,
      holdsLane: false,
      doubtSinceMs: null,
    };
    await before
      .stream('sent')
      .append([outcome(0), outcome(2, { outcome: 'deferred', reason: 'outbox.scheduled', aside })]);
    await save(before);
    const after = await opened();
    const { at, inDoubt } = await putBack(after);
    const progress = await readProgress(after.stream('sent'), signal);
    expect(inDoubt).toBe(3);
    expect([...progress.doubts]).toEqual([1, 3].map((seqNum) => [seqNum, Date.parse(at)]));
    expect(progress.aside.get(2)?.doubtSinceMs).toBe(Date.parse(at));
    expect(progress.settled).toEqual(new Set([0]));
  });

  // S2 lets go of what is trimmed a little later: what stood there until then was read as a damaged journal.
  it('puts back a journal without its beginning, also where nothing is let go of yet', async () => {
    const before = await opened();
    const sent = before.stream('sent');
    await sent.append(Array.from({ length: 200 }, (_, seqNum) => outcome(seqNum)));
    await sent.trim(200);
    await sent.append([outcome(200)]);
    await save(before);
    const after = await opened();
    const lagging: StreamStore = {
      ...after,
      stream(name) {
        const stream = after.stream(name);
        return { ...stream, trim: (_beforeSeqNum, options) => stream.trim(0, options) };
      },
    };
    await putBack(lagging);
    const { settled } = await readProgress(after.stream('sent'), signal);
    expect(settled).toEqual(new Set([200]));
    expect(await after.stream('sent').tail()).toBe(202);
  });

  it('leaves out the streams of mails that have expired', async () => {
    const before = await opened();
    const names = ['mail/1', 'request/box/1/0', 'state/box/thread', 'state/box', 'mail/2'];
    for (const name of names) await before.stream(name).append([{ body: 'a' }, { body: 'b' }]);
    for (const name of names.slice(0, 4)) await before.stream(name).trim(2);
    await before.stream('mail/2').trim(1);
    const left = async (name: string) => (await before.stream(name).read({ fromSeqNum: 0 })).records.length;
    await expect.poll(() => Promise.all(names.map(left))).toEqual([0, 0, 0, 0, 1]);
    await save(before);
    const after = await opened();
    await putBack(after);
    expect(await contents(after)).toMatchObject([
      { name: 'mail/2', tail: 3, records: [{ seqNum: 1 }] },
      { name: 'state/box', tail: 3, records: [] },
    ]);
  });

  it('refuses a store that is not empty, and changes nothing', async () => {
    const store = await opened();
    await store.stream('events').append([{ body: 'a' }]);
    await save(store);
    await expect(putBack(store)).rejects.toMatchObject({ code: 'restore.not_empty' });
    expect(await store.stream('events').tail()).toBe(1);
  });

  it('leaves streams on which no daemon starts where it is broken off', async () => {
    const before = await opened();
    await fill(before);
    await save(before);
    const after = await opened();
    const stop = new AbortController();
    let streams = 0;
    const breaking: StreamStore = {
      ...after,
      stream(name) {
        if (++streams > 4) stop.abort();
        return after.stream(name);
      },
    };
    await expect(restore(deps(breaking), { path, release }, stop.signal)).rejects.toBeInstanceOf(Error);
    const guard = createFormatGuard({ store: after, clock, log }, { release });
    await expect(guard.check()).rejects.toMatchObject({ code: 'streams.half_restored' });
    await expect(putBack(after)).rejects.toMatchObject({ code: 'restore.not_empty' });
  });

  it('is taken by a daemon when it is done', async () => {
    const before = await opened();
    await before.stream('events').append([{ body: '{}' }]);
    await save(before);
    const after = await opened();
    await putBack(after);
    const guard = createFormatGuard({ store: after, clock, log }, { release });
    await expect(guard.check()).resolves.toBeUndefined();
  });
}

describe('on the local store', () => {
  let folders = 0;
  const open = () =>
    openLocalStore(
      { clock, log },
      { directory: join(directory, `store-${folders++}`), retentionFor: () => 'forever' },
    );
  backupSuite(open);

  it.each<[string, (bytes: Buffer) => Buffer, string]>([
    ['is cut', (bytes) => bytes.subarray(0, bytes.length - 100), 'backup.damaged'],
    [
      'has lost its end',
      (bytes) => gzipSync(gunzipSync(bytes).toString().split('\n').slice(0, -2).join('\n')),
      'backup.damaged',
    ],
    [
      'was changed',
      (bytes) => gzipSync(gunzipSync(bytes).toString().replace('event 2001', 'event 2002')),
      'backup.damaged',
    ],
    ['is something else', () => Buffer.from('something else'), 'backup.damaged'],
    [
      'is of a newer version',
      (bytes) => gzipSync(gunzipSync(bytes).toString().replace('"version":1', '"version":2')),
      'backup.newer_version',
    ],
  ])('refuses a file that %s', async (_what, damage, code) => {
    const store = await open();
    stores.push(store);
    await fill(store);
    await save(store);
    writeFileSync(path, damage(readFileSync(path)));
    const empty = await open();
    stores.push(empty);
    await expect(putBack(empty)).rejects.toMatchObject({ code });
    expect((await empty.list({ prefix: '' })).names).toEqual([]);
  });

  it('is for its owner alone', async () => {
    const store = await open();
    stores.push(store);
    await fill(store);
    await save(store);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });
});

describe.skipIf(s2Binary() === null)('on s2 lite', () => {
  let fixture: S2Fixture;
  let basins = 0;
  beforeAll(async () => {
    fixture = await startS2Fixture();
  });
  afterAll(() => fixture.stop());
  backupSuite(() => openStoreAt(fixture.server.url, { basin: `backup-test-${basins++}` }));

  it('takes what the local store was', async () => {
    const before = await openLocalStore({ clock, log }, { directory, retentionFor: () => 'forever' });
    stores.push(before);
    await fill(before);
    await save(before);
    const after = await openStoreAt(fixture.server.url, { basin: `backup-test-${basins++}` });
    stores.push(after);
    await putBack(after);
    expect(await contents(after)).toEqual(await contents(before));
  });
});
