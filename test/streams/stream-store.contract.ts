/**
 * The contract of `src/streams/stream-store.ts`, as one suite that every store has to pass. A store is opened
 * once a suite; each test works on streams of its own. What only one store can show (a killed writer, a lost
 * acknowledgement) stands in that store's own test file; reading and following have a file each beside this one.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { limits, meteredBytes } from '../../src/streams/stream-store.ts';
import type { NewRecord, Stream, StreamStore } from '../../src/streams/stream-store.ts';
import { describeFollowContract } from './follow.contract.ts';
import { describeReadContract } from './read.contract.ts';
import { readBodies, readSeqNums, text } from './store-reading.ts';

export interface StoreUnderTest {
  /** The store as it is now; another object after `reopen`. */
  readonly store: StreamStore;
  /** Closes the store and opens it again over what it kept. */
  reopen(): Promise<void>;
  dispose(): Promise<void>;
}

export function describeStreamStoreContract(storeName: string, open: () => Promise<StoreUnderTest>): void {
  describe(`the contract of a stream store: ${storeName}`, { timeout: 30_000 }, () => {
    let current: StoreUnderTest | undefined;
    let streams = 0;
    const under = (): StoreUnderTest => {
      if (!current) throw new Error('the store is not open');
      return current;
    };
    const freshName = (): string => `contract/${++streams}`;
    const fresh = (): Stream => under().store.stream(freshName());

    beforeAll(async () => {
      current = await open();
    }, 60_000);
    afterAll(async () => current?.dispose(), 60_000);

    describe('appending', () => {
      describeAppending(fresh);
    });
    describe('sizes and names', () => {
      describeLimits(under, fresh);
    });
    describe('conditions', () => {
      describeConditions(fresh);
    });
    describe('reading and trimming', () => {
      describeReadContract(under, fresh);
    });
    describe('following', () => {
      describeFollowContract(under, freshName);
    });
    test('what was acknowledged, and the fencing token, outlive a restart', async () => {
      const name = freshName();
      await under()
        .store.stream(name)
        .append([text('a'), text('b')]);
      await under().store.stream(name).fence('owner');
      await under().reopen();
      const stream = under().store.stream(name);
      expect(await readBodies(stream)).toEqual(['a', 'b']);
      expect(await stream.tail()).toBe(3);
      await expect(stream.append([text('c')], { fencingToken: 'thief' })).rejects.toMatchObject(FENCED);
    });
  });
}

const mismatch = (expectedSeqNum: number): object => ({
  code: 'streams.seq_num_mismatch',
  kind: 'permanent',
  expectedSeqNum,
});
const FENCED = { code: 'streams.fenced', kind: 'permanent' };

