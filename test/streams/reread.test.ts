/** Records that are read again: few reads for many records, and none lost whatever a read brings. */
import { describe, expect, it } from 'vitest';
import { createReread } from '../../src/streams/stage/reread.ts';
import type { Stream } from '../../src/streams/stream-store.ts';
import { text } from './store-reading.ts';
import { useTemporaryStore } from './temporary-store.ts';

const store = useTemporaryStore();
const { signal } = new AbortController();

/** A stream of so many records, which counts how often it is read. */
async function countedStream(records: number): Promise<{ stream: Stream; reads: () => number }> {
  const stream = store().stream('source');
  await stream.append(Array.from({ length: records }, (_, n) => text(`${n}`)));
  let reads = 0;
  const read: Stream['read'] = (options) => {
    reads++;
    return stream.read(options);
  };
  return { stream: { ...stream, read }, reads: () => reads };
}

describe('reread', () => {
  it('brings along those behind that wait too, one after another or all at once', async () => {
    const { stream, reads } = await countedStream(640);
    const one = createReread(stream, () => true);
    for (let n = 0; n < 320; n++) expect((await one(n, signal)).seqNum).toBe(n);
    expect(reads()).toBe(5);
    const all = Array.from({ length: 192 }, (_, n) => 320 + n);
    const found = await Promise.all(all.map((n) => one(n, signal)));
    expect(found.map(({ seqNum }) => seqNum)).toEqual(all);
    expect(reads()).toBe(8);
  });

  it('keeps only what somebody waits for, and only so much of it', async () => {
    const { stream, reads } = await countedStream(1000);
    const unwanted = createReread(stream, () => false);
    await unwanted(0, signal);
    await unwanted(1, signal);
    expect(reads()).toBe(2);
    const wanted = createReread(stream, () => true);
    for (const n of [0, 100, 200, 300, 400, 500]) await wanted(n, signal);
    expect(reads()).toBe(8);
    await wanted(501, signal);
    expect(reads()).toBe(8);
    // The first of those that were kept had to go.
    await wanted(1, signal);
    expect(reads()).toBe(9);
  });

  it('says of a record that is gone that it has expired', async () => {
    const { stream } = await countedStream(3);
    await stream.trim(2);
    const reread = createReread(stream, () => true);
    await expect(reread(1, signal)).rejects.toMatchObject({ code: 'stage.record_expired' });
    expect((await reread(2, signal)).seqNum).toBe(2);
  });
});
