/**
 * The part of the contract that is about reading, trimming and listing. Run by `stream-store.contract.ts`
 * against every store.
 */
import * as fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import type { Stream } from '../../src/streams/stream-store.ts';
import { readAll, readSeqNums, text } from './store-reading.ts';
import type { StoreUnderTest } from './stream-store.contract.ts';

/** Trimming may happen a little later: for S2 about a second. */
const SOON = { timeout: 15_000, interval: 100 };

export function describeReadContract(under: () => StoreUnderTest, fresh: () => Stream): void {
  describeReading(fresh);
  describeTrimming(fresh);
  describeListing(under);
  describeMixture(fresh);
}

function describeReading(fresh: () => Stream): void {
  test('a read begins where it is told, and says where the next one goes on', async () => {
    const stream = fresh();
    await stream.append(Array.from({ length: 10 }, (_, i) => text(`${i}`)));
    const first = await stream.read({ fromSeqNum: 3, maxRecords: 4 });
    expect([first.records.map((record) => record.seqNum), first.nextSeqNum]).toEqual([[3, 4, 5, 6], 7]);
    const second = await stream.read({ fromSeqNum: first.nextSeqNum, maxRecords: 4 });
    expect([second.records.map((record) => record.seqNum), second.nextSeqNum]).toEqual([[7, 8, 9], 10]);
    expect(await stream.read({ fromSeqNum: 10 })).toEqual({ records: [], nextSeqNum: 10 });
    expect(await stream.read({ fromSeqNum: 99 })).toEqual({ records: [], nextSeqNum: 99 });
  });

  test('a batch of a read stays near 1 MiB, and a record of any size comes through', async () => {
    const stream = fresh();
    const big = new Uint8Array(700 * 1024);
    for (let i = 0; i < 3; i++) await stream.append([{ body: big }]);
    const { records, nextSeqNum } = await stream.read({ fromSeqNum: 0 });
    expect([records.length, nextSeqNum]).toEqual([1, 1]);
    expect(await readSeqNums(stream)).toEqual([0, 1, 2]);
  });

  test('numbers that commands used up are skipped, and are not missing', async () => {
    const stream = fresh();
    await stream.append([text('a')]);
    await stream.fence('one');
    await stream.fence('two');
    expect(await stream.read({ fromSeqNum: 1 })).toEqual({ records: [], nextSeqNum: 3 });
    await stream.append([text('b')]);
    const { records, nextSeqNum, missing } = await stream.read({ fromSeqNum: 1 });
    expect([records.map((record) => record.seqNum), nextSeqNum, missing]).toEqual([[3], 4, undefined]);
  });
}

