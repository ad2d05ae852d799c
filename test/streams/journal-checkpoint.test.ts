/** A checkpoint of several parts, far behind the end of its journal: recovery takes it whole or not at all. */
import { expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Aside, CheckpointPart } from '../../src/streams/journal-records.ts';
import { createJournal, readProgress } from '../../src/streams/journal.ts';
import type { Progress } from '../../src/streams/journal.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import type { Stream } from '../../src/streams/stream-store.ts';
import { readBodies } from './store-reading.ts';
import { useTemporaryStore } from './temporary-store.ts';

const store = useTemporaryStore();
const { signal } = new AbortController();
/** So much of a checkpoint's list stands in one part that these take three. */
const ASIDE = 600;
const LONG_KEY = 1_000;

const asideAt = (seqNum: number): Aside => ({
  seqNum,
  key: `${seqNum}`.padEnd(LONG_KEY, '-'),
  lane: null,
  attempts: 1,
  doubtSinceMs: null,
  untilMs: 1,
  holdsLane: false,
});

async function ownerOf(stream: Stream) {
  const options = { stream, owner: clock.uuid(), horizonMs: Infinity, historyMs: Infinity };
  const journal = createJournal({ clock, log: createLog('silent') }, options);
  return { journal, progress: await journal.acquire(signal) };
}

/** A journal with a checkpoint of three parts, and what that says. */
async function journalWithCheckpoint(stream: Stream) {
  const { journal, progress } = await ownerOf(stream);
  const saved: Progress = { ...progress, low: 7, runningMs: 5 };
  for (let seqNum = 0; seqNum < ASIDE; seqNum++) saved.aside.set(seqNum, asideAt(seqNum));
  saved.settled.add(ASIDE + 1);
  saved.doubts.set(ASIDE + 2, 3);
  await journal.checkpoint(saved, signal);
  const parts = (await readBodies(stream)).map((body) => JSON.parse(body) as CheckpointPart);
  expect(parts).toMatchObject([{ parts: 3 }, { parts: 3 }, { parts: 3 }]);
  return { journal, saved, parts };
}

const attempts = (count: number, from: number) =>
  Array.from({ length: count }, (_, n) =>
    jsonRecord({ kind: 'attempt', version: 1, seqNum: from + n, key: 'k', at: '2026-01-01T00:00:00Z' }),
  );

/** Recovery reads the last thousand records first: the checkpoint is cut by that here, or ends just before it. */
it.each([0, 1, 996, 997, 998, 999, 1000, 1001])('is recovered from %i records behind it', async (behind) => {
  const stream = store().stream('runs/desk');
  const { journal, saved } = await journalWithCheckpoint(stream);
  const first = 10_000;
  for (let from = 0; from < behind; from += 500)
    await journal.append(attempts(Math.min(500, behind - from), first + from), signal);
  const found = await readProgress(stream, signal);
  expect(found).toMatchObject({ low: 7, runningMs: 5, settled: saved.settled, sinceCheckpoint: behind });
  expect(found.aside).toEqual(saved.aside);
  expect([found.doubts.size, found.doubts.get(ASIDE + 2)]).toEqual([1 + behind, 3]);
});

it.each([1, 2])('is the one before where a crash left %i parts of the newest', async (written) => {
  const stream = store().stream('runs/desk');
  const { journal, saved, parts } = await journalWithCheckpoint(stream);
  const id = clock.uuid();
  const torn = parts.slice(0, written).map((part) => ({ ...part, id, low: 9, aside: [] }));
  await journal.append(
    torn.map((part) => jsonRecord(part)),
    signal,
  );
  const { progress } = await ownerOf(stream);
  expect(progress.low).toBe(7);
  expect(progress.aside).toEqual(saved.aside);
});
