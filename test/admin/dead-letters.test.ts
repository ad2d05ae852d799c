/** Dead letters are counted on a journal that is longer than what is read of it in one go. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { countOpenDeadLetters } from '../../src/admin/dead-letters.ts';
import { createRerun } from '../../src/admin/rerun.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import { limits } from '../../src/streams/stream-store.ts';

const { signal } = new AbortController();
const log = createLog('silent');

// The newest one was behind the end of the first page, and said not to be there.
it('counts them on the newest part of a long journal', { timeout: 60_000 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-dead-letters-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const store = await openLocalStore({ clock, log }, { directory, retentionFor: () => 'forever' });
  const park = async (seqNum: number): Promise<void> => {
    const outcome = {
      seqNum,
      key: `key-${seqNum}`,
      outcome: 'dead-letter',
      attempts: 1,
      reason: 'tool.threw',
    };
    const rest = { error: null, at: '2026-01-02T00:00:00Z', durationMs: 1, facts: {} };
    await store.stream('runs/box').append([jsonRecord({ kind: 'outcome', version: 1, ...outcome, ...rest })]);
  };
  await park(0);
  const batch = Array.from({ length: limits.batchRecords }, () => ({ body: '-' }));
  for (let batches = 0; batches < 201; batches += 1) await store.stream('runs/box').append(batch);
  await park(1);
  const stage = { stage: 'runner', inbox: 'box', source: 'inbox/box', journal: 'runs/box' } as const;
  const count = (limit: number, maxRecords: number) =>
    countOpenDeadLetters({ store, rerun: createRerun({ store, clock, log }) }, stage, {
      limit,
      maxRecords,
      signal,
    });
  expect(await count(100, 1_000_000)).toEqual({ count: 2, isAll: true });
  expect(await count(1, 1_000_000)).toMatchObject({ count: 1 });
  expect(await count(100, 1000)).toEqual({ count: 1, isAll: false });
  await store.close();
});
