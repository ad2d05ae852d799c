/**
 * A stage that was cut off in the worst place, behind its output and before its record, and was away for longer than
 * the stage behind it remembers keys, while that one went on (scenario 43): nothing is done a second time. The real
 * runner and outbox on one store, by a clock that a test moves by days; the provider forgets a key after a day.
 */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createSuppressions } from '../../src/outbox/suppressions.ts';
import { outboxStage } from '../../src/outbox/outbox-unit.ts';
import type { OutboundProvider } from '../../src/outbox/outbox.ts';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import { outcomeOf } from '../../src/streams/stream-scan.ts';
import { KEY_HEADER, jsonRecord, streamNames } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { Stage } from '../../src/streams/stage.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { readAll } from '../streams/store-reading.ts';
import { useRunnerWorld } from './runner-world.ts';

const DAY_MS = 86_400_000;
/** On a machine that is busy. */
const PATIENT = { timeout: 20_000, interval: 20 };
const TOOLS = 'export const echo = (email) => email.text;';
const log = createLog('silent');
const world = useRunnerWorld();

let offsetMs: number;
const clock: Clock = {
  ...systemClock,
  nowMs: () => systemClock.nowMs() + offsetMs,
  monotonicMs: () => systemClock.monotonicMs() + offsetMs,
};
let sent: { text: string; key: string; atMs: number }[];
let outbox: { stage: Stage; running: Promise<void>; stop: AbortController } | undefined;

const outbound: OutboundProvider = {
  async send({ text }, key) {
    const known = sent.findIndex((mail) => mail.key === key && clock.nowMs() - mail.atMs < DAY_MS);
    if (known >= 0) return { providerId: `sent-${known}` };
    sent.push({ text, key, atMs: clock.nowMs() });
    return { providerId: `sent-${sent.length - 1}` };
  },
  async findSent({ text }) {
    const known = sent.findIndex((mail) => mail.text === text);
    return known < 0 ? null : { providerId: `sent-${known}` };
  },
};

beforeEach(() => {
  offsetMs = 0;
  sent = [];
});
afterEach(async () => {
  outbox?.stop.abort();
  await outbox?.running.catch(() => {});
  outbox = undefined;
});

/** Lets its owner write nothing to the journal of what it did: another one took over, and ends later. */
function cutOffAt(journal: string): (store: StreamStore) => StreamStore {
  const fenced = new MillraceError('permanent', 'streams.fenced', 'another owner');
  return (store) => ({
    ...store,
    stream(name) {
      const stream = store.stream(name);
      if (name !== journal) return stream;
      const isOutcome = (body: Uint8Array | string): boolean => body.toString().includes('"outcome":"done"');
      return {
        ...stream,
        append: (records, options) =>
          records.some(({ body }) => isOutcome(body))
            ? Promise.reject(fenced)
            : stream.append(records, options),
      };
    },
  });
}

function startOutbox(wrap: (store: StreamStore) => StreamStore = (whole) => whole): void {
  const store = wrap(world.store());
  const suppressions = createSuppressions({ store, clock, log }, { keptMs: 90 * DAY_MS });
  const stop = new AbortController();
  const stage = createStage(
    { store, clock, log },
    { ...outboxStage({ store, outbound, suppressions, clock }), historyMs: 90 * DAY_MS },
  );
  const running = stage.run(stop.signal);
  running.catch(() => {});
  outbox = { stage, running, stop };
}

/** Four days, on each of which other requests go out, so that the outbox forgets what was before. */
async function fourDaysOfOtherMail(): Promise<void> {
  const request = { from: 'other@agent.example', to: 'bea@sender.example', subject: '', headers: {} };
  for (let mail = 0; mail < 8; mail++) {
    const cause = { inbox: 'other', seqNum: mail, effect: 0, emailId: `other-${mail}` };
    const frozen = { cause, idempotencyKey: `other-${mail}`, thread: `other/${mail}`, notBefore: null };
    const body = { kind: 'request', version: 1, ...frozen, request: { ...request, text: `other ${mail}` } };
    offsetMs += DAY_MS / 2;
    const before = sent.length;
    await world
      .store()
      .stream(streamNames.outbox)
      .append([jsonRecord(body, `other/${mail}/0/x`)]);
    await expect.poll(() => sent.length, PATIENT).toBe(before + 1);
  }
}

