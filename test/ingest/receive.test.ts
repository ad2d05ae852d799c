/** Receive over a real store: mail of one person about one thing arrives in order, and where it goes is decided once. */
import { randomUUID } from 'node:crypto';
import { afterEach, expect, it } from 'vitest';
import type { InboundProvider } from '../../src/ingest/kept-mail.ts';
import { arrivalOrder } from '../../src/ingest/provider-event.ts';
import { createReceive } from '../../src/ingest/receive.ts';
import { mailWorkInPlace } from '../../src/mail/mail-work.ts';
import { createBudget } from '../../src/platform/budget.ts';
import type { Budget } from '../../src/platform/budget.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import { createLiveTools } from '../../src/streams/live-tools.ts';
import type { LiveTools } from '../../src/streams/live-tools.ts';
import { writeBlob } from '../../src/streams/blob.ts';
import { inboxRecordSchema, jsonRecord, parseJsonRecord, streamNames } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { Output } from '../../src/streams/stage.ts';
import type { StreamRecord } from '../../src/streams/stream-store.ts';
import { plainMail } from '../e2e/mail.ts';
import { readAll } from '../streams/store-reading.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const DOMAIN = 'ours.example';
const never = new AbortController().signal;
const log = createLog('silent');
/** On a machine that is busy. */
const PATIENT = { timeout: 10_000 };
const store = useTemporaryStore();
let stop = new AbortController();
let working: Promise<unknown>[] = [];

afterEach(async () => {
  stop.abort();
  await Promise.all(working);
  stop = new AbortController();
  working = [];
});

interface Mail {
  readonly emailId: string;
  readonly names?: readonly string[];
  readonly from?: string;
  readonly subject?: string;
}

async function arrives({ emailId, names = ['foo'], ...fields }: Mail): Promise<void> {
  const { from = 'ann@sender.example', subject = 'Greetings' } = fields;
  const to = names.map((name) => `${name}@${DOMAIN}`);
  const data = { email_id: emailId, from, to, received_for: to, subject };
  const body = JSON.stringify({ type: 'email.received', data });
  await store()
    .stream(streamNames.events)
    .append([{ headers: [['key', `received/${emailId}`]], body }]);
}

async function goLive(...inboxes: string[]): Promise<void> {
  const tools = { kind: 'tools', version: 1, revision: 'r', status: 'live', inboxes, error: null, at: '' };
  await store()
    .stream(streamNames.tools)
    .append([jsonRecord(tools)]);
}

function followTools(): LiveTools {
  const tools = createLiveTools({ store: store(), log });
  working.push(tools.run(stop.signal));
  return tools;
}

/** The provider has one small mail for every id; `before` comes first, and may fail. */
function providerWith(before: (emailId: string) => void = () => {}, text = 'Hello'): InboundProvider {
  return {
    rawMessage: async (emailId) => {
      before(emailId);
      return Buffer.from(plainMail({ id: emailId, to: `foo@${DOMAIN}`, text }));
    },
  };
}

function startReceive(
  inbound: InboundProvider,
  { memory = createBudget(Infinity), tools = followTools() }: { memory?: Budget; tools?: LiveTools } = {},
): void {
  const deps = { store: store(), inbound, tools, mailWork: mailWorkInPlace, memory };
  const stage = createStage(
    { store: store(), clock, log },
    {
      name: 'receive',
      source: streamNames.events,
      journal: streamNames.received,
      concurrency: 4,
      ...arrivalOrder([DOMAIN], () => tools.current()?.inboxes),
      handle: createReceive(deps, { domains: [DOMAIN], maxMissingAttempts: 3, maxFailedAttempts: 3 }),
      backoff: { baseMs: 1, maxMs: 1 },
      maxAttempts: 1_000_000,
    },
  );
  working.push(stage.run(stop.signal));
}

async function inboxOf(name: string): Promise<string[]> {
  const records = await readAll(store().stream(streamNames.inbox(name)));
  return records.map((record) => parseJsonRecord(inboxRecordSchema, record).emailId);
}

const missing = (): MillraceError =>
  new MillraceError('transient', 'resend.content_missing', 'not there yet');

it('a mail whose content is not there yet is not overtaken by its follow-up, and holds up nobody else', async () => {
  const [first, followUp, other, otherThing] = Array.from({ length: 4 }, () => randomUUID());
  let isThere = false;
  await goLive('foo');
  startReceive(
    providerWith((emailId) => {
      if (emailId === first && !isThere) throw new MillraceError('transient', 'resend.unavailable', '503');
    }),
  );
  await arrives({ emailId: first! });
  await arrives({ emailId: followUp!, from: 'Ann <Ann@Sender.example>', subject: 'Re: greetings' });
  await arrives({ emailId: other!, from: 'bob@sender.example' });
  await arrives({ emailId: otherThing!, subject: 'Something else' });
  await expect.poll(() => inboxOf('foo')).toHaveLength(2);
  expect((await inboxOf('foo')).toSorted()).toEqual([other, otherThing].toSorted());
  isThere = true;
  await expect.poll(() => inboxOf('foo')).toHaveLength(4);
  expect((await inboxOf('foo')).slice(2)).toEqual([first, followUp]);
});

