/** Who is there, as several processes see it: on a real local store, with a clock for each. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MillraceError } from '../../src/platform/errors.ts';
import { membershipTiming } from '../../src/streams/membership-pace.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import { createBasin } from './basin.ts';
import type { Basin, BasinProcess } from './basin.ts';
import { useTemporaryStore } from './temporary-store.ts';

const { heartbeatMs, leaseMs, deadAfterMs } = membershipTiming;
const store = useTemporaryStore();
let basin: Basin;

beforeEach(() => {
  basin = createBasin(store());
});
afterEach(() => basin.stop());

const seenBy = ({ membership }: BasinProcess): string[] =>
  membership
    .members()
    .map(({ id }) => id)
    .toSorted();
const idsOf = (...processes: BasinProcess[]): string[] =>
  processes.map(({ membership }) => membership.id).toSorted();

it('knows itself as soon as its first heartbeat has come back, and the others with it', async () => {
  const first = basin.start();
  expect(first.membership.isCurrent()).toBe(false);
  await basin.pass(50);
  expect(first.membership.isCurrent()).toBe(true);
  const second = basin.start();
  await basin.pass(50);
  for (const process of [first, second]) expect(seenBy(process)).toEqual(idsOf(first, second));
});

it('tells what is offered and held at once, in one heartbeat', async () => {
  const [first, second] = [basin.start(), basin.start()];
  await basin.pass(100);
  const before = await store().stream(streamNames.members).tail();
  for (const unit of ['receive', 'outbox', 'runner/a']) {
    first.membership.offers.add(unit);
    await new Promise((resolve) => setImmediate(resolve));
  }
  first.membership.holds.add('receive');
  await basin.pass(75);
  expect(await store().stream(streamNames.members).tail()).toBe(before + 1);
  const seen = second.membership.members().find(({ id }) => id === first.membership.id);
  expect([...seen!.offers]).toEqual(['receive', 'outbox', 'runner/a']);
  expect([...seen!.holds]).toEqual(['receive']);
});

it('keeps a silent process for as long as it may only be slow, and no longer', async () => {
  const [silent, other] = [basin.start(), basin.start()];
  await basin.pass(500);
  silent.cut();
  await basin.pass(deadAfterMs - heartbeatMs - 100);
  expect(seenBy(other)).toEqual(idsOf(silent, other));
  await basin.pass(2 * heartbeatMs + 100);
  expect(seenBy(other)).toEqual(idsOf(other));
});

it('knows that it is cut off before the others take it for dead', async () => {
  const [silent, other] = [basin.start(), basin.start()];
  await basin.pass(500);
  silent.cut();
  for (let passedMs = 0; seenBy(other).length === 2; passedMs += 100) {
    expect(passedMs).toBeLessThan(2 * deadAfterMs);
    await basin.pass(100);
  }
  expect(silent.membership.isCurrent()).toBe(false);
});

it('sees everybody again after it was cut off, before it may judge', async () => {
  const [first, second, third] = [basin.start(), basin.start(), basin.start()];
  await basin.pass(500);
  first.freeze();
  await basin.pass(3 * deadAfterMs);
  first.mend();
  expect(first.membership.isCurrent()).toBe(false);
  for (let passedMs = 0; !first.membership.isCurrent(); passedMs += 25) {
    expect(passedMs).toBeLessThan(2 * heartbeatMs);
    await basin.pass(25);
  }
  expect(seenBy(first)).toEqual(idsOf(first, second, third));
  await basin.pass(deadAfterMs);
  for (const process of [first, second, third]) expect(seenBy(process)).toEqual(idsOf(first, second, third));
});

it("takes nobody for dead after an outage that was everybody's", async () => {
  const [first, second] = [basin.start(), basin.start()];
  await basin.pass(500);
  const changes: number[] = [];
  for (const process of [first, second]) process.cut();
  await basin.pass(3 * deadAfterMs);
  first.membership.onChange(() => changes.push(seenBy(first).length));
  first.mend();
  await basin.pass(leaseMs);
  second.mend();
  await basin.pass(deadAfterMs);
  expect(changes.length).toBeGreaterThan(0);
  expect(new Set(changes)).toEqual(new Set([2]));
});

it('does not wait for a process of this machine that is gone, nor for one that has left', async () => {
  const [killed, leaving, other] = [basin.start(), basin.start(), basin.start()];
  await basin.pass(500);
  killed.die();
  const left = leaving.leave();
  await basin.pass(heartbeatMs + 100);
  expect(seenBy(other)).toEqual(idsOf(other));
  await left;
});

it('stays, without being a candidate, until it holds nothing any more', async () => {
  const [leaving, other] = [basin.start(), basin.start()];
  leaving.membership.offers.add('outbox');
  leaving.membership.holds.add('outbox');
  await basin.pass(500);
  const left = leaving.leave();
  await basin.pass(heartbeatMs);
  expect(other.membership.members().find(({ id }) => id === leaving.membership.id)).toMatchObject({
    offers: new Set(),
    holds: new Set(['outbox']),
  });
  leaving.membership.holds.delete('outbox');
  await basin.pass(100);
  await left;
  expect(seenBy(other)).toEqual(idsOf(other));
});

it('claims nothing while it is blind, and what it holds as soon as it sees', async () => {
  const [first, other] = [basin.start(), basin.start()];
  first.membership.holds.add('outbox');
  await basin.pass(500);
  first.cut();
  await basin.pass(leaseMs + 100);
  first.mend();
  const claims: number[] = [];
  other.membership.onChange(() => {
    const seen = other.membership.members().find(({ id }) => id === first.membership.id);
    claims.push(seen!.holds.size);
  });
  for (let passedMs = 0; !first.membership.isCurrent(); passedMs += 25) {
    expect(passedMs).toBeLessThan(2 * heartbeatMs);
    await basin.pass(25);
  }
  await basin.pass(100);
  expect(claims).toEqual([0, 1]);
});

it('reads on over a new connection when nothing arrives on the old one', async () => {
  const [first, other] = [basin.start(), basin.start()];
  await basin.pass(500);
  first.deafen();
  await basin.pass(2 * deadAfterMs);
  expect(first.membership.isCurrent()).toBe(true);
  expect(seenBy(first)).toEqual(idsOf(first, other));
});

it('beats on whatever a heartbeat is refused for', async () => {
  const first = basin.start();
  await basin.pass(500);
  first.cut(new MillraceError('permanent', 'streams.fenced', 'of all streams this one'));
  await basin.pass(2 * deadAfterMs);
  expect(first.membership.isCurrent()).toBe(false);
  first.mend();
  await basin.pass(2 * heartbeatMs);
  expect(first.membership.isCurrent()).toBe(true);
});

it('is not moved by a wall clock that jumps', async () => {
  const [first, second] = [basin.start(), basin.start()];
  await basin.pass(500);
  first.clock.jumpTo(first.clock.nowMs() + 3_600_000);
  second.clock.jumpTo(second.clock.nowMs() - 3_600_000);
  await basin.pass(2 * heartbeatMs);
  for (const process of [first, second]) {
    expect(process.membership.isCurrent()).toBe(true);
    expect(seenBy(process)).toEqual(idsOf(first, second));
  }
});

describe('a slow store', () => {
  /** Two processes that have found their pace. */
  async function startSlow(requestMs: number): Promise<[BasinProcess, BasinProcess]> {
    const processes: [BasinProcess, BasinProcess] = [basin.start(), basin.start()];
    for (const process of processes) process.slow(requestMs);
    await basin.pass(60_000);
    return processes;
  }

  // A store that took 2.2 s for each request, and did each, left every process blind for as long as that went on.
  it.each([1_000, 2_200, 3_500])('of %i ms a request blinds nobody, and loses nobody', async (requestMs) => {
    const both = await startSlow(requestMs);
    for (let passedMs = 0; passedMs < 60_000; passedMs += 500) {
      await basin.pass(500);
      for (const process of both) {
        expect([passedMs, process.membership.isCurrent()]).toEqual([passedMs, true]);
        expect([passedMs, ...seenBy(process)]).toEqual([passedMs, ...idsOf(...both)]);
      }
    }
  });

  // It believes itself for longer than the others, and so it has to believe them.
  it('for one alone, which also goes deaf for a while: it loses nobody', async () => {
    const [slow, quick] = await startSlow(0);
    slow.slow(3_500);
    for (let passedMs = 0; passedMs < 60_000; passedMs += 100) {
      if (passedMs === 30_000) slow.deafen();
      await basin.pass(100);
      expect([passedMs, ...seenBy(slow)]).toEqual([passedMs, ...idsOf(slow, quick)]);
    }
    expect(slow.membership.isCurrent()).toBe(true);
  });

  it('slower than anybody would wait for leaves a process blind', async () => {
    const [process] = await startSlow(6_000);
    expect(process.membership.isCurrent()).toBe(false);
  });

  it.each([1_000, 2_200, 3_500])(
    'of %i ms: who is cut off knows it before the others do',
    async (requestMs) => {
      const [silent, other] = await startSlow(requestMs);
      silent.cut();
      expect(await untilLost(silent, other)).toBeLessThan(30_000);
      expect(silent.membership.isCurrent()).toBe(false);
    },
  );

  // It has stated a long lease, and then a short one, by which the others go.
  it.each([0, 2_000, 4_000, 5_000, 6_000, 7_000, 8_000])(
    'that is quick again, and %i ms later cut for one: it knows that before the others do',
    async (cutAfterMs) => {
      const [silent, other] = await startSlow(3_500);
      for (const process of [silent, other]) process.slow(0);
      await basin.pass(cutAfterMs);
      silent.cut();
      await untilLost(silent, other);
      expect(silent.membership.isCurrent()).toBe(false);
    },
  );

  it('that is quick again is soon waited for no longer than before', async () => {
    const [silent, other] = await startSlow(2_200);
    for (const process of [silent, other]) process.slow(0);
    await basin.pass(deadAfterMs);
    silent.cut();
    expect(await untilLost(silent, other)).toBeLessThanOrEqual(deadAfterMs + heartbeatMs);
  });

  /** For how long the other waits for it. */
  async function untilLost(silent: BasinProcess, other: BasinProcess): Promise<number> {
    let passedMs = 0;
    for (; seenBy(other).includes(silent.membership.id); passedMs += 25) {
      expect(passedMs).toBeLessThan(60_000);
      await basin.pass(25);
    }
    return passedMs;
  }
});

it('waits for a process of an older release, which states no lease, as long as it did', async () => {
  const other = basin.start();
  await basin.pass(500);
  const older = { kind: 'member', version: 1, id: 'older', beat: 1, status: 'here', offers: [], holds: [] };
  const at = new Date(0).toISOString();
  await store()
    .stream(streamNames.members)
    .append([jsonRecord({ ...older, process: null, at })]);
  await basin.pass(deadAfterMs - 100);
  expect(seenBy(other)).toContain('older');
  await basin.pass(heartbeatMs);
  expect(seenBy(other)).not.toContain('older');
});
