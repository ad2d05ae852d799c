/**
 * A process that writes to a local store, for tests that need one of its own to kill or to starve.
 *
 *   local-writer.ts DIRECTORY stream   appends batches to `s` for ever; prints a line for each that is durable
 *   local-writer.ts DIRECTORY full     appends records that fit and one that does not; prints what became of each
 */
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { readAll, text } from './store-reading.ts';

const [directory = '', mode] = process.argv.slice(2);
const store = await openLocalStore(
  { clock: systemClock, log: createLog('silent') },
  { directory, retentionFor: () => 'forever' },
);
const print = (line: string): boolean => process.stdout.write(`${line}\n`);

if (mode === 'stream') {
  // Several at a time, so that groups of more than one batch are among what is killed.
  const writeForEver = async (writer: number): Promise<never> => {
    for (let batch = 0; ; batch++) {
      const size = 1 + (batch % 7);
      const records = Array.from({ length: size }, (_, i) => text(`${writer}/${batch}/${i}/${size}`));
      const { startSeqNum } = await store.stream('s').append(records);
      print(JSON.stringify({ startSeqNum, writer, batch, size }));
    }
  };
  await Promise.all([0, 1, 2, 3].map(writeForEver));
} else {
  const outcomes = await Promise.allSettled([
    store.stream('small').append([text('1')]),
    store.stream('large').append([{ body: new Uint8Array(1_000_000) }]),
    store.stream('small').append([text('2')]),
  ]);
  print(
    JSON.stringify({
      outcomes: outcomes.map((outcome) =>
        outcome.status === 'fulfilled' ? 'ok' : [outcome.reason.code, outcome.reason.kind],
      ),
      small: (await readAll(store.stream('small'))).length,
      largeTail: await store.stream('large').tail(),
      next: await store.stream('small').append([text('3')]),
    }),
  );
  await store.close();
}
