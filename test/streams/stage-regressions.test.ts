/** Faults that the stage had, most of them found by the simulation: each test tells the story of one. */
import { describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import type { OutcomeRecord } from '../../src/streams/journal-records.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import type { StageOptions } from '../../src/streams/stage.ts';
import type { StreamRecord, StreamStore } from '../../src/streams/stream-store.ts';
import { never, numberOf, numbered, useStages } from './stage-fixture.ts';
import { readAll } from './store-reading.ts';

const { stream, start, outcomes, final, settled } = useStages();
const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);

describe('faults that the stage had', () => {
  // The second copy of a mail was settled as a duplicate while the first was still being handled. The daemon was
  // killed, found the key settled, and dropped the first copy as well: the mail was lost.
  it('handles the first copy of a mail whose second copy was settled before a crash', async () => {
    await stream('source').append([numbered(0, 'same'), numbered(1, 'same')]);
    const first = start((_record, { signal }) => never(signal), { drainMs: 0 });
    await settled(1);
    await first.stop();
    const second = start(async () => ({ kind: 'done' }));
    await settled(2);
    await second.stop();
    expect((await final()).map(({ seqNum, outcome }) => [seqNum, outcome])).toEqual([
      [1, 'duplicate'],
      [0, 'done'],
    ]);
  });

  // In a long lane the first records had their body in memory and those behind were set aside. A checkpoint
  // listed only the latter; after a restart they came first.
  it('keeps the order of a lane over a restart when only its end was set aside', async () => {
    await stream('source').append(numbers(9).map((n) => numbered(n)));
    const options = {
      laneOf: (record: StreamRecord) => (numberOf(record) === 8 ? 'other' : 'long'),
      limits: { laneBodies: 2 },
      drainMs: 0,
    };
    const first = start(async (record, { signal }) => {
      return numberOf(record) === 8 ? { kind: 'done' } : never(signal);
    }, options);
    await settled(1);
    await first.stop();
    const order: number[] = [];
    const second = start(async (record) => {
      order.push(numberOf(record));
      return { kind: 'done' };
    }, options);
    await settled(9);
    await second.stop();
    expect(order).toEqual(numbers(8));
  });

  // Scheduled records of one lane came due together. The first failed and held the lane; the others stayed in
  // the window without a body, filled it, and so the first was never woken again.
  it('goes on when more scheduled records than the window holds come due in one lane', async () => {
    const total = 20;
    await stream('source').append(numbers(total).map((n) => numbered(n)));
    const dueMs = clock.nowMs() + 200;
    let failures = 3;
    let waiters = 0;
    const { stage, stop } = start(
      async () => {
        waiters = Math.max(waiters, stage.stats().waiters);
        if (clock.nowMs() < dueMs)
          return { kind: 'deferred', untilMs: dueMs, reason: 'scheduled', holdsLane: false };
        if (failures-- > 0) throw new MillraceError('transient', 'test.transient', 'not now');
        return { kind: 'done' };
      },
      { laneOf: () => 'one', limits: { window: 4, laneBodies: 2 } },
    );
    await settled(total);
    await stop();
    // Each deferral while the window was full had left one more waiter behind.
    expect(waiters).toBeLessThan(5);
  });

  // `laneOf` parses the record: one that could not be read ended the stage, and again after each restart.
  it('parks a record whose lane cannot be told, and goes on', async () => {
    await stream('source').append([numbered(0), numbered(1)]);
    const { stop } = start(async () => ({ kind: 'done' }), {
      laneOf(record) {
        if (numberOf(record) === 0) throw new MillraceError('permanent', 'test.malformed', 'no lane');
        return 'lane';
      },
    });
    await settled(2);
    await stop();
    expect((await final()).map(({ seqNum, outcome }) => [seqNum, outcome])).toEqual([
      [0, 'dead-letter'],
      [1, 'done'],
    ]);
  });

  // An owner that was killed soon after each start began to count anew each time: in a crash loop there never
  // was a checkpoint, and every recovery was longer than the one before.
  it('writes a checkpoint also when no owner lives long enough for one of its own', async () => {
    const handle: StageOptions['handle'] = async () => ({ kind: 'done' });
    for (const round of numbers(6)) {
      // The one before learns that it lost the journal when it wants to write, and writes no checkpoint.
      await start(handle, { limits: { checkpointOutcomes: 8 } }).stage.ready;
      await stream('source').append([0, 1].map((n) => numbered(2 * round + n)));
      await settled(2 * round + 2);
    }
    const kinds = async () =>
      (await readAll(stream('journal'))).map(
        ({ body }) => (JSON.parse(Buffer.from(body).toString()) as { kind: string }).kind,
      );
    await expect.poll(kinds).toContain('checkpoint');
  });

  // A part of a checkpoint held so and so many records, whatever their size: with long keys it outgrew what a
  // stream takes, and the stage could never write a checkpoint again.
  it('writes a checkpoint of many records with long keys and lanes', async () => {
    const total = 1_500;
    const longKey = (n: number): string => `${n}-`.padEnd(500, 'k');
    for (let from = 0; from < total; from += 500)
      await stream('source').append(numbers(500).map((n) => numbered(from + n, longKey(from + n))));
    const handle: StageOptions['handle'] = async () => ({
      kind: 'deferred',
      untilMs: clock.nowMs() + 3_600_000,
      reason: 'scheduled',
      holdsLane: false,
    });
    const options = { laneOf: (record: StreamRecord) => `${numberOf(record)}-`.padEnd(500, 'l') };
    const first = start(handle, options);
    await expect.poll(() => first.stage.stats().aside, { timeout: 15_000 }).toBe(total);
    await first.stop();
    const second = start(handle, options);
    await second.stage.ready;
    expect(second.stage.stats().aside).toBe(total);
    await second.stop();
    expect(await outcomes()).toHaveLength(total);
  });

  // A run that logged much lost all of its facts, and with them what its caps and its conversation were known by.
  it('keeps the small facts of an outcome where one is too large', async () => {
    await stream('source').append([numbered(0)]);
    const facts = { logs: ['x'.repeat(200_000), '"'.repeat(50_000)], thread: 't', to: 'ann@sender.example' };
    const { stop } = start(async () => ({ kind: 'done', facts }));
    const [outcome] = await settled(1);
    await stop();
    expect(outcome?.facts).toEqual({ thread: 't', to: 'ann@sender.example', dropped: ['logs'] });
  });

  // A stage that was stopped while it took over its journal, or finished what the owner before had decided, ended
  // with the signal's own reason, which looked like a failure to whoever waited for it.
  it.each(['fence', 'read', 'append'] as const)(
    'ends quietly when it is stopped at its first %s',
    async (call) => {
      const intent = { kind: 'intent', version: 1, outcome: outcomeOf(0), outputs: [] };
      await stream('journal').append([jsonRecord(intent)]);
      let calls = 0;
      const { running, stop } = start(
        async () => ({ kind: 'done' }),
        {},
        stoppingAt(call, () => {
          calls++;
          void stop();
        }),
      );
      await running;
      expect(calls).toBe(1);
      const next = start(async () => ({ kind: 'done' }));
      await settled(1);
      await next.stop();
    },
  );

  // A backoff that was begun while the machine's clock was years ahead held its lane for years, once the clock was right
  // and the daemon was started again.
  it('waits no longer than it was told to, though the clock was ahead when it was told', async () => {
    await stream('source').append([numbered(0)]);
    const ahead = { ...clock, nowMs: () => clock.nowMs() + 4 * 365 * 86_400_000 };
    const first = start(() => Promise.reject(new MillraceError('transient', 'test.away', 'not now')), {
      clock: ahead,
      maxAttempts: 1_000_000,
      laneOf: () => 'lane',
    });
    await expect.poll(outcomes).not.toEqual([]);
    await first.stop();
    expect(await final()).toEqual([]);
    const next = start(async () => ({ kind: 'done' }), { laneOf: () => 'lane' });
    await settled(1);
    await next.stop();
  });

  // With a full disk nothing could be committed, and a daemon that was told to end waited for that until it was killed.
  it('ends while the store takes nothing, and the next one does what was left', async () => {
    await stream('source').append([numbered(0)]);
    const refused = Promise.withResolvers<void>();
    const { stop } = start(
      async () => ({ kind: 'done' }),
      { drainMs: 0 },
      refusingAppends(() => refused.resolve()),
    );
    await refused.promise;
    await stop();
    expect(await final()).toEqual([]);
    const next = start(async () => ({ kind: 'done' }));
    await settled(1);
    await next.stop();
  });

  // It was fenced while it drained. The handlers that were still running were told nothing, and went on for as long as
  // they liked, beside those of the new owner.
  it('ends its handlers when it fails while it drains', async () => {
    const [released, aborted] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    await stream('source').append([numbered(0), numbered(1)]);
    let running = 0;
    const { stop } = start(async (record, { signal }) => {
      running++;
      if (numberOf(record) === 1) await released.promise;
      else await never(signal).finally(aborted.resolve);
      return { kind: 'done' };
    });
    await expect.poll(() => running).toBe(2);
    await stream('journal').fence('its new owner');
    const stopped = stop();
    released.resolve();
    await expect(stopped).rejects.toMatchObject({ code: 'stage.ownership_lost' });
    await aborted.promise;
  });
});

/** A store that takes no outcome, as on a full disk. */
function refusingAppends(onRefused: () => void) {
  return (store: StreamStore): StreamStore => ({
    ...store,
    stream: (name) => ({
      ...store.stream(name),
      append() {
        onRefused();
        return Promise.reject(new MillraceError('transient', 'streams.unavailable', 'the disk is full'));
      },
    }),
  });
}

/** A store that stops the stage when it first calls for this on its journal. */
function stoppingAt(call: 'fence' | 'read' | 'append', stop: () => void) {
  return (store: StreamStore): StreamStore => ({
    ...store,
    stream(name) {
      const whole = store.stream(name);
      if (name !== 'journal') return whole;
      const stopping = async (...args: never[]): Promise<unknown> => {
        await Promise.resolve();
        stop();
        return (whole[call] as (...args: never[]) => unknown)(...args);
      };
      return { ...whole, [call]: stopping };
    },
  });
}

function outcomeOf(seqNum: number): OutcomeRecord {
  const at = new Date(clock.nowMs()).toISOString();
  const decided = { outcome: 'done', attempts: 1, reason: null, error: null, facts: {} } as const;
  return { kind: 'outcome', version: 1, seqNum, key: `key-${seqNum}`, at, durationMs: 1, ...decided };
}
