/** Which inboxes are served is known at a start from the end of `tools`, however long that stream has become. */
import { expect, it } from 'vitest';
import { createLog } from '../../src/platform/log.ts';
import { createLiveTools } from '../../src/streams/live-tools.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import type { NewRecord, StreamStore } from '../../src/streams/stream-store.ts';
import { useTemporaryStore } from './temporary-store.ts';

const store = useTemporaryStore();

const revision = (number: number, status: 'live' | 'refused'): NewRecord =>
  jsonRecord({
    kind: 'tools',
    version: 1,
    revision: `revision-${number}`,
    status,
    inboxes: [],
    error: status === 'live' ? null : 'it does not compile',
    at: new Date(0).toISOString(),
  });

/** The store, and how many records were read of it. */
function countedStore(): { counted: StreamStore; reads: () => number } {
  let reads = 0;
  const whole = store();
  const counted: StreamStore = {
    ...whole,
    stream(name) {
      const stream = whole.stream(name);
      return {
        ...stream,
        async read(options) {
          const batch = await stream.read(options);
          reads += batch.records.length;
          return batch;
        },
        async *follow(options) {
          for await (const batch of stream.follow(options)) {
            reads += batch.records.length;
            yield batch;
          }
        },
      };
    },
  };
  return { counted, reads: () => reads };
}

it.each([
  ['at its end', 10],
  ['behind many that were refused', 700],
  ['as the first of all', 3_000],
])('the live revision is found %s', async (_where, refused) => {
  const live = 3_000 - refused;
  const records = Array.from({ length: 3_001 }, (_, n) => revision(n, n <= live ? 'live' : 'refused'));
  for (let n = 0; n < records.length; n += 1000)
    await store()
      .stream('tools')
      .append(records.slice(n, n + 1000));
  const { counted, reads } = countedStore();
  const tools = createLiveTools({ store: counted, log: createLog('silent') });
  const stopped = new AbortController();
  const running = tools.run(stopped.signal);
  expect(await tools.live(stopped.signal)).toMatchObject({ revision: `revision-${live}` });
  expect(reads()).toBeLessThanOrEqual(Math.max(200, 5 * refused));
  await store()
    .stream('tools')
    .append([revision(4_000, 'live')]);
  await expect.poll(() => tools.current()?.revision).toBe('revision-4000');
  stopped.abort();
  await running;
});
