/** The journal's append on a store that loses acknowledgements: once, whatever comes late and whatever fails besides. */
import { describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import { createJournal } from '../../src/streams/journal.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import type { NewRecord, Stream } from '../../src/streams/stream-store.ts';
import { useTemporaryStore } from './temporary-store.ts';

const store = useTemporaryStore();
const { signal } = new AbortController();
const outcome = jsonRecord({ kind: 'attempt', version: 1, seqNum: 7, at: '2026-01-01T00:00:00Z' });

/**
 * The first append is answered by nobody, and what `arrives` of it does so before the second; after that the next read
 * fails.
 */
function unreliable(
  stream: Stream,
  arrives: (records: readonly NewRecord[]) => readonly NewRecord[],
): Stream {
  let late: (() => Promise<unknown>) | null = null;
  let appends = 0;
  let readFails = false;
  return {
    ...stream,
    async append(records, options) {
      if (appends++ === 0) {
        late = () => stream.append(arrives(records));
        throw new MillraceError('transient', 'streams.append_ambiguous', 'who knows');
      }
      await late?.();
      late = null;
      readFails = true;
      return stream.append(records, options);
    },
    async read(options) {
      if (!readFails) return stream.read(options);
      readFails = false;
      throw new MillraceError('transient', 'streams.unavailable', 'not now');
    },
  };
}

async function appendVia(stream: Stream): Promise<number> {
  const options = { stream, owner: 'me', horizonMs: Infinity, historyMs: Infinity };
  const journal = createJournal({ clock, log: createLog('silent') }, options);
  await journal.acquire(signal);
  return journal.append([outcome], signal);
}

describe('an append without an answer that arrives beside its repetition', () => {
  it('stands there once, also where the look for it fails at first', async () => {
    const stream = store().stream('runs/desk');
    const first = await appendVia(unreliable(stream, (records) => records));
    const { records } = await stream.read({ fromSeqNum: first });
    expect(records.map(({ body }) => Buffer.from(body))).toEqual([Buffer.from(outcome.body)]);
  });

  it("is a lost ownership where it was somebody else's", async () => {
    const other = jsonRecord({ kind: 'attempt', version: 1, seqNum: 8, at: '2026-01-01T00:00:00Z' });
    const stream = unreliable(store().stream('runs/desk'), () => [other]);
    await expect(appendVia(stream)).rejects.toMatchObject({ code: 'stage.ownership_lost' });
  });
});
