/** The outbox handler: what is sent under which key, what waits, and what is looked up before it is sent again. */
import { describe, expect, it } from 'vitest';
import type { ProviderRequest } from '../../src/mail/email.ts';
import { createOutbox, leavesDoubt, outboxOrder } from '../../src/outbox/outbox.ts';
import type { OutboundProvider } from '../../src/outbox/outbox.ts';
import { createSuppressions } from '../../src/outbox/suppressions.ts';
import { createBudget } from '../../src/platform/budget.ts';
import { startStopwatch, systemClock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import { writeBlob } from '../../src/streams/blob.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import type { OutboxRecord } from '../../src/streams/records.ts';
import type { StreamRecord, StreamStore } from '../../src/streams/stream-store.ts';
import { createManualClock } from '../streams/manual-clock.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const NOW_MS = Date.parse('2026-11-22T10:00:00Z');
const HOUR_MS = 3_600_000;
const clock = { ...systemClock, nowMs: () => NOW_MS };
const signal = new AbortController().signal;

const request: ProviderRequest = {
  from: 'a@agents.example',
  to: 'ann@sender.example',
  subject: 'Re: hi',
  text: 'ih',
  headers: {},
};
const frozen: OutboxRecord = {
  kind: 'request',
  version: 1,
  idempotencyKey: 'reverser/3/0/x',
  cause: { inbox: 'reverser', seqNum: 3, effect: 0, emailId: 'x' },
  thread: 'reverser/t1',
  notBefore: null,
  request,
};

const store = useTemporaryStore();

/** A provider that keeps what it is asked, and finds what it is told to find. */
function provider(found: { providerId: string } | null = null) {
  const sent: [ProviderRequest, string][] = [];
  const lookedUp: number[] = [];
  const outbound: OutboundProvider = {
    send: async (frozenRequest, key) => {
      sent.push([frozenRequest, key]);
      return { providerId: 'p1' };
    },
    findSent: async (_request, sinceMs) => {
      lookedUp.push(sinceMs);
      return found;
    },
  };
  return { outbound, sent, lookedUp };
}

async function recordOf(value: OutboxRecord): Promise<StreamRecord> {
  const stream = store().stream('outbox');
  const { startSeqNum } = await stream.append([jsonRecord(value, value.idempotencyKey)]);
  return (await stream.read({ fromSeqNum: startSeqNum })).records[0]!;
}

/** What the streams said of addresses when this was called the last time is what the handler goes by. */
const suppressions = () =>
  createSuppressions({ store: store(), clock, log: createLog('silent') }, { keptMs: 90 * 24 * HOUR_MS });

function outboxWith(
  outbound: OutboundProvider,
  { view = suppressions(), memory = createBudget(Infinity) } = {},
): ReturnType<typeof createOutbox> {
  return createOutbox({ store: store(), outbound, suppressions: view, clock, memory });
}

const attempt = (doubtSinceMs: number | null = null) => ({ number: 1, doubtSinceMs, ageMs: () => 0, signal });

describe('outbox', () => {
  it('sends the frozen request under its key', async () => {
    const { outbound, sent } = provider();
    const record = await recordOf(frozen);
    const outcome = await outboxWith(outbound)(record, attempt());
    expect(sent).toEqual([[request, 'reverser/3/0/x']]);
    expect(outcome).toMatchObject({
      kind: 'done',
      facts: { providerId: 'p1', idempotencyKey: 'reverser/3/0/x', cause: frozen.cause },
    });
    expect(outboxOrder.laneOf(record)).toBe('reverser/t1');
  });

  it('sends a request that lies beside its record', async () => {
    const { outbound, sent } = provider();
    const blob = await writeBlob(store().stream('request/x'), Buffer.from(JSON.stringify(request)));
    await outboxWith(outbound)(await recordOf({ ...frozen, request: { blob } }), attempt());
    expect(sent).toEqual([[request, 'reverser/3/0/x']]);
  });

  it('parks what the provider refuses for good, with its cause', async () => {
    const error = new MillraceError('permanent', 'resend.rejected', 'no such domain');
    const outbound: OutboundProvider = { ...provider().outbound, send: () => Promise.reject(error) };
    const outcome = await outboxWith(outbound)(await recordOf(frozen), attempt());
    expect(outcome).toMatchObject({
      kind: 'dead-letter',
      reason: 'resend.rejected',
      error,
      facts: { cause: frozen.cause },
    });
  });

  it('leaves a scheduled request until its time, without holding its thread', async () => {
    const { outbound, sent } = provider();
    const notBefore = new Date(NOW_MS + HOUR_MS).toISOString();
    const outcome = await outboxWith(outbound)(await recordOf({ ...frozen, notBefore }), attempt());
    expect(outcome).toEqual({
      kind: 'deferred',
      untilMs: NOW_MS + HOUR_MS,
      reason: 'outbox.scheduled',
      holdsLane: false,
    });
    expect(sent).toEqual([]);
  });

  it('does not look for a scheduled request that was cut off long before it was due', async () => {
    const { outbound, sent, lookedUp } = provider();
    const record = await recordOf({ ...frozen, notBefore: new Date(NOW_MS - HOUR_MS).toISOString() });
    await outboxWith(outbound)(record, attempt(NOW_MS - 20 * 24 * HOUR_MS));
    expect([sent.length, lookedUp]).toEqual([1, []]);
    // A day after it was due it is another matter.
    const late = await recordOf({ ...frozen, notBefore: new Date(NOW_MS - 30 * HOUR_MS).toISOString() });
    await outboxWith(outbound)(late, attempt(NOW_MS - 20 * 24 * HOUR_MS));
    expect(lookedUp).toEqual([NOW_MS - 30 * HOUR_MS]);
  });

  it('holds no more of large requests than it may', async () => {
    const blob = await writeBlob(store().stream('request/x'), Buffer.from(JSON.stringify(request)));
    const record = await recordOf({ ...frozen, request: { blob } });
    const memory = createBudget(2 * blob.bytes);
    const answers: (() => void)[] = [];
    const outbound: OutboundProvider = {
      ...provider().outbound,
      send: async () => {
        const { promise, resolve } = Promise.withResolvers<void>();
        answers.push(resolve);
        await promise;
        return { providerId: 'p1' };
      },
    };
    const handle = outboxWith(outbound, { memory });
    const handled = [1, 2, 3].map(() => handle(record, attempt()));
    await expect.poll(() => answers.length).toBe(2);
    expect(memory.taken).toBe(2 * blob.bytes);
    answers[0]!();
    await handled[0];
    await expect.poll(() => answers.length).toBe(3);
    for (const answer of answers) answer();
    await Promise.all(handled);
    expect(memory.taken).toBe(0);
  });

  it('repeats an attempt in doubt under the same key while the provider knows it', async () => {
    const { outbound, sent, lookedUp } = provider();
    await outboxWith(outbound)(await recordOf(frozen), attempt(NOW_MS - 20 * HOUR_MS));
    expect([sent.length, lookedUp.length]).toEqual([1, 0]);
  });

  it.each([25, 240])('looks before it sends again after %d h', async (hours) => {
    const sinceMs = NOW_MS - hours * HOUR_MS;
    const found = provider({ providerId: 'p0' });
    const record = await recordOf(frozen);
    const outcome = await outboxWith(found.outbound)(record, attempt(sinceMs));
    expect(outcome).toMatchObject({ kind: 'done', facts: { providerId: 'p0', foundSent: true } });
    expect([found.sent, found.lookedUp]).toEqual([[], [sinceMs]]);

    const missing = provider(null);
    await outboxWith(missing.outbound)(record, attempt(sinceMs));
    expect(missing.sent.length).toBe(1);
  });

  it('begins again after a search during which the process stood still', async () => {
    const standing = createManualClock(NOW_MS);
    const { outbound, sent } = provider();
    const findSent = async (): Promise<null> => {
      standing.advance(HOUR_MS);
      return null;
    };
    const deps = { store: store(), suppressions: suppressions(), clock: standing };
    const handle = createOutbox({ ...deps, outbound: { ...outbound, findSent } });
    const begun = { ...attempt(NOW_MS - 25 * HOUR_MS), ageMs: startStopwatch(standing) };
    await expect(handle(await recordOf(frozen), begun)).rejects.toMatchObject({
      kind: 'transient',
      code: 'outbox.attempt_too_old',
    });
    expect(sent).toEqual([]);
    expect(leavesDoubt(new MillraceError('transient', 'outbox.attempt_too_old', ''))).toBe(false);
  });

  it('takes what its own journal says was sent under the key, before it asks the provider', async () => {
    const { outbound, sent, lookedUp } = provider();
    const record = await recordOf(frozen);
    const outcome = { kind: 'outcome', version: 1, seqNum: 0, attempts: 1, reason: null, error: null };
    const settled = { ...outcome, outcome: 'done', at: '2026-01-01T00:00:00Z', durationMs: 1 };
    for (const [key, providerId] of [
      ['reverser/3/0/y', 'p8'],
      ['reverser/3/0/x', 'p9'],
    ] as const)
      await store()
        .stream('sent')
        .append([jsonRecord({ ...settled, key, facts: { providerId } })]);
    const copy = { ...record, headers: [...record.headers, ['doubt-since', '0'] as const] };
    const found = await outboxWith(outbound)(copy, attempt());
    expect(found).toMatchObject({ kind: 'done', facts: { providerId: 'p9', foundSent: true } });
    expect([sent, lookedUp]).toEqual([[], []]);
  });

  it('does not read its journal for an attempt of its own, however long a provider is away', async () => {
    const asked: string[] = [];
    const watched: StreamStore = {
      ...store(),
      stream(name) {
        asked.push(name);
        return store().stream(name);
      },
    };
    const view = suppressions();
    const record = await recordOf(frozen);
    const { outbound, lookedUp } = provider();
    const handle = createOutbox({ store: watched, outbound, suppressions: view, clock });
    await handle(record, attempt(NOW_MS - 30 * HOUR_MS));
    expect([asked, lookedUp.length]).toEqual([[], 1]);
  });

  it('looks first for a request that was put back, since the attempts of the record before', async () => {
    const sinceMs = NOW_MS - 30 * HOUR_MS;
    const { outbound, sent, lookedUp } = provider({ providerId: 'p0' });
    const record = await recordOf(frozen);
    const copy = { ...record, headers: [...record.headers, ['doubt-since', String(sinceMs)] as const] };
    await outboxWith(outbound)(copy, attempt(NOW_MS));
    expect([sent, lookedUp]).toEqual([[], [sinceMs]]);
  });
});

describe('a recipient that must not be written to', () => {
  const several = { ...request, to: ['bea@sender.example'], cc: ['ANN@Sender.Example'] };

  async function afterABounce(outbound: OutboundProvider): Promise<ReturnType<typeof createOutbox>> {
    const to = ['ann@sender.example'];
    const details = { bounce: { type: 'Permanent', subType: 'General', message: 'no such user' } };
    const at = new Date(NOW_MS).toISOString();
    const event = { event: 'bounced', providerId: 'p0', messageId: null, to, tags: {}, at, details };
    await store()
      .stream(streamNames.delivery)
      .append([jsonRecord({ kind: 'delivery', version: 1, ...event })]);
    const view = suppressions();
    await view.restore(signal);
    return outboxWith(outbound, { view });
  }

  it.each([
    ['alone', request],
    ['among others, whatever its case', several],
  ])('gets no mail %s: the request is skipped, with the reason', async (_, of) => {
    const { outbound, sent, lookedUp } = provider();
    const handle = await afterABounce(outbound);
    const outcome = await handle(await recordOf({ ...frozen, request: of }), attempt());
    const suppressed = [expect.objectContaining({ address: 'ann@sender.example', reason: 'bounced' })];
    expect(outcome).toMatchObject({
      kind: 'skipped',
      reason: 'suppressed',
      facts: { idempotencyKey: 'reverser/3/0/x', cause: frozen.cause, suppressed },
    });
    expect([sent, lookedUp]).toEqual([[], []]);
  });

  it('does not keep mail from others', async () => {
    const { outbound, sent } = provider();
    const handle = await afterABounce(outbound);
    const outcome = await handle(
      await recordOf({ ...frozen, request: { ...request, to: 'bea@sender.example' } }),
      attempt(),
    );
    expect([outcome.kind, sent.length]).toEqual(['done', 1]);
  });

  it.each([
    ['was sent', { providerId: 'p0' }, { kind: 'done', facts: { providerId: 'p0', foundSent: true } }],
    ['was not sent', null, { kind: 'skipped', reason: 'suppressed' }],
  ])('is told of truly where an earlier attempt is in doubt, and the mail %s', async (_, found, told) => {
    const { outbound, sent, lookedUp } = provider(found);
    const handle = await afterABounce(outbound);
    const sinceMs = NOW_MS - HOUR_MS;
    expect(await handle(await recordOf(frozen), attempt(sinceMs))).toMatchObject(told);
    expect([sent, lookedUp]).toEqual([[], [sinceMs]]);
  });
});
