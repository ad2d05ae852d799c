/**
 * One owner for each unit, as several processes come, go, freeze and are cut off. The work of a unit here is to
 * say so and to wait; what it appends stands on the stream `done`.
 */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { aborted } from '../../src/platform/abort.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { membershipTiming } from '../../src/streams/membership-pace.ts';
import type { OwnedUnit } from '../../src/streams/ownership.ts';
import { createSoleOwnership } from '../../src/streams/ownership.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { createBasin } from './basin.ts';
import type { Basin, BasinProcess } from './basin.ts';
import { readBodies, text } from './store-reading.ts';
import { useTemporaryStore } from './temporary-store.ts';

const { heartbeatMs, deadAfterMs } = membershipTiming;
const UNITS = Array.from({ length: 20 }, (_, i) => `runner/inbox-${i}`);
const store = useTemporaryStore();
let basin: Basin;

beforeEach(() => {
  basin = createBasin(store());
});
afterEach(() => basin.stop());

interface Worker extends BasinProcess {
  /** What it is working on now. */
  readonly working: ReadonlySet<string>;
  /** How often it has begun something. */
  begun(): number;
  /** The store as the owner of a unit has it. */
  storeOf(unit: string): StreamStore;
  /** Lets go only when this resolves. */
  drainUntil(promise: Promise<void>): void;
  /** As after SIGTERM. */
  shutDown(): Promise<void>;
}

function startWorker(units: readonly string[] = UNITS, failure?: () => Error | undefined): Worker {
  const process = basin.start();
  const working = new Set<string>();
  const stores = new Map<string, StreamStore>();
  const stop = new AbortController();
  let begun = 0;
  let drained: Promise<void> | undefined;
  const unitOf = (name: string): OwnedUnit => ({
    name,
    async work(owned, signal) {
      begun++;
      const error = failure?.();
      if (error) throw error;
      working.add(name);
      stores.set(name, owned);
      try {
        await aborted(signal);
        await drained;
      } finally {
        working.delete(name);
      }
    },
  });
  for (const name of units) void process.ownership.run(unitOf(name), stop.signal);
  return {
    ...process,
    working,
    begun: () => begun,
    storeOf: (unit) => stores.get(unit)!,
    drainUntil(promise) {
      drained = promise;
    },
    shutDown() {
      stop.abort();
      return process.leave();
    },
  };
}

/** Every unit has exactly one of these at work. */
function expectOneOwnerEach(workers: readonly Worker[]): void {
  expect(workers.flatMap(({ working }) => [...working]).toSorted()).toEqual(UNITS.toSorted());
}

it('does everything alone', async () => {
  const only = startWorker();
  await basin.pass(200);
  expectOneOwnerEach([only]);
});

it('shares with who comes, and moves only what the newcomer gets', async () => {
  const [first, second] = [startWorker(), startWorker()];
  await basin.pass(500);
  expectOneOwnerEach([first, second]);
  const [before1, before2] = [new Set(first.working), new Set(second.working)];
  const third = startWorker();
  await basin.pass(500);
  expectOneOwnerEach([first, second, third]);
  expect(third.working.size).toBeGreaterThan(0);
  for (const [worker, before] of [
    [first, before1],
    [second, before2],
  ] as const)
    for (const unit of worker.working) expect(before).toContain(unit);
});

it('has one owner and a standby for what there is once', async () => {
  const [first, second] = [startWorker(['outbox']), startWorker(['outbox'])];
  await basin.pass(500);
  const [owner, standby] = first.working.size > 0 ? [first, second] : [second, first];
  expect([owner.working.size, standby.working.size]).toEqual([1, 0]);
  owner.die();
  await basin.pass(heartbeatMs + 100);
  expect(standby.working).toContain('outbox');
});

it('gives a unit only to who offers it', async () => {
  const [all, some] = [startWorker(), startWorker(UNITS.slice(0, 5))];
  await basin.pass(500);
  expectOneOwnerEach([all, some]);
  for (const unit of some.working) expect(UNITS.slice(0, 5)).toContain(unit);
});

