/**
 * A mail that is to leave in two days: while it waits the daemon is killed at every step, the tool breaks, is mended and
 * the parked email put back; days pass, and weeks. It leaves once, not before its time, and as it was stated first.
 */
import { writeFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { outcomeSchema } from '../../src/streams/journal-records.ts';
import { plainMail } from '../e2e/mail.ts';
import { DOMAIN, createCrashWorld } from './crash-world.ts';
import type { CrashWorld } from './crash-world.ts';
import type { KillPlan } from './kill-plan.ts';
import { textOf } from './tally.ts';

const HOUR_MS = 3_600_000;
const TIMEOUT_MS = 180_000;
const WITHIN = { timeout: 30_000, interval: 200 };
const RETRIES = { retryDelaysMs: Array<number>(300).fill(200) };

const ECHO = 'export const echo = (email) => email.text.trim();\n';
const laterSaying = (word: string): string =>
  `${ECHO}export const later = (email, { now }) => ({
  text: email.text.trim() + ' ${word}', at: new Date(now().getTime() + 48 * ${HOUR_MS}),
});\n`;
const BROKEN = `${ECHO}export const later = () => { throw new Error('broken'); };\n`;

it(
  'leaves once, and not before its time',
  async () => {
    const world = await createCrashWorld('local');
    try {
      await writeFile(world.toolsFile, laterSaying('first'));
      // Frozen, and the run has no outcome: it is repeated by a tool that has come to throw.
      await killedBy(world, { kill: { at: 'append', stream: '^outbox$', when: 'after', nth: 1 } }, 'due');
      await writeFile(world.toolsFile, BROKEN);
      let daemon = world.start();
      await expect.poll(() => outcomesOf(world, 'runs/later'), WITHIN).toEqual(['dead-letter']);
      await writeFile(world.toolsFile, laterSaying('mended'));
      await expect.poll(() => recordsOf(world, 'tools'), WITHIN).toHaveLength(3);
      await world.millrace('redrive', '--all', '--inbox', 'later');
      await expect.poll(() => outcomesOf(world, 'runs/later'), WITHIN).toEqual(['dead-letter', 'done']);
      // One waits, and the other one is the same.
      await expect.poll(() => outcomesOf(world, 'sent'), WITHIN).toEqual(['deferred', 'duplicate']);
      await daemon.kill();

      await killedBy(world, { kill: { at: 'append', stream: '^sent$', when: 'after', nth: 1 } }, 'due-too');
      const answered: string[] = [];
      const expectAnswersAfter = async (hours: number, expected: readonly string[]): Promise<void> => {
        const clockOffsetMs = hours * HOUR_MS;
        daemon = world.start({ clockOffsetMs });
        const text = `after ${hours} h`;
        answered.push(text, ...expected);
        await deliver(world, 'echo', text);
        await world.resend.waitForAccepted(answered.length, TIMEOUT_MS);
        // What is due is under way now, and is finished before it ends.
        expect(await daemon.stop()).toBe(0);
        const texts = (await world.resend.accepted()).map(textOf);
        expect(texts.toSorted()).toEqual(answered.toSorted());
      };
      await expectAnswersAfter(47, []);
      // Sent, and not written down.
      const kill: KillPlan = { at: 'send', when: 'after', nth: 1 };
      daemon = world.start({ clockOffsetMs: 49 * HOUR_MS, kill });
      await daemon.gone;
      expect(daemon.wasKilled()).toBe(true);
      await expectAnswersAfter(49, ['due first', 'due-too mended']);
      await world.resend.advanceClock(400 * HOUR_MS);
      await expectAnswersAfter(400, []);
    } finally {
      await world.stop();
    }
  },
  TIMEOUT_MS,
);

/** A mail that is to be answered later, and the end of the daemon at `kill`. */
async function killedBy(world: CrashWorld, options: { kill: KillPlan }, text: string): Promise<void> {
  const daemon = world.start(options);
  await deliver(world, 'later', text);
  await daemon.gone;
  expect(daemon.wasKilled(), daemon.output()).toBe(true);
}

async function deliver(world: CrashWorld, inbox: string, text: string): Promise<void> {
  const from = `P <${text.replaceAll(' ', '-')}@sender.example>`;
  const raw = plainMail({ id: text.replaceAll(' ', '-'), text, to: `${inbox}@${DOMAIN}`, from });
  await world.resend.deliver(raw, RETRIES);
}

async function recordsOf(world: CrashWorld, stream: string): Promise<unknown[]> {
  const store = await world.openStreams();
  try {
    const { records } = await store.stream(stream).read({ fromSeqNum: 0 });
    return records.map(({ body }) => JSON.parse(Buffer.from(body).toString('utf8')));
  } finally {
    await store.close();
  }
}

async function outcomesOf(world: CrashWorld, journal: string): Promise<string[]> {
  return (await recordsOf(world, journal)).flatMap(
    (value) => outcomeSchema.safeParse(value).data?.outcome ?? [],
  );
}
