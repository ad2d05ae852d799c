/** Redrive and replay on a real store, with real stages: what runs again, how often, and under which keys. */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createRerun } from '../../src/admin/rerun.ts';
import { redrive } from '../../src/admin/redrive.ts';
import type { ReplayPage } from '../../src/admin/replay.ts';
import { stageStreams } from '../../src/admin/stage-streams.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import { headerOf, jsonRecord, originSeqNum } from '../../src/streams/records.ts';
import type { OutboxRecord } from '../../src/streams/records.ts';
import type { Outcome, StageOptions } from '../../src/streams/stage.ts';
import type { StreamRecord, StreamStore } from '../../src/streams/stream-store.ts';
import { readAll } from '../streams/store-reading.ts';
import { startOperatorWorld, workOff } from './operator-world.ts';
import type { OperatorWorld } from './operator-world.ts';

const signal = new AbortController().signal;
let world: OperatorWorld;
/** Records that the tool of `desk` got, by number. */
let ran: StreamRecord[];
beforeEach(async () => {
  world = await startOperatorWorld();
  ran = [];
});
afterEach(() => world[Symbol.asyncDispose]());

const threw = new MillraceError('permanent', 'tool.threw', 'TypeError: no', { hint: 'Mend it.' });
const mended = async (record: StreamRecord): Promise<Outcome> => {
  ran.push(record);
  return { kind: 'done' };
};
const broken: StageOptions['handle'] = () => Promise.reject(threw);

const workDesk = (handle: StageOptions['handle'], options: Partial<StageOptions> = {}): Promise<void> =>
  workOff(world.store, { source: 'inbox/desk', journal: 'runs/desk', handle, ...options });
const desk = (): Promise<StreamRecord[]> => readAll(world.store.stream('inbox/desk'));
const keysOf = (records: StreamRecord[]) => records.map((record) => headerOf(record, 'key'));

/** Parks so many mails on `inbox/desk`: `e0`, `e1`, … */
async function park(count: number): Promise<void> {
  for (let n = 0; n < count; n++) await world.mail(`e${n}`);
  await workDesk(broken);
}

