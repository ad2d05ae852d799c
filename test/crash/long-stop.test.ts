/**
 * The worst place to stop for long: the provider has taken the mail, and nobody has written it down. Its
 * memory of idempotency keys lasts 24 h, so after that the same key alone would send a second mail.
 */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { outcomeSchema } from '../../src/streams/journal-records.ts';
import { plainMail } from '../e2e/mail.ts';
import { s2Binary } from '../streams/s2-lite.ts';
import { DOMAIN, createCrashWorld } from './crash-world.ts';
import type { CrashWorld, Streams } from './crash-world.ts';
import type { KillPlan } from './kill-plan.ts';
import { textOf } from './tally.ts';

const HOUR_MS = 3_600_000;
const TIMEOUT_MS = 90_000;
const RETRIES = { retryDelaysMs: Array<number>(300).fill(100) };

function story(streams: Streams): void {
  let world: CrashWorld;
  let clockOffsetMs = 0;

  beforeAll(async () => {
    world = await createCrashWorld(streams);
  }, TIMEOUT_MS);
  afterAll(() => world.stop());

  const deliver = (text: string) =>
    world.resend.deliver(
      plainMail({ id: text, text, to: `echo@${DOMAIN}`, from: `P <${text}@sender.example>` }),
      { emailId: randomUUID(), ...RETRIES },
    );

  /** A mail, the end of the daemon at `kill`, a stop of so many hours, and another mail that is answered. */
  async function stopFor(hours: number, kill: KillPlan): Promise<string> {
    const text = `stop-${hours}-${kill.when}`;
    const before = world.start({ clockOffsetMs, kill });
    await deliver(text);
    await before.gone;
    expect(before.wasKilled()).toBe(true);
    await world.resend.advanceClock(hours * HOUR_MS);
    clockOffsetMs += hours * HOUR_MS;
    const after = world.start({ clockOffsetMs });
    await deliver(`${text}-next`);
    while (!(await answers()).includes(`${text}-next`))
      await world.resend.waitForAccepted((await answers()).length + 1, TIMEOUT_MS);
    // What is under way is finished before it ends.
    expect(await after.stop()).toBe(0);
    return text;
  }

  const answers = async (): Promise<string[]> => (await world.resend.accepted()).map(textOf);
  const timesAnswered = async (text: string): Promise<number> =>
    (await answers()).filter((answer) => answer === text).length;

  async function sentOutcomes() {
    const store = await world.openStreams();
    try {
      const { records } = await store.stream('sent').read({ fromSeqNum: 0 });
      return records.flatMap(({ body }) => {
        const parsed = outcomeSchema.safeParse(JSON.parse(Buffer.from(body).toString('utf8')));
        return parsed.success ? [parsed.data] : [];
      });
    } finally {
      await store.close();
    }
  }

  it.each([25, 240])(
    'does not send again after a stop of %d h behind the send',
    async (hours) => {
      const text = await stopFor(hours, { at: 'send', when: 'after', nth: 1 });
      expect(await timesAnswered(text)).toBe(1);
      const found = (await sentOutcomes()).filter(({ facts }) => facts['foundSent'] === true);
      expect(found).toHaveLength(hours === 25 ? 1 : 2);
    },
    TIMEOUT_MS,
  );

  it(
    'sends after a stop of 25 h where the attempt was written down and nothing was sent',
    async () => {
      const text = await stopFor(25, { at: 'send', when: 'before', nth: 1 });
      expect(await timesAnswered(text)).toBe(1);
    },
    TIMEOUT_MS,
  );
}

describe('a long stop, on local', () => {
  story('local');
});

// Where there is no `s2`, `s2Binary` says loudly that this was not run.
describe.skipIf(s2Binary() === null)('a long stop, on s2 lite', () => {
  story('s2');
});