function describeTrimming(fresh: () => Stream): void {
  test('trimmed records are gone, the jump is reported as missing, and the tail stays', async () => {
    const stream = fresh();
    await stream.append(Array.from({ length: 5 }, (_, i) => text(`${i}`)));
    await stream.trim(3);
    await vi.waitFor(async () => {
      const { records, nextSeqNum, missing } = await stream.read({ fromSeqNum: 1 });
      expect(missing).toEqual({ fromSeqNum: 1, toSeqNum: 3 });
      expect([records.map((record) => record.seqNum), nextSeqNum]).toEqual([[3, 4], 6]);
    }, SOON);
    expect((await stream.read({ fromSeqNum: 3 })).missing).toBeUndefined();
    expect(await stream.append([text('next')])).toEqual({ startSeqNum: 6, endSeqNum: 7 });
  });

  test('a trim beyond the tail lets go of what is there, not of what comes', async () => {
    const stream = fresh();
    await stream.append([text('a'), text('b')]);
    await stream.trim(1_000);
    await vi.waitFor(async () => {
      const { records, missing } = await stream.read({ fromSeqNum: 0 });
      expect([records, missing?.fromSeqNum]).toEqual([[], 0]);
    }, SOON);
    const { startSeqNum } = await stream.append([text('c')]);
    expect(startSeqNum).toBe(3);
    expect(await readSeqNums(stream, startSeqNum)).toEqual([3]);
  });

  test('numbers that are skipped are used up, and no read shows them', async () => {
    const stream = fresh();
    await stream.skip(1_000, { matchSeqNum: 0 });
    await stream.append([text('a')], { matchSeqNum: 1_000 });
    await stream.skip(3);
    await expect(stream.skip(1, { matchSeqNum: 7 })).rejects.toMatchObject({
      code: 'streams.seq_num_mismatch',
    });
    await expect(stream.skip(1_001)).rejects.toMatchObject({ kind: 'bug' });
    expect(await stream.tail()).toBe(1_004);
    const { records, nextSeqNum, missing } = await stream.read({ fromSeqNum: 0 });
    expect([records.map((record) => record.seqNum), nextSeqNum, missing]).toEqual([
      [1_000],
      1_004,
      undefined,
    ]);
  });

  test('a trim that goes back changes nothing; its conditions hold', async () => {
    const stream = fresh();
    await stream.append(Array.from({ length: 5 }, (_, i) => text(`${i}`)));
    await stream.trim(4);
    await stream.trim(2);
    await vi.waitFor(async () => expect(await readSeqNums(stream)).toEqual([4]), SOON);
    await expect(stream.trim(5, { matchSeqNum: 0 })).rejects.toMatchObject({
      code: 'streams.seq_num_mismatch',
    });
    await expect(stream.trim(5, { fencingToken: 'x' })).rejects.toMatchObject({ code: 'streams.fenced' });
  });
}

function describeListing(under: () => StoreUnderTest): void {
  test('names are listed by prefix in byte order, page by page', async () => {
    const names = ['list', 'list-', 'list/Z', 'list/a', 'list/b', 'list/a/1', 'list/é', 'list/🦆', 'lisu'];
    await Promise.all(
      names.map((name) =>
        under()
          .store.stream(name)
          .append([text('x')]),
      ),
    );
    const expected = ['list/Z', 'list/a', 'list/a/1', 'list/b', 'list/é', 'list/🦆'];
    expect(await under().store.list({ prefix: 'list/' })).toEqual({ names: expected, hasMore: false });
    const first = await under().store.list({ prefix: 'list/', limit: 2 });
    expect(first).toEqual({ names: expected.slice(0, 2), hasMore: true });
    const rest = await under().store.list({ prefix: 'list/', startAfter: 'list/a', limit: 4 });
    expect(rest).toEqual({ names: expected.slice(2), hasMore: false });
    expect((await under().store.list({ prefix: 'list/', startAfter: 'a' })).names).toEqual(expected);
    expect((await under().store.list({ prefix: 'list/', startAfter: 'z' })).names).toEqual([]);
    expect(await under().store.list({ prefix: 'nobody/' })).toEqual({ names: [], hasMore: false });
  });
}

function describeMixture(fresh: () => Stream): void {
  test('any mixture of batches and commands reads back as written', async () => {
    const batch = fc.array(fc.uint8Array({ maxLength: 20 }), { minLength: 1, maxLength: 4 });
    const step = fc.oneof(
      { weight: 4, arbitrary: batch },
      { weight: 1, arbitrary: fc.constant('fence' as const) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 8 }), async (steps) => {
        const stream = fresh();
        const expected: [number, string][] = [];
        let tail = 0;
        for (const bodiesOrFence of steps) {
          if (bodiesOrFence === 'fence') {
            tail = await stream.fence(`token ${tail}`, { matchSeqNum: tail });
            continue;
          }
          for (const [i, body] of bodiesOrFence.entries())
            expected.push([tail + i, Buffer.from(body).toString('hex')]);
          tail = (
            await stream.append(
              bodiesOrFence.map((body) => ({ body })),
              { matchSeqNum: tail },
            )
          ).endSeqNum;
        }
        const read = await readAll(stream);
        expect(read.map(({ seqNum, body }) => [seqNum, Buffer.from(body).toString('hex')])).toEqual(expected);
        expect(await stream.tail()).toBe(tail);
      }),
      { numRuns: 25 },
    );
  });
}
