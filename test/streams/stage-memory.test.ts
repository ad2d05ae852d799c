/** What a stage holds in memory is bounded by bytes, whatever the sizes of records and outputs. */
import { describe, expect, it } from 'vitest';
import type { NewRecord, StreamRecord } from '../../src/streams/stream-store.ts';
import { numberOf, numbered, useStages } from './stage-fixture.ts';
import { readAll } from './store-reading.ts';

const { stream, start, settled } = useStages();

describe('a stage with large records', () => {
  const large = (n: number): NewRecord => ({
    headers: [['key', `key-${n}`]],
    body: String(n).padStart(100_000),
  });
  const numberOfLarge = (record: StreamRecord): number => Number(Buffer.from(record.body).toString());

  it('reads no further while they fill its memory', async () => {
    for (let n = 0; n < 40; n++) await stream('source').append([large(n)]);
    let most = 0;
    const { stage, stop } = start(
      async () => {
        most = Math.max(most, stage.stats().bytesInMemory);
        return { kind: 'done' };
      },
      { concurrency: 2, limits: { windowBytes: 300_000 } },
    );
    await settled(40);
    await stop();
    expect(most).toBeLessThanOrEqual(300_000);
    expect(stage.stats()).toMatchObject({ inMemory: 0, bytesInMemory: 0 });
  });

  it('does not keep those in memory that wait for their lane', async () => {
    for (let n = 0; n < 40; n++) await stream('source').append([large(n)]);
    const held = Promise.withResolvers<void>();
    const handled: number[] = [];
    const { stage, stop } = start(
      async (record) => {
        if (numberOfLarge(record) < 10) await held.promise;
        handled.push(numberOfLarge(record));
        return { kind: 'done' };
      },
      {
        laneOf: (record) => (numberOfLarge(record) < 10 ? 'busy' : null),
        concurrency: 2,
        limits: { windowBytes: 300_000 },
      },
    );
    await settled(30);
    expect(stage.stats()).toMatchObject({ inMemory: 1, bytesInMemory: 100_000 });
    held.resolve();
    await settled(40);
    await stop();
    expect(handled.slice(30)).toEqual(Array.from({ length: 10 }, (_, n) => n));
  });

  it('takes in no more of those that are due again than it can handle at once, however slow the journal is', async () => {
    await stream('source').append(Array.from({ length: 60 }, (_, n) => numbered(n)));
    let most = 0;
    let handled = 0;
    const { stage, stop } = start(
      async () => {
        most = Math.max(most, stage.stats().inMemory);
        return ++handled > 600
          ? { kind: 'done' }
          : { kind: 'deferred', untilMs: 0, reason: 'test', holdsLane: false };
      },
      { concurrency: 3, limits: { window: 8 } },
    );
    await settled(60);
    await stop();
    expect(most).toBeLessThanOrEqual(8 + 3);
  });

  it('starts no handler while their outputs wait for the store', async () => {
    await stream('source').append(Array.from({ length: 40 }, (_, n) => numbered(n)));
    const opened = Promise.withResolvers<void>();
    let handled = 0;
    const { stop } = start(
      async (record) => {
        handled++;
        return { kind: 'done', outputs: [{ stream: 'target', record: large(numberOf(record)) }] };
      },
      { concurrency: 2, limits: { outputBytes: 300_000 } },
      (store) => ({
        ...store,
        stream: (name) => {
          const whole = store.stream(name);
          if (name !== 'target') return whole;
          return {
            ...whole,
            async append(records, options) {
              await opened.promise;
              return whole.append(records, options);
            },
          };
        },
      }),
    );
    // Those that ran when the limit was reached may end.
    await expect.poll(() => handled).toBeGreaterThanOrEqual(3);
    await stream('other').append([numbered(0)]);
    expect(handled).toBeLessThanOrEqual(4);
    opened.resolve();
    await settled(40);
    await stop();
    expect(await readAll(stream('target'))).toHaveLength(40);
  });
});
