/** What becomes of others' mail to a tool that some mail brings down. */
import { expect, it } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { FIRST_HOLD_MS, MAX_KILLS, MAX_SENDERS, createToolBreaker } from '../../src/runner/tool-breaker.ts';
import type { ToolBreaker } from '../../src/runner/tool-breaker.ts';
import { outcomeOf } from '../../src/streams/stream-scan.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import { readAll } from '../streams/store-reading.ts';
import { useRunnerWorld } from './runner-world.ts';

const world = useRunnerWorld();

const TOOLS = `
export const settings = { echo: { maxLogBytes: 0 } };
export const echo = (email) => { if (email.text === 'flood') console.log('too much'); return email.text; };
`;

const stranger = (number: number): string[] => [`From: stranger-${number}@elsewhere.example`];

it('mail of one sender that brings a tool down is parked, and that of another answered', async () => {
  await world.start(TOOLS, { concurrency: 1 });
  for (let mail = 0; mail <= MAX_KILLS; mail++) await world.mail('echo', 'flood', stranger(1));
  await world.mail('echo', 'Hello');
  const outcomes = await world.settled('echo', MAX_KILLS + 2);
  const floods = Array.from({ length: MAX_KILLS }, () => 'tool.log-flood');
  expect(outcomes.map(({ reason }) => reason)).toEqual([...floods, 'tool.held', null]);
  expect(outcomes.at(-2)!.error!.message).toContain("this sender's mail is held");
});

it('a tool that mail of many senders brings down keeps that of another waiting, and answers it', async () => {
  await world.start(TOOLS, { concurrency: 1 });
  for (let sender = 0; sender < MAX_SENDERS; sender++) await world.mail('echo', 'flood', stranger(sender));
  const waiting = await world.mail('echo', 'Hello');
  const outcomes = await world.settled('echo', MAX_SENDERS + 1);
  expect(outcomes.at(-1)).toMatchObject({ seqNum: waiting.seqNum, outcome: 'done', attempts: 2 });
});

/** A breaker whose time stands still until a test moves it; who is held comes back after `waitMs`. */
function createStillBreaker(waitMs: number): { breaker: ToolBreaker; letHoldPass(): void } {
  let monotonicMs = 0;
  const clock = {
    ...systemClock,
    monotonicMs: () => monotonicMs,
    nowMs: () => systemClock.nowMs() - FIRST_HOLD_MS + waitMs,
  };
  return {
    breaker: createToolBreaker({ clock, log: createLog('silent') }),
    letHoldPass() {
      monotonicMs += FIRST_HOLD_MS;
    },
  };
}

async function bringDown(breaker: ToolBreaker): Promise<void> {
  await world.start(TOOLS, { concurrency: 1, breaker });
  for (let sender = 0; sender < MAX_SENDERS; sender++) await world.mail('echo', 'flood', stranger(sender));
  await world.settled('echo', MAX_SENDERS);
}

it('a mail whose tool is held again and again is parked at last', async () => {
  await bringDown(createStillBreaker(0).breaker);
  const { seqNum } = await world.mail('echo', 'Hello');
  const outcomes = await world.settled('echo', MAX_SENDERS + 1);
  expect(outcomes.at(-1)).toMatchObject({
    seqNum,
    outcome: 'dead-letter',
    reason: 'tool.held',
    attempts: 11,
  });
});

it('a mail that failed often for other reasons waits for a held tool as any other does', async () => {
  const { breaker, letHoldPass } = createStillBreaker(1_000);
  await bringDown(breaker);
  await world.stop();
  const { seqNum, emailId: key } = await world.mail('echo', 'Hello');
  const journal = world.store().stream(streamNames.runs('echo'));
  const nowMs = systemClock.nowMs();
  const base = { seqNum, key, attempts: 11 };
  const aside = { ...base, lane: null, untilMs: nowMs, holdsLane: true, doubtSinceMs: null };
  const deferred = { ...base, outcome: 'deferred', reason: 'streams.unavailable', error: null, aside };
  const times = { at: new Date(nowMs).toISOString(), durationMs: 0 };
  await journal.append([jsonRecord({ kind: 'outcome', version: 1, ...deferred, ...times, facts: {} })]);
  await world.start(TOOLS, { concurrency: 1, breaker });
  const reasons = async () => (await readAll(journal)).map((record) => outcomeOf(record)?.reason);
  await expect.poll(reasons, { timeout: 20_000, interval: 20 }).toContain('tool.held');
  letHoldPass();
  const outcomes = await world.settled('echo', MAX_SENDERS + 1);
  expect(outcomes.at(-1)).toMatchObject({ seqNum, outcome: 'done' });
});
