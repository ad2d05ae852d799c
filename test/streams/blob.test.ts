/** Blobs in pieces: any size reads back, a crash in the middle reads right, writing again appends nothing. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { MAX_BLOB_BYTES, findBlob, readBlob, writeBlob } from '../../src/streams/blob.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { limits, meteredBytes } from '../../src/streams/stream-store.ts';
import type { Stream, StreamStore } from '../../src/streams/stream-store.ts';
import { readAll, text } from './store-reading.ts';

const directory = mkdtempSync(join(tmpdir(), 'millrace-blob-'));
let store: StreamStore;
let streams = 0;

beforeAll(async () => {
  const deps = { clock: systemClock, log: createLog('silent') };
  store = await openLocalStore(deps, { directory, retentionFor: () => 'forever' });
});
afterAll(async () => {
  await store.close();
  rmSync(directory, { recursive: true });
});

const fresh = (): Stream => store.stream(`mail/${++streams}`);

/** Bytes that differ from piece to piece, for a seed. */
function bytesOf(length: number, seed = 1): Uint8Array {
  const bytes = Buffer.alloc(length);
  for (let i = 0, state = seed; i < length; i++) {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    bytes[i] = state >> 16;
  }
  return bytes;
}

/** The stream as it would be had the writer been killed after so many appends. */
function killedAfter(appends: number, stream: Stream): Stream {
  let left = appends;
  return {
    ...stream,
    append: (records, options) =>
      left-- > 0 ? stream.append(records, options) : Promise.reject(new Error('killed')),
  };
}

/** A stream with a blob that was written at that time. */
async function streamWritten(bytes: Uint8Array, timestampMs: number): Promise<Stream> {
  const [source, stream] = [fresh(), fresh()];
  await writeBlob(source, bytes);
  for (const { headers, body } of await readAll(source))
    await stream.append([{ headers, body, timestampMs }]);
  return stream;
}

const PIECE = 960 * 1024;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

describe('a blob', { timeout: 30_000 }, () => {
  test('that is small goes into a new stream without a look, and is there once however often it is written', async () => {
    const stream = fresh();
    let reads = 0;
    const counted: Stream = { ...stream, read: (options) => (reads++, stream.read(options)) };
    const first = await writeBlob(counted, bytesOf(2_000));
    expect(reads).toBe(0);
    expect(await writeBlob(counted, bytesOf(2_000))).toEqual(first);
    await writeBlob(counted, bytesOf(2_000, 2));
    expect(await readAll(stream)).toHaveLength(2);
  });

  test.each([0, 1, PIECE - 1, PIECE, PIECE + 1, 5_000_000])('of %i bytes reads back', async (length) => {
    const stream = fresh();
    const bytes = bytesOf(length);
    const pointer = await writeBlob(stream, bytes);
    expect(pointer).toEqual({
      stream: stream.name,
      bytes: length,
      sha256: expect.stringMatching(/^[0-9a-f]{64}$/u),
    });
    expect(Buffer.compare(await readBlob(store, pointer), bytes)).toBe(0);
    expect(await findBlob(stream)).toEqual(pointer);
    for (const record of await readAll(stream)) {
      expect(meteredBytes(record)).toBeLessThanOrEqual(limits.batchBytes);
    }
  });

  test('at the limit is taken, beyond it refused before anything is written', async () => {
    const stream = fresh();
    await expect(writeBlob(stream, new Uint8Array(MAX_BLOB_BYTES + 1))).rejects.toMatchObject({
      code: 'streams.too_large',
      kind: 'invalid',
    });
    expect(await stream.tail()).toBe(0);
    const pointer = await writeBlob(stream, new Uint8Array(MAX_BLOB_BYTES));
    expect((await readBlob(store, pointer)).length).toBe(MAX_BLOB_BYTES);
  });

  test('written again appends nothing', async () => {
    const stream = fresh();
    const pointer = await writeBlob(stream, bytesOf(2_000_000));
    const tail = await stream.tail();
    expect(await writeBlob(stream, bytesOf(2_000_000))).toEqual(pointer);
    expect(await stream.tail()).toBe(tail);
  });

  test.each([2_000, 2_000_000])(
    'of %i bytes whose pieces are old is written again by who needs it to last',
    async (length) => {
      const nowMs = systemClock.nowMs();
      const bytes = bytesOf(length);
      const stream = await streamWritten(bytes, nowMs - 40 * DAY_MS);
      const oldTail = await stream.tail();
      const pointer = await writeBlob(stream, bytes, { nowMs });
      expect(await writeBlob(stream, bytes, { nowMs: nowMs + HOUR_MS })).toEqual(pointer);
      expect(await stream.tail()).toBe(2 * oldTail);
      for (let expired = 0; expired <= oldTail; expired++) {
        await stream.trim(expired);
        expect(Buffer.compare(await readBlob(store, pointer), bytes)).toBe(0);
      }
    },
  );

  test('whose pieces a clock that was ahead has written is as good as new', async () => {
    const nowMs = systemClock.nowMs();
    const stream = await streamWritten(bytesOf(2_000_000), nowMs + 40 * DAY_MS);
    const tail = await stream.tail();
    await writeBlob(stream, bytesOf(2_000_000), { nowMs });
    expect(await stream.tail()).toBe(tail);
  });

  test.each([0, 1, 2])('whose writer was killed after %i pieces is none, and then one', async (appends) => {
    const stream = fresh();
    const bytes = bytesOf(2_500_000);
    await expect(writeBlob(killedAfter(appends, stream), bytes)).rejects.toThrow('killed');
    expect(await findBlob(stream)).toBeNull();
    const pointer = await writeBlob(stream, bytes);
    expect(Buffer.compare(await readBlob(store, pointer), bytes)).toBe(0);
    expect(await stream.tail()).toBe(3);
  });

  test('among half a set of others, and by two writers at once, reads right', async () => {
    const stream = fresh();
    const [mine, others] = [bytesOf(2_500_000, 1), bytesOf(2_500_000, 2)];
    await expect(writeBlob(killedAfter(2, stream), others)).rejects.toThrow('killed');
    await stream.append([text('no piece at all')]);
    const [pointer] = await Promise.all([writeBlob(stream, mine), writeBlob(stream, mine)]);
    expect(await findBlob(stream)).toEqual(pointer);
    expect(Buffer.compare(await readBlob(store, pointer), mine)).toBe(0);
  });
});

describe('a pointer', () => {
  test('to what is not there, or not all there, is missing', async () => {
    const stream = fresh();
    const pointer = { stream: stream.name, bytes: 2_500_000, sha256: 'f'.repeat(64) };
    const MISSING = { code: 'streams.blob_missing', kind: 'permanent' };
    await expect(readBlob(store, pointer)).rejects.toMatchObject(MISSING);
    const whole = await writeBlob(fresh(), bytesOf(2_500_000));
    await expect(writeBlob(killedAfter(2, stream), bytesOf(2_500_000))).rejects.toThrow('killed');
    await expect(readBlob(store, { ...whole, stream: stream.name })).rejects.toMatchObject(MISSING);
  });

  test('to bytes that changed is damaged', async () => {
    const stream = fresh();
    const pointer = await writeBlob(stream, bytesOf(10));
    const damaged = fresh();
    const [record] = await readAll(stream);
    await damaged.append([{ headers: record?.headers ?? [], body: bytesOf(10, 2) }]);
    await expect(readBlob(store, { ...pointer, stream: damaged.name })).rejects.toMatchObject({
      code: 'streams.blob_damaged',
      kind: 'permanent',
    });
  });
});
