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
const outcome = jsonRecord({ kind: 'attempt', version: 1, seqNum: 7, key: 'a', at: '2026-01-01T00:00:00Z' });

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

it('trims no history because the wall clock is years ahead, also after a start', async () => {
  const stream = store().stream('runs/desk');
  let aheadMs = 0;
  const journalAt = async () => {
    const clockAhead = { ...clock, nowMs: () => clock.nowMs() + aheadMs };
    const options = { stream, owner: clock.uuid(), horizonMs: Infinity, historyMs: 90 * 86_400_000 };
    const journal = createJournal({ clock: clockAhead, log: createLog('silent') }, options);
    return { journal, progress: await journal.acquire(signal) };
  };
  const before = await journalAt();
  const outcomeAt = await before.journal.append([outcome], signal);
  for (let checkpoints = 0; checkpoints < 2; checkpoints++)
    await before.journal.checkpoint(before.progress, signal);
  aheadMs = 365 * 86_400_000;
  await before.journal.trimHistory(signal);
  const after = await journalAt();
  await after.journal.checkpoint(after.progress, signal);
  await after.journal.trimHistory(signal);
  expect((await stream.read({ fromSeqNum: 0 })).missing).toBeUndefined();
  const { records } = await stream.read({ fromSeqNum: outcomeAt, maxRecords: 1 });
  expect(records.map(({ body }) => Buffer.from(body))).toEqual([Buffer.from(outcome.body)]);
});
