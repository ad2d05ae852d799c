/**
 * A restore that comes late. The streams of before went on after the backup, and answered; those that are put back do
 * not know it, and the provider has forgotten every idempotency key. Whoever was answered is not answered again, also
 * where a mail had not even its number in the inbox, and where its event is posted once more.
 */
import { expect, it } from 'vitest';
import { plainMail } from '../e2e/mail.ts';
import { DOMAIN, createCrashWorld } from './crash-world.ts';
import { textOf } from './tally.ts';

const LATER_MS = 25 * 3_600_000;
const TIMEOUT_MS = 90_000;
const RETRIES = { retryDelaysMs: Array<number>(300).fill(100) };

it(
  'answers nobody again 25 h after the backup',
  async () => {
    const world = await createCrashWorld('local');
    try {
      const { resend } = world;
      const mail = (id: string) =>
        resend.deliver(
          plainMail({ id, text: id, to: `echo@${DOMAIN}`, from: `P <${id}@sender.example>` }),
          RETRIES,
        );
      // At the backup the first two are on `events` alone; the first of them gets the later number.
      await resend.fault('receive', { kind: 'error', status: 500, name: 'internal_server_error' }, 'forever');
      const before = world.start();
      await mail('first');
      await mail('second');
      await world.backup();
      await resend.clearFaults();
      const { svixId } = await mail('third');
      await resend.waitForAccepted(3, TIMEOUT_MS);
      await before.kill();

      await world.loseStreams();
      await world.restore();
      await resend.advanceClock(LATER_MS);
      const after = world.start({ clockOffsetMs: LATER_MS });
      await mail('fourth');
      await resend.redeliver(svixId);
      await mail('fifth');
      await resend.waitForAccepted(5, TIMEOUT_MS);
      expect(await after.stop()).toBe(0);
      const answers = (await resend.accepted()).map(textOf);
      expect(answers.toSorted()).toEqual(['fifth', 'first', 'fourth', 'second', 'third']);
    } finally {
      await world.stop();
    }
  },
  TIMEOUT_MS,
);