it('a mail whose content never comes holds up its follow-up until it is parked', async () => {
  const [first, followUp] = [randomUUID(), randomUUID()];
  await goLive('foo');
  startReceive(
    providerWith((emailId) => {
      if (emailId === first) throw missing();
    }),
  );
  await arrives({ emailId: first });
  await arrives({ emailId: followUp, subject: 'AW: Greetings' });
  await expect.poll(() => inboxOf('foo')).toEqual([followUp]);
});

it('a mail whose content the provider cannot give is parked, unless it gives none at all', async () => {
  const [poisonous, followUp] = [randomUUID(), randomUUID()];
  let calls = 0;
  await goLive('foo');
  startReceive(
    providerWith((emailId) => {
      if (emailId !== poisonous) return;
      calls += 1;
      throw new MillraceError('transient', 'resend.unavailable', '500');
    }),
  );
  await arrives({ emailId: poisonous });
  await arrives({ emailId: followUp, subject: 'Re: Greetings' });
  // An outage: however long it takes, it says nothing about this mail.
  await expect.poll(() => calls, PATIENT).toBeGreaterThan(30);
  const others: string[] = [];
  for (let given = 1; given <= 3; given++) {
    expect(await inboxOf('foo')).toEqual(others);
    others.push(randomUUID());
    await arrives({ emailId: others.at(-1)!, subject: `Thing ${given}` });
    await expect.poll(() => inboxOf('foo'), PATIENT).toContain(others.at(-1));
    if (given === 3) break;
    const callsThen = calls;
    await expect.poll(() => calls, PATIENT).toBeGreaterThan(callsThen + 1);
  }
  await expect.poll(() => inboxOf('foo'), PATIENT).toEqual([...others, followUp]);
});

it('mail to many names that nobody serves takes turns as one inbox', async () => {
  const NAMES = 60;
  const asked: string[] = [];
  await goLive('foo');
  const tools = followTools();
  await tools.live(never);
  const wanted = randomUUID();
  for (let name = 0; name < NAMES; name++)
    await arrives({ emailId: randomUUID(), names: [`made-up-${name}`], subject: `Thing ${name}` });
  await arrives({ emailId: wanted });
  startReceive(
    providerWith((emailId) => void asked.push(emailId)),
    { tools },
  );
  await expect.poll(() => asked.length, PATIENT).toBe(NAMES + 1);
  expect(asked.indexOf(wanted)).toBeLessThan(10);
});

it('a large mail to a thousand names is cut for each of them, so that all fit into memory', async () => {
  const names = Array.from({ length: 1000 }, (_, index) => `name-${index}`);
  await goLive('default');
  const inbound = providerWith(undefined, 'x'.repeat(300_000));
  const deps = { store: store(), inbound, tools: followTools(), mailWork: mailWorkInPlace };
  await arrives({ emailId: randomUUID(), names });
  const [event] = await readAll(store().stream(streamNames.events));
  const outcome = await createReceive(deps, { domains: [DOMAIN] })(event!, firstAttempt());
  const bodies = outputsOf(outcome).map(({ record }) => String(record.body));
  expect(bodies).toHaveLength(names.length);
  expect(bodies.reduce((bytes, body) => bytes + Buffer.byteLength(body), 0)).toBeLessThan(10 * 1024 * 1024);
  expect(inboxRecordSchema.parse(JSON.parse(bodies.at(-1)!))).toMatchObject({
    complete: false,
    inbox: 'name-999',
    email: { from: { address: 'ann@sender.example' } },
  });
});

it('holds no more of raw messages than it may, and one that is larger comes alone', async () => {
  const MIB = 1024 * 1024;
  const memory = createBudget(5 * MIB);
  const sizes = [2, 2, 2, 9].map((mib) => mib * MIB);
  let asked = 0;
  const granted: { size: number; arrive: () => void }[] = [];
  await goLive('foo');
  startReceive(
    {
      async rawMessage(emailId, _signal, { reserve } = {}) {
        const size = sizes[asked++]!;
        await reserve?.(size);
        const { promise, resolve: arrive } = Promise.withResolvers<void>();
        granted.push({ size, arrive });
        await promise;
        return Buffer.from(plainMail({ id: emailId, to: `foo@${DOMAIN}` }));
      },
    },
    { memory },
  );
  for (const [index] of sizes.entries()) await arrives({ emailId: randomUUID(), subject: `Thing ${index}` });
  const sizesGranted = (): number[] => granted.map(({ size }) => size / MIB);
  await expect.poll(() => asked, PATIENT).toBe(4);
  expect(sizesGranted()).toEqual([2, 2]);
  granted[0]!.arrive();
  await expect.poll(sizesGranted, PATIENT).toEqual([2, 2, 2]);
  granted[1]!.arrive();
  await expect.poll(() => inboxOf('foo'), PATIENT).toHaveLength(2);
  expect(sizesGranted()).toEqual([2, 2, 2]);
  granted[2]!.arrive();
  await expect.poll(sizesGranted, PATIENT).toEqual([2, 2, 2, 9]);
  expect(memory.taken).toBe(5 * MIB);
  granted[3]!.arrive();
  await expect.poll(() => inboxOf('foo'), PATIENT).toHaveLength(4);
  expect(memory.taken).toBe(0);
});