describe('redrive', () => {
  it('runs a parked mail once, however often it is asked for', async () => {
    await park(1);
    expect(await world.deadLetters()).toMatchObject([
      { stage: 'runner', inbox: 'desk', seqNum: 0, emailId: 'e0', attempts: 1, redrivenAt: null },
    ]);
    const one = { inbox: 'desk', seqNums: { from: 0, to: 0 } };
    expect(await world.redrive(one)).toEqual([{ seqNum: 0, emailId: 'e0', status: 'redriven' }]);
    expect(await world.redrive(one)).toEqual([{ seqNum: 0, emailId: 'e0', status: 'already-redriven' }]);
    expect(await world.redrive({ inbox: 'desk', seqNums: 'all' })).toEqual([]);
    await workDesk(mended);
    expect(await world.redrive(one)).toMatchObject([{ status: 'already-redriven' }]);
    await workDesk(mended);
    expect(ran.map(({ seqNum }) => seqNum)).toEqual([1]);
    expect(await world.deadLetters()).toMatchObject([
      { seqNum: 0, redrivenAt: expect.stringMatching(/^20/) },
    ]);
    expect(await world.deadLetters('inbox=desk&open=true')).toEqual([]);
  });

  it('puts back two requests for it at the same time once', async () => {
    await park(3);
    const all = { inbox: 'desk', seqNums: 'all' };
    await Promise.all([world.redrive(all), world.redrive(all)]);
    expect(await desk()).toHaveLength(6);
  });

  it('puts back a range, then the rest', async () => {
    await park(5);
    await world.redrive({ inbox: 'desk', seqNums: { from: 1, to: 2 } });
    await workDesk(mended);
    expect(ran.map(({ headers }) => new Map(headers).get('copy-of'))).toEqual([
      'inbox/desk#1',
      'inbox/desk#2',
    ]);
    const rest = await world.redrive({ inbox: 'desk', seqNums: 'all' });
    expect(rest.map(({ seqNum }) => seqNum)).toEqual([0, 3, 4]);
  });

  it('goes through more than one page', async () => {
    await park(60);
    const first = await world.ask('/api/admin/redrive', { body: { inbox: 'desk', seqNums: 'all' } });
    const { deadLetters, next } = (await first.json()) as { deadLetters: unknown[]; next: object };
    expect(deadLetters).toHaveLength(50);
    expect(await world.redrive({ inbox: 'desk', seqNums: 'all', from: next })).toHaveLength(10);
  });

  it('takes what fails again as a dead letter of its own, whose effects are still those of the first', async () => {
    await park(1);
    await world.redrive({ inbox: 'desk', seqNums: 'all' });
    await workDesk(broken);
    expect(await world.redrive({ inbox: 'desk', seqNums: 'all' })).toEqual([
      { seqNum: 1, emailId: 'e0', status: 'redriven' },
    ]);
    await workDesk(mended);
    expect(keysOf(await desk())).toEqual(['e0', 'e0#redrive-0', 'e0#redrive-1']);
    expect(ran.map((record) => originSeqNum(record))).toEqual([0]);
  });

  // The outbox forgets keys after 72 h. A run that was cut off behind its request, and parked the mail when it was
  // repeated, had it answered again by a redrive of the week after.
  it('says of a mail that was parked long ago since when a run that was cut off has had a request', async () => {
    for (const id of ['e0', 'e1', 'e2']) await world.mail(id, { receivedAt: '2020-01-01T00:00:00.000Z' });
    await world.mail('e3');
    await workDesk(broken);
    const outbox = world.store.stream('outbox');
    for (const key of ['desk/1/0/e1', 'desk/1/1/e1', 'other/0/0/e0', 'desk/3/0/e3'])
      await outbox.append([jsonRecord({ kind: 'request', version: 1 }, key)]);
    const [request] = await readAll(outbox);
    await world.redrive({ inbox: 'desk', seqNums: 'all' });
    const copies = (await desk()).slice(4);
    expect(copies.map((copy) => headerOf(copy, 'doubt-since'))).toEqual([
      undefined,
      String(request!.timestampMs),
      undefined,
      undefined,
    ]);
    expect(copies.map((copy) => headerOf(copy, 'cause'))).toEqual(['e0', 'e1', 'e2', 'e3']);
  });

  it('looks for the requests of a mail whose time lies ahead', async () => {
    const receivedAt = new Date(Date.now() + 60 * 86_400_000).toISOString();
    for (const id of ['e0', 'e1', 'e2']) await world.mail(id, { receivedAt });
    await workDesk(broken);
    const outbox = world.store.stream('outbox');
    const request = (key: string) => jsonRecord({ kind: 'request', version: 1 }, key);
    await outbox.append([request('desk/0/0/e0')]);
    await outbox.append([{ ...request('desk/1/0/e1'), timestampMs: Date.parse(receivedAt) }]);
    const [first] = await readAll(outbox);
    await world.redrive({ inbox: 'desk', seqNums: 'all' });
    const doubts = (await desk()).slice(3).map((copy) => headerOf(copy, 'doubt-since'));
    expect(doubts).toEqual([String(first!.timestampMs), '0', undefined]);
  });

  it('says of a record that is gone that it is, and puts back its neighbours', async () => {
    await park(2);
    await world.store.stream('inbox/desk').trim(1);
    const found = await world.redrive({ inbox: 'desk', seqNums: 'all' });
    expect(found.map(({ status }) => status)).toEqual(['expired', 'redriven']);
  });

  it('puts back an event that receive parked', async () => {
    const body = JSON.stringify({ type: 'email.received', data: { email_id: 'e7' } });
    const headers = [['key', 'msg_1'] as const, ['svix-id', 'msg_1'] as const];
    await world.store.stream('events').append([{ headers, body }]);
    const receive = { source: 'events', journal: 'received' };
    await workOff(world.store, { ...receive, handle: broken });
    expect(await world.redrive({ stage: 'receive', seqNums: 'all' })).toMatchObject([{ emailId: 'e7' }]);
    await workOff(world.store, { ...receive, handle: mended });
    expect(ran.map((record) => [headerOf(record, 'svix-id'), Buffer.from(record.body).toString()])).toEqual([
      ['msg_1', body],
    ]);
  });
});