async function outcomesOn(journal: string): Promise<(string | null)[]> {
  const records = await readAll(world.store().stream(journal));
  return records.flatMap((record) => outcomeOf(record)?.outcome ?? []);
}

const timesSent = (text: string): number => sent.filter((mail) => mail.text === text).length;

it('a run that was cut off behind its request answers once, four days later', async () => {
  startOutbox();
  await world.start(TOOLS, { clock, wrapStore: cutOffAt(streamNames.runs('echo')) });
  await world.mail('echo', 'Hello');
  await expect.poll(() => timesSent('Hello'), PATIENT).toBe(1);
  await world.ended();
  await fourDaysOfOtherMail();
  await world.start(TOOLS, { clock });
  await world.settled('echo', 1);
  await expect.poll(() => outcomesOn(streamNames.sent), PATIENT).toHaveLength(10);
  expect((await world.outbox()).filter(({ request }) => request.text === 'Hello')).toHaveLength(2);
  expect(timesSent('Hello')).toBe(1);
  expect((await outcomesOn(streamNames.sent)).at(-1)).toBe('duplicate');
});

it('a mail whose receive was cut off behind its inbox record is answered once, four days later', async () => {
  startOutbox();
  await world.start(TOOLS, { clock });
  const { seqNum } = await world.mail('echo', 'Hello');
  await expect.poll(() => timesSent('Hello'), PATIENT).toBe(1);
  // The runner goes on, too: of its own mail the first is forgotten as the last comes.
  for (let day = 1; day <= 8; day++) {
    offsetMs += DAY_MS / 2;
    await world.mail('echo', `day ${day}`, [`Message-ID: <day-${day}@x>`]);
    await world.settled('echo', day + 1);
  }
  const inbox = world.store().stream(streamNames.inbox('echo'));
  const [first] = (await inbox.read({ fromSeqNum: seqNum, maxRecords: 1 })).records;
  expect(first!.headers.map(([name]) => name)).toContain(KEY_HEADER);
  await inbox.append([{ headers: first!.headers, body: first!.body }]);
  expect((await world.settled('echo', 10)).at(-1)!.outcome).toBe('duplicate');
  expect(timesSent('Hello')).toBe(1);
});

it('a request whose outbox was cut off behind the provider goes out once, four days later', async () => {
  startOutbox(cutOffAt(streamNames.sent));
  await world.start(TOOLS, { clock });
  await world.mail('echo', 'Hello');
  await outbox!.running.catch(() => {});
  expect(timesSent('Hello')).toBe(1);
  offsetMs += 4 * DAY_MS;
  startOutbox();
  await expect.poll(() => outcomesOn(streamNames.sent), PATIENT).toEqual(['done']);
  expect(timesSent('Hello')).toBe(1);
});

it('an attempt that was stopped between its record and its call is begun again', async () => {
  let isFirst = true;
  startOutbox((store) => ({
    ...store,
    stream(name) {
      const stream = store.stream(name);
      if (name !== streamNames.sent) return stream;
      return {
        ...stream,
        async append(records, options) {
          const appended = await stream.append(records, options);
          const isAttempt = records.some(({ body }) => body.toString().includes('"kind":"attempt"'));
          // Meanwhile another one may have sent it, and the provider have forgotten that.
          if (isAttempt && isFirst) offsetMs += 3 * DAY_MS;
          isFirst &&= !isAttempt;
          return appended;
        },
      };
    },
  }));
  await world.start(TOOLS, { clock });
  await world.mail('echo', 'Hello');
  await expect.poll(() => outcomesOn(streamNames.sent), PATIENT).toEqual(['deferred', 'done']);
  expect(timesSent('Hello')).toBe(1);
});
