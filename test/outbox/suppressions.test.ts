/**
 * Whom mail must not be sent to, as a view of the streams: what a start reads, what arrives later, what a person lifts;
 * the same from both streams in any order, and from two processes that both believe they do the work.
 */
import { describe, expect, it } from 'vitest';
import { createSuppressions } from '../../src/outbox/suppressions.ts';
import type { Suppressions } from '../../src/outbox/suppressions.ts';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import type { NewRecord, StreamStore } from '../../src/streams/stream-store.ts';
import { createManualClock } from '../streams/manual-clock.ts';
import { s2Binary } from '../streams/s2-lite.ts';
import { openStoreAt, startS2Fixture } from '../streams/s2-fixture.ts';
import { readBodies } from '../streams/store-reading.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const DAY_MS = 86_400_000;
const KEPT_MS = 90 * DAY_MS;
const signal = new AbortController().signal;
const temporary = useTemporaryStore();
const log = createLog('silent');

const event = (of: string, to: string): NewRecord => {
  const details = of === 'bounced' ? { bounce: { type: 'Permanent' } } : {};
  const [providerId, at] = [`p-${to}`, '2026-11-22T10:00:00Z'];
  const fields = { event: of, providerId, messageId: null, to: [to], tags: {}, at, details };
  return jsonRecord({ kind: 'delivery', version: 1, ...fields });
};
const bounced = (to: string): NewRecord => event('bounced', to);

const append = (store: StreamStore, ...records: NewRecord[]) =>
  store.stream(streamNames.delivery).append(records);

async function lift(store: StreamStore, address: string): Promise<void> {
  const belowDeliverySeqNum = await store.stream(streamNames.delivery).tail();
  const fields = { address, belowDeliverySeqNum, at: '2026-11-22T10:00:00Z' };
  await store
    .stream(streamNames.suppressions)
    .append([jsonRecord({ kind: 'suppression-lift', version: 1, ...fields })]);
}

function viewOf(store: StreamStore, clock: Clock = systemClock): Suppressions {
  return createSuppressions({ store, clock, log }, { keptMs: KEPT_MS });
}

async function restored(store: StreamStore, clock?: Clock): Promise<Suppressions> {
  const view = viewOf(store, clock);
  await view.restore(signal);
  return view;
}

const has = (view: Suppressions, ...addresses: string[]): boolean => view.against(addresses).length > 0;
/** What the stream `suppressions` holds, by kind and by number on `delivery`. */
const digest = async (store: StreamStore): Promise<[string, number][]> =>
  (await readBodies(store.stream(streamNames.suppressions))).map((body) => {
    const { kind, deliverySeqNum, belowDeliverySeqNum, nextDeliverySeqNum } = JSON.parse(body) as Record<
      'deliverySeqNum' | 'belowDeliverySeqNum' | 'nextDeliverySeqNum',
      number
    > & { kind: string };
    return [kind, deliverySeqNum ?? belowDeliverySeqNum ?? nextDeliverySeqNum];
  });

/** A store of which the numbers are kept that reads of `delivery` begin at. */
function watched(store: StreamStore): { store: StreamStore; readsFrom: number[] } {
  const readsFrom: number[] = [];
  const stream: StreamStore['stream'] = (name) => {
    const whole = store.stream(name);
    if (name !== streamNames.delivery) return whole;
    return { ...whole, read: (options) => (readsFrom.push(options.fromSeqNum), whole.read(options)) };
  };
  return { store: { ...store, stream }, readsFrom };
}