it('does not begin before the owner has let go', async () => {
  const first = startWorker();
  await basin.pass(200);
  const drained = Promise.withResolvers<void>();
  first.drainUntil(drained.promise);
  const second = startWorker();
  await basin.pass(2 * deadAfterMs);
  expect(first.working.size).toBe(UNITS.length);
  expect(second.working.size).toBe(0);
  drained.resolve();
  await basin.pass(500);
  expectOneOwnerEach([first, second]);
  expect(second.working.size).toBeGreaterThan(0);
});

it('gives up what does not drain in time, and may not append to it any more', async () => {
  const stuck = startWorker();
  await basin.pass(200);
  stuck.drainUntil(new Promise(() => {}));
  const other = startWorker();
  await basin.pass(20_000);
  expect(other.working.size).toBeGreaterThan(0);
  const appended = await Promise.allSettled(
    UNITS.map((unit) =>
      stuck
        .storeOf(unit)
        .stream(unit)
        .append([text('late')]),
    ),
  );
  const refused = appended.flatMap((append) => (append.status === 'rejected' ? [append.reason] : []));
  expect(refused.map(({ code }) => code)).toEqual(Array(other.working.size).fill('stage.ownership_lost'));
  for (const unit of other.working) expect(await readBodies(store().stream(unit))).toEqual([]);
});

it('gives up what does not end in time, so that a stop comes to an end', async () => {
  const stuck = startWorker(['outbox']);
  await basin.pass(200);
  stuck.drainUntil(new Promise(() => {}));
  const left = stuck.shutDown();
  await basin.pass(20_000);
  await left;
  await expect(
    stuck
      .storeOf('outbox')
      .stream('done')
      .append([text('late')]),
  ).rejects.toMatchObject({
    code: 'stage.ownership_lost',
  });
});

it('moves all that a process had which has fallen silent', async () => {
  const [silent, other] = [startWorker(), startWorker()];
  await basin.pass(500);
  expect(silent.working.size).toBeGreaterThan(0);
  silent.freeze();
  await basin.pass(deadAfterMs + 2 * heartbeatMs);
  expect(other.working.size).toBe(UNITS.length);
});

it('lets an owner that slept append nothing, neither before nor after it learns that it lost', async () => {
  const [sleeper, other] = [startWorker(), startWorker()];
  await basin.pass(500);
  const [unit] = sleeper.working;
  const owned = sleeper.storeOf(unit!);
  sleeper.freeze();
  await basin.pass(deadAfterMs + 2 * heartbeatMs);
  sleeper.mend();
  await expect(owned.stream('done').append([text('asleep')])).rejects.toMatchObject({
    kind: 'transient',
    code: 'ownership.unknown',
  });
  await basin.pass(2 * heartbeatMs);
  await expect(owned.stream('done').append([text('awake')])).rejects.toMatchObject({
    code: 'stage.ownership_lost',
  });
  expect(await readBodies(store().stream('done'))).toEqual([]);
  await basin.pass(2_000);
  expectOneOwnerEach([sleeper, other]);
  expect(sleeper.working.size).toBeGreaterThan(0);
});

it('does the same on a slow store, where it is waited for longer: a short sleep moves nothing', async () => {
  const [sleeper, other] = [startWorker(), startWorker()];
  for (const worker of [sleeper, other]) worker.slow(2_200);
  await basin.pass(60_000);
  const begun = other.begun();
  const [unit] = sleeper.working;
  const owned = sleeper.storeOf(unit!);
  sleeper.freeze();
  await basin.pass(deadAfterMs);
  sleeper.mend();
  const appended = owned.stream('done').append([text('still its owner')]);
  await basin.pass(30_000);
  await appended;
  expect(other.begun()).toBe(begun);
  sleeper.freeze();
  await basin.pass(30_000);
  expect(other.working.size).toBe(UNITS.length);
  sleeper.mend();
  await expect(owned.stream('done').append([text('asleep')])).rejects.toMatchObject({
    code: 'ownership.unknown',
  });
  await basin.pass(30_000);
  expectOneOwnerEach([sleeper, other]);
  expect(await readBodies(store().stream('done'))).toEqual(['still its owner']);
});