describe('a redriven request', () => {
  const frozen: OutboxRecord = {
    kind: 'request',
    version: 1,
    idempotencyKey: 'desk/0/0/e0',
    cause: { inbox: 'desk', seqNum: 0, effect: 0, emailId: 'e0' },
    thread: 't',
    notBefore: null,
    request: { from: 'desk@y.example', to: 'ann@x.example', subject: 'Re: Hi', text: 'x', headers: {} },
  };
  const outbox = { source: 'outbox', journal: 'sent' };
  const copies = async (): Promise<StreamRecord[]> => (await readAll(world.store.stream('outbox'))).slice(1);

  beforeEach(async () => {
    await world.store.stream('outbox').append([jsonRecord(frozen, frozen.idempotencyKey)]);
    await workOff(world.store, { ...outbox, handle: broken });
  });

  it('keeps its idempotency key, and the doubt of its attempts through every copy', async () => {
    const [original] = await readAll(world.store.stream('outbox'));
    await world.redrive({ stage: 'outbox', seqNums: 'all' });
    await workOff(world.store, { ...outbox, handle: broken });
    await world.redrive({ stage: 'outbox', seqNums: 'all' });
    expect(await copies()).toHaveLength(2);
    for (const copy of await copies()) {
      expect(JSON.parse(Buffer.from(copy.body).toString())).toEqual(frozen);
      expect(headerOf(copy, 'doubt-since')).toBe(String(original!.timestampMs));
    }
  });

  // On `local` all requests have the time of a clock that was ahead until it has come: no doubt of theirs was old.
  it('may have gone out since its cause, where the time of its record lies ahead', async () => {
    const DAY_MS = 86_400_000;
    const causedAtMs = Date.now() - DAY_MS;
    const ahead = { ...jsonRecord(frozen, 'desk/1/0/e1'), timestampMs: Date.now() + 60 * DAY_MS };
    const caused = { ...ahead, headers: [['caused-at', String(causedAtMs)] as const] };
    await world.store.stream('outbox').append([ahead, caused]);
    await workOff(world.store, { ...outbox, handle: broken });
    await world.redrive({ stage: 'outbox', seqNums: { from: 1, to: 2 } });
    const doubts = (await copies()).slice(2).map((copy) => headerOf(copy, 'doubt-since'));
    expect(doubts).toEqual(['0', String(causedAtMs)]);
  });

  it('is sent without asking where a person has looked', async () => {
    await world.redrive({ stage: 'outbox', seqNums: 'all', isKnownUnsent: true });
    expect((await copies()).map((copy) => headerOf(copy, 'doubt-since'))).toEqual([undefined]);
  });
});

describe('a redrive that breaks off', () => {
  /** The store, with one append that fails: before it happens, or after. */
  function failing(failure: { append: number; isDone: boolean } | null): StreamStore {
    let appends = 0;
    return {
      ...world.store,
      stream: (name) => {
        const stream = world.store.stream(name);
        return {
          ...stream,
          async append(records, options) {
            const fails = appends++ === failure?.append;
            if (fails && !failure?.isDone) throw new MillraceError('transient', 'streams.unavailable', 'no');
            const ack = await stream.append(records, options);
            if (fails) throw new MillraceError('transient', 'streams.append_ambiguous', 'who knows');
            return ack;
          },
        };
      },
    };
  }

  const [clock, log] = [systemClock, createLog('silent')];
  const attempt = async (failure: Parameters<typeof failing>[0], seqNums: { from: number; to: number }) => {
    const store = failing(failure);
    const deps = { store, rerun: createRerun({ store, clock, log }), clock };
    const request = { seqNums, from: 0, isKnownUnsent: false };
    return redrive(deps, stageStreams({ inbox: 'desk' }), { request, signal });
  };

  it('is taken up where it stopped, wherever that was, long after the stage has forgotten the keys', async () => {
    const failure = fc.record({ append: fc.nat(2), isDone: fc.boolean() });
    const range = fc
      .tuple(fc.nat(3), fc.nat(3))
      .map(([a, b]) => ({ from: Math.min(a, b), to: Math.max(a, b) }));
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(failure, range), { maxLength: 5 }), async (attempts) => {
        await world[Symbol.asyncDispose]();
        world = await startOperatorWorld();
        await park(4);
        for (const [failed, seqNums] of attempts) await attempt(failed, seqNums).catch(() => {});
        await attempt(null, { from: 0, to: 3 });
        const copied = keysOf((await desk()).slice(4));
        expect(copied.toSorted()).toEqual([0, 1, 2, 3].map((n) => `e${n}#redrive-${n}`));
      }),
      { numRuns: 25 },
    );
  }, 60_000);
});

