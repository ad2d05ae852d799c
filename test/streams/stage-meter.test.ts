/** What a stage counts while it works, and what it says of the work before it. */
import { Registry } from 'prom-client';
import { beforeEach, expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { createStageMeter } from '../../src/streams/stage-meter.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { Outcome, Stage } from '../../src/streams/stage.ts';
import { numbered, numberOf } from './stage-fixture.ts';
import { useTemporaryStore } from './temporary-store.ts';

const store = useTemporaryStore();
let registry: Registry;

beforeEach(() => {
  registry = new Registry();
});

function stageWith(handle: (n: number) => Promise<Outcome>, concurrency = 4): Stage {
  return createStage(
    {
      store: store(),
      clock,
      log: createLog('silent'),
      meter: createStageMeter({ store: store(), clock, registry }),
    },
    {
      name: 'runner/reverser',
      source: 'inbox/reverser',
      journal: 'runs/reverser',
      concurrency,
      handle: (record) => handle(numberOf(record)),
      backoff: { baseMs: 1, maxMs: 1 },
      maxAttempts: 1,
      limits: { window: 3 },
    },
  );
}

const value = async (line: string): Promise<string | undefined> =>
  (await registry.metrics())
    .split('\n')
    .find((found) => found.startsWith(line))
    ?.slice(line.length)
    .trim();

it('counts outcomes and durations, and has no lag at the end', async () => {
  const settled = Promise.withResolvers<void>();
  let calls = 0;
  const stage = stageWith(async (n) => {
    if (++calls === 3) queueMicrotask(settled.resolve);
    return n === 2 ? { kind: 'skipped', reason: 'test' } : { kind: 'done' };
  });
  const stop = new AbortController();
  await store()
    .stream('inbox/reverser')
    .append([numbered(1), numbered(2), numbered(3), numbered(3)]);
  const running = stage.run(stop.signal);
  await settled.promise;
  stop.abort();
  await running;
  const outcome = 'millrace_stage_outcomes_total{stage="runner",inbox="reverser",outcome=';
  expect(await value(`${outcome}"done"}`)).toBe('2');
  expect(await value(`${outcome}"skipped"}`)).toBe('1');
  expect(await value('millrace_stage_duration_seconds_count{stage="runner"}')).not.toBe('0');
});

it('tells how much lies before it, also what it has not read yet', async () => {
  const started = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  const stage = stageWith(async () => {
    started.resolve();
    await release.promise;
    return { kind: 'done' };
  }, 1);
  const stop = new AbortController();
  await store()
    .stream('inbox/reverser')
    .append(Array.from({ length: 10 }, (_, n) => numbered(n)));
  const running = stage.run(stop.signal);
  await started.promise;
  expect(await value('millrace_stage_lag_records{stage="runner",inbox="reverser"}')).toBe('10');
  release.resolve();
  stop.abort();
  await running;
  expect(await value('millrace_stage_lag_records{stage="runner",inbox="reverser"}')).toBeUndefined();
});

it('counts what was gone before it was read', async () => {
  const settled = Promise.withResolvers<void>();
  const stage = stageWith(async () => {
    settled.resolve();
    return { kind: 'done' };
  });
  const inbox = store().stream('inbox/reverser');
  await inbox.append([numbered(1), numbered(2), numbered(3)]);
  await inbox.trim(2);
  const stop = new AbortController();
  const running = stage.run(stop.signal);
  await settled.promise;
  stop.abort();
  await running;
  expect(await value('millrace_stage_missing_records_total{stage="runner",inbox="reverser"}')).toBe('2');
});
