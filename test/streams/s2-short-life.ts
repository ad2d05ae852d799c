/** A process that appends, follows, closes its store, and then has to end by itself: `s2-short-life.ts URL`. */
import { openStoreAt } from './s2-fixture.ts';
import { text } from './store-reading.ts';

const store = await openStoreAt(process.argv[2] ?? '');
const stream = store.stream('short-life');
await stream.append([text('a')]);
const followed = Promise.withResolvers<void>();
const ended = (async () => {
  for await (const batch of stream.follow({ fromSeqNum: 0, signal: new AbortController().signal })) {
    if (batch.records.length > 0) followed.resolve();
  }
})();
await followed.promise;
process.stdout.write('followed\n');
await store.close();
await ended;
process.stdout.write('closed\n');