it('does not take anything from its new owner by what an owner that slept still believes', async () => {
  const [sleeper, other] = [startWorker(), startWorker()];
  await basin.pass(500);
  const before = [...sleeper.working];
  sleeper.freeze();
  await basin.pass(deadAfterMs + 2 * heartbeatMs);
  // Both take their time: the one with what it has lost, the other with what it hands back.
  const drained = Promise.withResolvers<void>();
  for (const worker of [sleeper, other]) worker.drainUntil(drained.promise);
  sleeper.mend();
  await basin.pass(deadAfterMs);
  for (const unit of before)
    await other
      .storeOf(unit)
      .stream(unit)
      .append([text('in time')]);
  drained.resolve();
  await basin.pass(2 * deadAfterMs);
  expectOneOwnerEach([sleeper, other]);
});

it("leaves everything where it is after an outage that was everybody's", async () => {
  const [first, second] = [startWorker(), startWorker()];
  await basin.pass(500);
  const before = [first.begun(), second.begun()];
  for (const worker of [first, second]) worker.cut();
  await basin.pass(3 * deadAfterMs);
  for (const worker of [first, second]) worker.mend();
  await basin.pass(3 * heartbeatMs);
  expect([first.begun(), second.begun()]).toEqual(before);
  expectOneOwnerEach([first, second]);
});

it('hands over at once what is idle when it shuts down', async () => {
  const [leaving, other] = [startWorker(), startWorker()];
  await basin.pass(500);
  const left = leaving.shutDown();
  await basin.pass(heartbeatMs / 2);
  await left;
  expect(other.working.size).toBe(UNITS.length);
});

it('waits longer each time it loses the same unit', async () => {
  const lost = new MillraceError('permanent', 'stage.ownership_lost', 'somebody else has it');
  const worker = startWorker(['outbox'], () => lost);
  await basin.pass(60_000);
  expect(worker.begun()).toBeGreaterThan(3);
  expect(worker.begun()).toBeLessThan(20);
});

// Each turn that was lost still listened, and set itself a limit when the process was told to stop.
it('lets go of the turns that it has lost', async () => {
  const lost = new MillraceError('permanent', 'stage.ownership_lost', 'somebody else has it');
  let failure: Error | undefined = lost;
  const worker = startWorker(['outbox'], () => failure);
  await basin.pass(20_000);
  expect(worker.begun()).toBeGreaterThan(3);
  failure = undefined;
  await basin.pass(20_000);
  expect(worker.working).toContain('outbox');
  worker.drainUntil(new Promise(() => {}));
  const before = worker.clock.waiting();
  void worker.shutDown();
  // One, for the turn that it has.
  expect(worker.clock.waiting()).toBeLessThanOrEqual(before + 1);
});

it('leaves every other failure to its supervisor', async () => {
  const process = basin.start();
  const failure = new MillraceError('bug', 'stage.journal_damaged', 'it is damaged');
  const running = process.ownership.run(
    { name: 'outbox', work: () => Promise.reject(failure) },
    new AbortController().signal,
  );
  running.catch(() => {});
  await basin.pass(200);
  await expect(running).rejects.toBe(failure);
});

it('costs nothing where one process has the store to itself', async () => {
  const stop = new AbortController();
  const failure = new Error('over');
  const running = createSoleOwnership(store()).run(
    {
      name: 'outbox',
      work(owned, signal) {
        expect(owned).toBe(store());
        expect(signal).toBe(stop.signal);
        return Promise.reject(failure);
      },
    },
    stop.signal,
  );
  await expect(running).rejects.toBe(failure);
  expect((await store().list({ prefix: '' })).names).toEqual([]);
});
