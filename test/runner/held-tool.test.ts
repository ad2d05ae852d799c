/** What becomes of others' mail to a tool that some mail brings down. */
import { expect, it } from 'vitest';
import { MAX_KILLS, MAX_SENDERS } from '../../src/runner/tool-breaker.ts';
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