describe('replay', () => {
  const replay = async (body: Record<string, unknown>): Promise<ReplayPage> => {
    const response = await world.ask('/api/admin/replay', { body });
    if (!response.ok) throw new Error(await response.text());
    return (await response.json()) as ReplayPage;
  };
  const statuses = ({ mails }: ReplayPage) => mails.map(({ seqNum, status }) => [seqNum, status]);

  it('runs mail again: once for each replay, under a key and a number of its own', async () => {
    await world.mail('e0');
    await workDesk(mended);
    const one = { inbox: 'desk', emailId: 'e0' };
    expect(statuses(await replay({ ...one, id: 'a', isDryRun: true }))).toEqual([[0, 'selected']]);
    expect(await desk()).toHaveLength(1);
    expect(statuses(await replay({ ...one, id: 'a' }))).toEqual([[0, 'replayed']]);
    expect(statuses(await replay({ ...one, id: 'a' }))).toEqual([[0, 'already-replayed']]);
    expect(statuses(await replay({ ...one, id: 'b' }))).toEqual([[0, 'replayed']]);
    await workDesk(mended);
    expect(ran.map((record) => [record.seqNum, originSeqNum(record)])).toEqual([
      [0, 0],
      [1, 1],
      [2, 2],
    ]);
  });

  it('takes a range, or what came since, and stops where the inbox ended when it began', async () => {
    for (const id of ['e0', 'e1', 'e2', 'e3']) await world.mail(id);
    const range = await replay({ inbox: 'desk', id: 'a', seqNums: { from: 1, to: 2 } });
    expect(statuses(range)).toEqual([
      [1, 'replayed'],
      [2, 'replayed'],
    ]);
    const [, , , third] = await desk();
    const since = new Date(third!.timestampMs).toISOString();
    const later = await replay({ inbox: 'desk', id: 'b', since, isDryRun: true });
    // Several records may have come within one millisecond.
    expect(later.mails.map(({ key }) => key)).toContain('e3');
    expect(statuses(await replay({ inbox: 'desk', id: 'c', since: '2999-01-01T00:00:00Z' }))).toEqual([]);
  });

  it('goes on page by page without meeting its own copies', async () => {
    for (let n = 0; n < 60; n++) await world.mail(`e${n}`);
    const all = { inbox: 'desk', id: 'a', seqNums: { from: 0, to: 1_000_000 } };
    const first = await replay(all);
    expect(first.mails).toHaveLength(50);
    const second = await replay({ ...all, page: first.next });
    expect([second.mails.length, second.next]).toEqual([10, null]);
    expect(await desk()).toHaveLength(120);
  });

  it('runs a mail once that is there as itself and as a redriven copy', async () => {
    await park(1);
    await world.redrive({ inbox: 'desk', seqNums: 'all' });
    const page = await replay({ inbox: 'desk', id: 'a', seqNums: { from: 0, to: 1 } });
    expect(statuses(page)).toEqual([[0, 'replayed']]);
  });

  it('answers anew also for the copy of a mail that was put back', async () => {
    await park(1);
    await world.redrive({ inbox: 'desk', seqNums: 'all' });
    await replay({ inbox: 'desk', id: 'a', seqNums: { from: 1, to: 1 } });
    await workDesk(mended);
    expect(ran.map((record) => originSeqNum(record)).toSorted()).toEqual([0, 2]);
  });

  it('hands mail for no tool to the inbox of its name, once, whatever the replay is called', async () => {
    await world.mail('e0', { stream: 'inbox/unrouted', inbox: 'desk' });
    await world.mail('e1', { stream: 'inbox/unrouted', inbox: 'other' });
    expect(statuses(await replay({ unroutedTo: 'desk', id: 'a' }))).toEqual([[0, 'replayed']]);
    expect(statuses(await replay({ unroutedTo: 'desk', id: 'b' }))).toEqual([[0, 'already-replayed']]);
    expect(keysOf(await desk())).toEqual(['e0#routed-desk']);
    expect(statuses(await replay({ unroutedTo: 'default', id: 'c' }))).toHaveLength(2);
    await workDesk(mended);
    expect(statuses(await replay({ inbox: 'desk', id: 'd', emailId: 'e0' }))).toEqual([[0, 'replayed']]);
    // Also when the copies have expired long ago.
    await world.store.stream('inbox/desk').trim(100);
    expect(statuses(await replay({ unroutedTo: 'desk', id: 'e' }))).toEqual([[0, 'already-replayed']]);
  });
});