it('waits for room for a raw message that lies there already, too', async () => {
  const taken: number[] = [];
  const memory = createBudget(Infinity);
  const watched: Budget = {
    take(amount, signal) {
      taken.push(amount);
      return memory.take(amount, signal);
    },
    taken: 0,
  };
  const emailId = randomUUID();
  await writeBlob(store().stream(streamNames.mail(emailId)), Buffer.alloc(1_200_000, 'x'));
  await goLive('foo');
  startReceive({ rawMessage: () => Promise.reject(new Error('nobody is asked')) }, { memory: watched });
  await arrives({ emailId });
  await expect.poll(() => inboxOf('foo'), PATIENT).toEqual([emailId]);
  expect([taken, memory.taken]).toEqual([[1_200_000], 0]);
});

it('other failures do not count as a content that never comes', async () => {
  const emailId = randomUUID();
  let calls = 0;
  await goLive('foo');
  startReceive(
    providerWith(() => {
      calls += 1;
      if (calls === 9) return;
      // Missing twice in a row at most, where three times would park it.
      throw calls % 3 === 0 ? new MillraceError('transient', 'resend.unavailable', '503') : missing();
    }),
  );
  await arrives({ emailId });
  await expect.poll(() => inboxOf('foo'), PATIENT).toEqual([emailId]);
  expect(calls).toBe(9);
});

it.each([
  { what: 'a small mail', text: 'Hello', isKeptBefore: false },
  { what: 'a mail of several pieces', text: 'x'.repeat(1_500_000), isKeptBefore: false },
  { what: 'a mail that the local mailbox has put there', text: 'Hello', isKeptBefore: true },
])('$what goes where it went, though its name has a tool by now', async ({ text, isKeptBefore }) => {
  const emailId = randomUUID();
  await arrives({ emailId });
  await goLive('default');
  const tools = followTools();
  const inbound = providerWith(undefined, text);
  if (isKeptBefore)
    await writeBlob(store().stream(streamNames.mail(emailId)), await inbound.rawMessage(emailId, never));
  const receive = createReceive(
    { store: store(), inbound, tools, mailWork: mailWorkInPlace },
    { domains: [DOMAIN] },
  );
  const [event] = await readAll(store().stream(streamNames.events));
  const first = await receive(event!, firstAttempt());
  // Here a crash loses the outcome, and the tool for the name comes before the event is handled again.
  await goLive('default', 'foo');
  await expect.poll(() => tools.current()?.inboxes).toContain('foo');
  const again = await receive(event!, firstAttempt());
  expect(streamsOf(first)).toEqual([streamNames.inbox('default')]);
  expect(again).toEqual(first);
  // What comes later goes to it.
  await arrives({ emailId: randomUUID() });
  const [, later] = await readAll(store().stream(streamNames.events));
  expect(streamsOf(await receive(later!, firstAttempt()))).toEqual([streamNames.inbox('foo')]);
});

const firstAttempt = (): Parameters<ReturnType<typeof createReceive>>[1] => ({
  number: 1,
  doubtSinceMs: null,
  ageMs: () => 0,
  signal: never,
});

function streamsOf(outcome: Awaited<ReturnType<ReturnType<typeof createReceive>>>): string[] {
  return outputsOf(outcome).map(({ stream }) => stream);
}

function outputsOf(outcome: Awaited<ReturnType<ReturnType<typeof createReceive>>>): readonly Output[] {
  return outcome.kind === 'done' ? (outcome.outputs ?? []) : [];
}

it('orders what names no author or subject, too, and refuses no mail for it', () => {
  const lane = (data: object): string | null => arrivalOrder([DOMAIN]).laneOf(eventWith(data));
  const plain = lane({ from: 'ann@sender.example', subject: 'Greetings' });
  expect(lane({ from: '"Ann" <ANN@sender.example>', subject: 'RE: AW: greetings' })).toBe(plain);
  expect(
    lane({ from: 'ann@sender.example', subject: 'Greetings', received_for: [`bar@${DOMAIN}`] }),
  ).not.toBe(plain);
  expect(lane({ from: null, subject: 7 })).toBe(lane({}));
  const body = Buffer.from('{"type":"email.sent","data":{"email_id":"x"}}');
  expect(arrivalOrder([DOMAIN]).laneOf({ ...eventWith({}), body })).toBeNull();
});

function eventWith(data: object): StreamRecord {
  const whole = { email_id: randomUUID(), received_for: [`foo@${DOMAIN}`], ...data };
  const body = Buffer.from(JSON.stringify({ type: 'email.received', data: whole }));
  return { seqNum: 0, timestampMs: 0, headers: [], body };
}