describe('the suppression list', () => {
  it('is made from what stands on `delivery`', async () => {
    const store = temporary();
    await append(store, event('sent', 'ann@a.example'), bounced('ann@a.example'));
    await append(store, event('complained', 'Bea@B.example'), event('delivered', 'cai@c.example'));
    const view = await restored(store);
    expect(view.against(['ANN@a.example', 'bea@b.example', 'cai@c.example'])).toMatchObject([
      { address: 'ann@a.example', reason: 'bounced', deliverySeqNum: 1 },
      { address: 'bea@b.example', reason: 'complained', deliverySeqNum: 2 },
    ]);
    expect(view.size()).toBe(2);
  });

  it('follows what arrives, and what a person lifts; a later bounce suppresses again', async () => {
    const store = temporary();
    const view = await restored(store);
    const stop = new AbortController();
    const following = view.follow(stop.signal);
    const digested = [['suppression', 0]] as [string, number][];
    await append(store, bounced('ann@a.example'));
    await expect.poll(() => digest(store)).toEqual(digested);
    expect(has(view, 'ann@a.example')).toBe(true);
    await lift(store, 'ann@a.example');
    await expect.poll(() => has(view, 'ann@a.example')).toBe(false);
    await append(store, bounced('ann@a.example'));
    digested.push(['suppression-lift', 1], ['suppression', 1]);
    await expect.poll(() => digest(store)).toEqual(digested);
    expect(has(view, 'ann@a.example')).toBe(true);
    stop.abort();
    await following;
    expect(has(await restored(store), 'ann@a.example')).toBe(true);
    expect(await digest(store)).toEqual(digested);
  });

  it.each([
    ['was not looked at before', false],
    ['was', true],
  ])('obeys a lift of what %s, also after a restart', async (_, isKnown) => {
    const store = temporary();
    await append(store, bounced('ann@a.example'), bounced('bea@b.example'));
    if (isKnown) await restored(store);
    await lift(store, 'ann@a.example');
    for (let start = 0; start < 2; start++) {
      const view = await restored(store);
      expect([has(view, 'ann@a.example'), has(view, 'bea@b.example')]).toEqual([false, true]);
    }
    await append(store, bounced('ann@a.example'));
    expect(has(await restored(store), 'ann@a.example')).toBe(true);
  });

  it('reads of a long history only what is not digested yet', async () => {
    const store = temporary();
    const delivered = Array.from({ length: 999 }, (_, n) => event('delivered', `x${n}@x.example`));
    for (let batch = 0; batch < 13; batch++)
      await append(store, ...delivered, bounced(`b${batch}@x.example`));
    for (let batch = 0; batch < 11; batch++) await append(store, ...delivered);
    await restored(store);
    // Numbers of bounces tell how far it got, and where there are none, a position after 10,000 records.
    const { store: seen, readsFrom } = watched(store);
    const view = await restored(seen);
    expect(view.size()).toBe(13);
    expect((await digest(store)).at(-1)?.[0]).toBe('suppression-position');
    expect(Math.min(...readsFrom)).toBeGreaterThan(13 * 1000 + 9_999);
  });

  it('forgets what is older than mail is kept', async () => {
    const store = temporary();
    await append(store, bounced('ann@a.example'));
    const clock = createManualClock(Date.now());
    const view = await restored(store, clock);
    clock.advance(KEPT_MS - DAY_MS);
    expect(has(view, 'ann@a.example')).toBe(true);
    clock.advance(2 * DAY_MS);
    expect(has(view, 'ann@a.example')).toBe(false);
    // A start goes on from the newest record, and has caught up in days.
    const again = await restored(store, clock);
    clock.advance(4 * DAY_MS);
    expect(has(again, 'ann@a.example')).toBe(false);
  });

  it('forgets nobody because the clock is months ahead for a while', async () => {
    const store = temporary();
    await append(store, bounced('ann@a.example'));
    const clock = createManualClock(Date.now());
    const view = await restored(store, clock);
    clock.jumpTo(Date.now() + 100 * DAY_MS);
    expect(has(view, 'ann@a.example')).toBe(true);
    expect(has(await restored(store, clock), 'ann@a.example')).toBe(true);
    clock.advance(DAY_MS);
    expect(has(view, 'ann@a.example')).toBe(true);
    expect(view.size()).toBe(1);
  });

  it('is not hidden by records that nobody can read', async () => {
    const store = temporary();
    const unreadable = [
      { body: '{"bounced' },
      jsonRecord({ kind: 'delivery', version: 1, event: 'bounced' }),
    ];
    await append(store, ...unreadable, bounced('ann@a.example'));
    await store.stream(streamNames.suppressions).append([{ body: 'suppression' }]);
    expect(has(await restored(store), 'ann@a.example')).toBe(true);
  });

  it('stops at what a newer release wrote', async () => {
    const store = temporary();
    const newer = { kind: 'suppression-lift', version: 2, address: 'ann@a.example' };
    await store.stream(streamNames.suppressions).append([jsonRecord(newer)]);
    await expect(restored(store)).rejects.toMatchObject({ code: 'records.newer_version' });
  });

  it('takes no harm where two processes digest the same, and a person lifts in between', async () => {
    const store = temporary();
    await append(store, bounced('ann@a.example'));
    // Both have read before either has written: the second writes what the first one has, behind the lift.
    const slow = { kind: 'suppression', version: 1, deliverySeqNum: 0, address: 'ann@a.example' };
    const rest = { reason: 'bounced', message: null, providerId: 'p', at: new Date().toISOString() };
    await restored(store);
    await lift(store, 'ann@a.example');
    await store.stream(streamNames.suppressions).append([jsonRecord({ ...slow, ...rest })]);
    expect(has(await restored(store), 'ann@a.example')).toBe(false);
  });
});

describe.skipIf(s2Binary() === null)('on S2', () => {
  it('is restored from streams that are not there yet, follows, and survives a restart of the server', async () => {
    const fixture = await startS2Fixture();
    await using stack = new AsyncDisposableStack();
    stack.defer(() => fixture.stop());
    const store = await openStoreAt(fixture.server.url);
    stack.defer(() => store.close());
    const view = await restored(store);
    const stop = new AbortController();
    const following = view.follow(stop.signal);
    await append(store, event('delivered', 'cai@c.example'), bounced('ann@a.example'));
    await expect.poll(() => has(view, 'ann@a.example'), { timeout: 10_000 }).toBe(true);
    await fixture.server.stop();
    await fixture.restart();
    await lift(store, 'ann@a.example');
    await append(store, bounced('bea@b.example'));
    await expect.poll(() => has(view, 'bea@b.example'), { timeout: 20_000 }).toBe(true);
    await expect.poll(() => has(view, 'ann@a.example'), { timeout: 10_000 }).toBe(false);
    stop.abort();
    await following;
    const again = await restored(store);
    expect([has(again, 'ann@a.example'), has(again, 'bea@b.example')]).toEqual([false, true]);
  }, 60_000);
});