function describeAppending(fresh: () => Stream): void {
  test('a stream that does not exist is empty', async () => {
    const stream = fresh();
    expect(await stream.tail()).toBe(0);
    expect(await stream.read({ fromSeqNum: 0 })).toEqual({ records: [], nextSeqNum: 0 });
    expect(await stream.read({ fromSeqNum: 7 })).toEqual({ records: [], nextSeqNum: 7 });
  });

  test('numbers start at 0, have no gap, and are read at once in the order of the batch', async () => {
    const stream = fresh();
    expect(await stream.append([text('a'), text('b')])).toEqual({ startSeqNum: 0, endSeqNum: 2 });
    expect(await stream.append([text('c')])).toEqual({ startSeqNum: 2, endSeqNum: 3 });
    const { records, nextSeqNum, missing } = await stream.read({ fromSeqNum: 0 });
    expect(records.map((record) => [record.seqNum, Buffer.from(record.body).toString()])).toEqual([
      [0, 'a'],
      [1, 'b'],
      [2, 'c'],
    ]);
    expect([nextSeqNum, missing, await stream.tail()]).toEqual([3, undefined, 3]);
  });

  test('headers and bodies come back byte for byte', async () => {
    const stream = fresh();
    const everyByte = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    const records: NewRecord[] = [
      { body: everyByte },
      { body: '' },
      { body: new Uint8Array() },
      { body: 'nul \0, ß, 🦆', headers: [['key', 'value']] },
      { body: new Uint8Array([0xff, 0xfe, 0x00]), headers: [['x', '']] },
      {
        body: 'x',
        headers: [
          ['same', '1'],
          ['same', '2'],
          ['a b:c', 'nul \0, ß, 🦆, "\\\r\n'],
        ],
      },
      { body: '\ud800', headers: [['lone', '\ud800']] },
    ];
    await stream.append(records);
    const read = (await stream.read({ fromSeqNum: 0 })).records;
    expect(read.map((record) => Buffer.from(record.body).toString('hex'))).toEqual(
      records.map(({ body }) => Buffer.from(body as string).toString('hex')),
    );
    expect(read.map((record) => record.headers)).toEqual(
      records.map(({ headers }) => (headers ?? []).map(([name, value]) => [name, value.toWellFormed()])),
    );
  });

  test('timestamps never go back', async () => {
    const stream = fresh();
    for (let i = 0; i < 5; i++) await stream.append([text('x')]);
    const times = (await stream.read({ fromSeqNum: 0 })).records.map((record) => record.timestampMs);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(times.every(Number.isSafeInteger)).toBe(true);
  });

  test('many appends at once: nothing lost, nothing twice, every batch in one piece', async () => {
    const stream = fresh();
    const batches = Array.from({ length: 60 }, (_, batch) =>
      Array.from({ length: 1 + (batch % 5) }, (_item, i) => text(`${batch}.${i}`)),
    );
    const acks = await Promise.all(batches.map((batch) => stream.append(batch)));
    const read = await readBodies(stream);
    expect(read).toHaveLength(batches.flat().length);
    for (const [i, batch] of batches.entries()) {
      const { startSeqNum, endSeqNum } = acks[i] ?? { startSeqNum: -1, endSeqNum: -1 };
      expect(read.slice(startSeqNum, endSeqNum)).toEqual(batch.map((record) => record.body));
    }
  });

  test('a signal that is aborted before the append leaves nothing behind', async () => {
    const stream = fresh();
    const reason = new Error('changed my mind');
    await expect(stream.append([text('a')], { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(await stream.tail()).toBe(0);
  });
}

function describeLimits(under: () => StoreUnderTest, fresh: () => Stream): void {
  const TOO_LARGE = { code: 'streams.too_large', kind: 'invalid' };
  const INVALID_NAME = { code: 'streams.invalid_name', kind: 'invalid' };

  test('a batch of exactly 1 MiB as metered is taken, one byte more is refused', async () => {
    const stream = fresh();
    const headers = [['name', 'välue']] as const;
    const roomBytes = limits.batchBytes - meteredBytes({ headers, body: '' });
    const body = new Uint8Array(roomBytes).fill(7);
    await stream.append([{ headers, body }]);
    await expect(stream.append([{ headers, body: new Uint8Array(roomBytes + 1) }])).rejects.toMatchObject(
      TOO_LARGE,
    );
    const { records, nextSeqNum } = await stream.read({ fromSeqNum: 0 });
    expect(nextSeqNum).toBe(1);
    expect(Buffer.compare(Buffer.from(records[0]?.body ?? []), Buffer.from(body))).toBe(0);
  });

  test('a batch of 1000 records is taken, 1001 and 0 are refused', async () => {
    const stream = fresh();
    const records = Array.from({ length: limits.batchRecords }, (_, i) => text(`${i}`));
    expect(await stream.append(records)).toEqual({ startSeqNum: 0, endSeqNum: 1000 });
    await expect(stream.append([...records, text('x')])).rejects.toMatchObject(TOO_LARGE);
    await expect(stream.append([])).rejects.toMatchObject({ kind: 'bug' });
    expect(await stream.tail()).toBe(1000);
  });

  test.each(['', '.', '..', 'a\0b', 'x'.repeat(513), `${'ü'.repeat(256)}x`, '\ud800'])(
    'no stream is called %j',
    (name) => {
      expect(() => under().store.stream(name)).toThrow(expect.objectContaining(INVALID_NAME));
    },
  );

  test.each([
    'x'.repeat(512),
    'ü/é',
    'limits/a b?c#d%2e',
    'limits//a',
    'limits/../a',
    '/limits',
    'limits/',
    '__proto__',
  ])('a stream may be called %j', async (name) => {
    const stream = under().store.stream(name);
    await stream.append([text('a')]);
    expect(await readBodies(stream)).toEqual(['a']);
    expect((await under().store.list({ prefix: name })).names).toContain(name);
  });

  test.each(['', 'ü', 'a\nb', '\0'])('no header is called %j', async (name) => {
    const stream = fresh();
    await expect(stream.append([{ headers: [[name, 'x']], body: '' }])).rejects.toMatchObject(INVALID_NAME);
    expect(await stream.tail()).toBe(0);
  });

  test('a fencing token has 1 to 36 bytes', async () => {
    const stream = fresh();
    await expect(stream.fence('')).rejects.toMatchObject(INVALID_NAME);
    await expect(stream.fence('x'.repeat(37))).rejects.toMatchObject(INVALID_NAME);
    await stream.fence('x'.repeat(36));
    await stream.append([text('a')], { fencingToken: 'x'.repeat(36) });
  });
}

function describeConditions(fresh: () => Stream): void {
  test('matchSeqNum appends when it names the tail, and tells the tail when it does not', async () => {
    const stream = fresh();
    await expect(stream.append([text('x')], { matchSeqNum: 1 })).rejects.toMatchObject(mismatch(0));
    await stream.append([text('a'), text('b')], { matchSeqNum: 0 });
    await expect(stream.append([text('x')], { matchSeqNum: 0 })).rejects.toMatchObject(mismatch(2));
    await expect(stream.append([text('x')], { matchSeqNum: 3 })).rejects.toMatchObject(mismatch(2));
    await stream.append([text('c')], { matchSeqNum: 2 });
    expect(await readBodies(stream)).toEqual(['a', 'b', 'c']);
  });

  test('of many appends that expect the same number exactly one is taken', async () => {
    const stream = fresh();
    const results = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => stream.append([text(`${i}`)], { matchSeqNum: 0 })),
    );
    const taken = results.flatMap((result, i) => (result.status === 'fulfilled' ? [`${i}`] : []));
    expect(taken).toHaveLength(1);
    expect(await readBodies(stream)).toEqual(taken);
  });

  test('a refused append leaves those that arrived with it alone', async () => {
    const stream = fresh();
    await stream.append([text('a')]);
    const [before, refused, after] = await Promise.allSettled([
      stream.append([text('b')]),
      stream.append([text('x')], { matchSeqNum: 0 }),
      stream.append([text('c')]),
    ]);
    expect([before?.status, refused?.status, after?.status]).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect((await readBodies(stream)).toSorted()).toEqual(['a', 'b', 'c']);
  });

  test('a fence refuses other tokens, accepts its own and none, and uses up a number', async () => {
    const stream = fresh();
    await expect(stream.append([text('x')], { fencingToken: 'one' })).rejects.toMatchObject(FENCED);
    expect(await stream.fence('one', { matchSeqNum: 0 })).toBe(1);
    await stream.append([text('a')], { fencingToken: 'one', matchSeqNum: 1 });
    await expect(stream.append([text('x')], { fencingToken: 'two' })).rejects.toMatchObject(FENCED);
    await stream.append([text('b')]);
    expect(await stream.fence('two', { fencingToken: 'one' })).toBe(4);
    await expect(stream.append([text('x')], { fencingToken: 'one' })).rejects.toMatchObject(FENCED);
    await expect(stream.fence('one', { fencingToken: 'one' })).rejects.toMatchObject(FENCED);
    await expect(stream.fence('three', { matchSeqNum: 3 })).rejects.toMatchObject(mismatch(4));
    await stream.append([text('c')], { fencingToken: 'two' });
    expect(await readSeqNums(stream)).toEqual([1, 2, 4]);
  });

  test('a token that does not match is told before a number that does not', async () => {
    const stream = fresh();
    await stream.fence('one');
    await expect(stream.append([text('x')], { fencingToken: 'two', matchSeqNum: 0 })).rejects.toMatchObject(
      FENCED,
    );
  });
}
