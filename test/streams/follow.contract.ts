/**
 * The part of the contract that is about following: what is there, then what arrives, each record exactly
 * once, until the signal. Run by `stream-store.contract.ts` against every store.
 */
import { expect, test, vi } from 'vitest';
import type { ReadBatch, Stream } from '../../src/streams/stream-store.ts';
import { text } from './store-reading.ts';
import type { StoreUnderTest } from './stream-store.contract.ts';

/** A follower that runs until it is stopped, and what it has seen so far. */
export interface Following {
  readonly bodies: readonly string[];
  readonly seqNums: readonly number[];
  readonly batches: readonly ReadBatch[];
  /** Aborts it and resolves when it has returned; rejects with what it threw. */
  stop(): Promise<void>;
  /** Resolves when that many records were seen. */
  saw(records: number): Promise<void>;
}

export function startFollowing(stream: Stream, fromSeqNum = 0): Following {
  const batches: ReadBatch[] = [];
  const seqNums: number[] = [];
  const bodies: string[] = [];
  const stopping = new AbortController();
  const done = (async () => {
    for await (const batch of stream.follow({ fromSeqNum, signal: stopping.signal })) {
      batches.push(batch);
      seqNums.push(...batch.records.map((record) => record.seqNum));
      bodies.push(...batch.records.map((record) => Buffer.from(record.body).toString()));
    }
  })();
  // Whoever stops it sees the error; until then it must not count as unhandled.
  done.catch(() => {});
  return {
    batches,
    seqNums,
    bodies,
    async stop() {
      stopping.abort();
      await done;
    },
    async saw(records) {
      await Promise.race([
        done.then(() => Promise.reject(new Error('the follower ended'))),
        vi.waitFor(() => expect(seqNums.length).toBeGreaterThanOrEqual(records), {
          timeout: 25_000,
          interval: 5,
        }),
      ]);
    },
  };
}

export function describeFollowContract(under: () => StoreUnderTest, freshName: () => string): void {
  const fresh = (): Stream => under().store.stream(freshName());
  describeSeeing(fresh);
  describeGaps(fresh);
  describeEnds(under, fresh);
}

function describeSeeing(fresh: () => Stream): void {
  test('history first, then what arrives, each exactly once', async () => {
    const stream = fresh();
    await stream.append([text('a'), text('b')]);
    const following = startFollowing(stream);
    await following.saw(2);
    for (const body of ['c', 'd', 'e']) await stream.append([text(body)]);
    await following.saw(5);
    await following.stop();
    expect(following.bodies).toEqual(['a', 'b', 'c', 'd', 'e']);
  });

  test('it begins where it is told, at a stream that is not there yet', async () => {
    const stream = fresh();
    const following = startFollowing(stream, 1);
    await stream.append([text('a'), text('b')]);
    await following.saw(1);
    await following.stop();
    expect(following.bodies).toEqual(['b']);
  });

  test('an append wakes an idle follower each time', async () => {
    const stream = fresh();
    await stream.append([text('0')]);
    const following = startFollowing(stream);
    for (let i = 1; i <= 10; i++) {
      await following.saw(i);
      await stream.append([text(`${i}`)]);
    }
    await following.saw(11);
    await following.stop();
    expect(following.seqNums).toEqual(Array.from({ length: 11 }, (_, i) => i));
  });

  test('several followers of one stream each see everything, while many append', async () => {
    const stream = fresh();
    const followers = [startFollowing(stream), startFollowing(stream), startFollowing(stream, 5)];
    await Promise.all(Array.from({ length: 40 }, (_, i) => stream.append([text(`${i}`)])));
    const all = Array.from({ length: 40 }, (_, i) => i);
    for (const [i, follower] of followers.entries()) {
      await follower.saw(i === 2 ? 35 : 40);
      await follower.stop();
      expect(follower.seqNums).toEqual(i === 2 ? all.slice(5) : all);
    }
  });

  test('more than one batch of history arrives in order', async () => {
    const stream = fresh();
    for (let i = 0; i < 3; i++) {
      await stream.append(Array.from({ length: 900 }, (_, j) => text(`${i * 900 + j}`)));
    }
    const following = startFollowing(stream);
    await following.saw(2700);
    await following.stop();
    expect(following.seqNums).toEqual(Array.from({ length: 2700 }, (_, i) => i));
    expect(Math.max(...following.batches.map((batch) => batch.records.length))).toBeLessThanOrEqual(1000);
  });
}

function describeGaps(fresh: () => Stream): void {
  test('commands are passed over in silence', async () => {
    const stream = fresh();
    const following = startFollowing(stream);
    await stream.fence('one');
    await stream.append([text('a')]);
    await following.saw(1);
    await stream.fence('two');
    await stream.append([text('b')]);
    await following.saw(2);
    await following.stop();
    expect(following.seqNums).toEqual([1, 3]);
    expect(following.batches.filter((batch) => batch.missing ?? batch.records.length === 0)).toEqual([]);
  });

  test('what was trimmed before it could be seen is reported as missing', async () => {
    const stream = fresh();
    await stream.append([text('a'), text('b'), text('c')]);
    await stream.trim(2);
    await vi.waitFor(async () => expect((await stream.read({ fromSeqNum: 0 })).missing).toBeDefined(), {
      timeout: 15_000,
    });
    const following = startFollowing(stream);
    await following.saw(1);
    await following.stop();
    expect(following.batches[0]?.missing).toEqual({ fromSeqNum: 0, toSeqNum: 2 });
    expect(following.seqNums).toEqual([2]);
  });
}

function describeEnds(under: () => StoreUnderTest, fresh: () => Stream): void {
  test('an aborted signal ends it without an error: before it began, and while it waits', async () => {
    const stream = fresh();
    const iterator = stream.follow({ fromSeqNum: 0, signal: AbortSignal.abort() })[Symbol.asyncIterator]();
    expect(await iterator.next()).toMatchObject({ done: true });
    await stream.append([text('a')]);
    const following = startFollowing(stream);
    await following.saw(1);
    await expect(following.stop()).resolves.toBeUndefined();
  });

  test('leaving the loop ends it', async () => {
    const stream = fresh();
    await stream.append([text('a')]);
    const { signal } = new AbortController();
    for await (const batch of stream.follow({ fromSeqNum: 0, signal })) {
      expect(batch.records).toHaveLength(1);
      break;
    }
  });

  test('closing the store ends its followers', async () => {
    const stream = fresh();
    await stream.append([text('a')]);
    const ended = (async () => {
      const { signal } = new AbortController();
      const seen: number[] = [];
      for await (const batch of stream.follow({ fromSeqNum: 0, signal })) seen.push(batch.records.length);
      return seen;
    })();
    await under().reopen();
    await expect(ended).resolves.toSatisfy((seen: number[]) => seen.length <= 1);
    await expect(stream.append([text('b')])).rejects.toMatchObject({ code: 'streams.unavailable' });
  });
}
