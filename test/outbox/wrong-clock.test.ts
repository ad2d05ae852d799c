/**
 * A clock that was wrong at an attempt, or is wrong after it: the real stage on a local store, before a provider that has
 * taken the mail, whose answer was lost, and that forgets keys after 24 h by a clock of its own.
 */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { OutboundProvider } from '../../src/outbox/outbox.ts';
import { CLOCK_MARGIN_MS } from '../../src/outbox/find-sent.ts';
import { outboxStage } from '../../src/outbox/outbox-unit.ts';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { CAUSED_AT_HEADER, jsonRecord, streamNames } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { readBodies } from '../streams/store-reading.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const log = createLog('silent');

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'millrace-wrong-clock-'));
});
afterEach(() => rm(directory, { recursive: true }));

/** How far the true time has gone on since the test began, and how far from it the daemon's clock is. */
let stoppedMs: number;
let wrongMs: number;
beforeEach(() => {
  [stoppedMs, wrongMs] = [0, 0];
});
const trueMs = (): number => systemClock.nowMs() + stoppedMs;
const clock: Clock = { ...systemClock, nowMs: () => trueMs() + wrongMs };

/** Keeps the mails and the searches; `loses` an answer when it has taken the mail. */
function createProvider() {
  const mails: { key: string; atMs: number }[] = [];
  const searches: number[] = [];
  const taken = Promise.withResolvers<void>();
  let loses = true;
  const outbound: OutboundProvider = {
    async send(_request, key, signal) {
      const isKnown = mails.some((mail) => mail.key === key && trueMs() - mail.atMs < DAY_MS);
      if (!isKnown) mails.push({ key, atMs: trueMs() });
      if (!loses) return { providerId: 'p0' };
      loses = false;
      taken.resolve();
      return new Promise((_resolve, reject) =>
        signal.addEventListener('abort', () => reject(signal.reason as Error)),
      );
    },
    async findSent(_request, sinceMs) {
      searches.push(sinceMs);
      return mails.some(({ atMs }) => atMs >= sinceMs - CLOCK_MARGIN_MS) ? { providerId: 'p0' } : null;
    },
  };
  return { outbound, mails, searches, taken: taken.promise };
}

const openStore = () => openLocalStore({ clock, log }, { directory, retentionFor: () => 'forever' });

async function append(store: StreamStore, causedAtMs: number): Promise<void> {
  const request = { from: 'a@ours.example', to: 'ann@sender.example', subject: 'Re:', text: '', headers: {} };
  const cause = { inbox: 'desk', seqNum: 0, effect: 0, emailId: 'x' };
  const frozen = { idempotencyKey: 'desk/x/0', cause, thread: 't', notBefore: null, request };
  const record = jsonRecord({ kind: 'request', version: 1, ...frozen }, 'desk/0/0/x');
  const headers = [...(record.headers ?? []), [CAUSED_AT_HEADER, String(causedAtMs)] as const];
  await store.stream(streamNames.outbox).append([{ ...record, headers }]);
}

/** Runs the outbox until `over`; what it yields then is dropped, as where it is killed. */
async function run(store: StreamStore, outbound: OutboundProvider, over: () => Promise<unknown>) {
  const suppressions = { against: () => [] };
  const options = outboxStage({ store, outbound, suppressions, clock });
  const stop = new AbortController();
  const running = createStage({ store, clock, log }, { ...options, drainMs: 0 }).run(stop.signal);
  await over();
  stop.abort();
  await running;
}

it.each([
  { what: 'right all the time', atAttempt: 0, after: 0, stop: 25 * HOUR_MS },
  { what: '30 days ahead at the attempt', atAttempt: 30 * DAY_MS, after: 0, stop: 25 * HOUR_MS },
  { what: 'set back by 30 days after the attempt', atAttempt: 0, after: -30 * DAY_MS, stop: 25 * HOUR_MS },
  { what: '2 h ahead at the attempt', atAttempt: 2 * HOUR_MS, after: 0, stop: 24.5 * HOUR_MS },
  { what: '2 h behind after the attempt', atAttempt: 0, after: -2 * HOUR_MS, stop: 24.5 * HOUR_MS },
])('does not send again after a long stop where the clock was $what', async ({ atAttempt, after, stop }) => {
  const { outbound, mails, searches, taken } = createProvider();
  wrongMs = atAttempt;
  let store = await openStore();
  await append(store, clock.nowMs());
  await run(store, outbound, () => taken);
  await store.close();
  [wrongMs, stoppedMs] = [after, stop];
  store = await openStore();
  const settled = async (): Promise<string> => (await readBodies(store.stream(streamNames.sent))).join('\n');
  await run(store, outbound, async () => {
    await expect.poll(settled, { timeout: 10_000 }).toContain('"outcome":"done"');
  });
  await store.close();
  expect([mails.length, searches.length]).toEqual([1, 1]);
});
