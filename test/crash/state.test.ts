/**
 * A tool that counts, in the real daemon, which is killed at every step around the one that must be whole: each
 * email has its own number, none is missing, and none is told twice.
 */
import { expect, it } from 'vitest';
import { plainMail } from '../e2e/mail.ts';
import { DOMAIN, createCrashWorld } from './crash-world.ts';
import type { KillPlan } from './kill-plan.ts';
import { textOf } from './tally.ts';

const TIMEOUT_MS = 240_000;
/** Two conversations side by side at each kill. */
const MAILS = 2;

const runs = { at: 'append', stream: '^runs/count$' } as const;
const kills: readonly KillPlan[] = (['before', 'after'] as const).flatMap((when) => [
  { ...runs, recordKind: 'intent', when, nth: 1 },
  { at: 'append', stream: '^outbox$', when, nth: 1 },
  { at: 'append', stream: '^state/count$', when, nth: 1 },
  { ...runs, recordKind: 'outcome', when, nth: 1 },
]);

it(
  'counts each email once, wherever it is killed',
  async () => {
    const world = await createCrashWorld('local');
    try {
      let sent = 0;
      for (const plan of kills) {
        const daemon = world.start({ kill: plan });
        const delivering = Array.from({ length: MAILS }, () => {
          const id = `count-${++sent}`;
          const raw = plainMail({ id, text: id, to: `count@${DOMAIN}`, from: `P <${id}@sender.example>` });
          return world.resend.deliver(raw, { retryDelaysMs: Array<number>(300).fill(200) });
        });
        await daemon.gone;
        expect(daemon.wasKilled(), daemon.output()).toBe(true);
        const next = world.start();
        await Promise.all(delivering);
        await world.resend.waitForAccepted(sent, TIMEOUT_MS);
        await next.kill();
      }
      const answers = (await world.resend.accepted()).map(textOf).map(Number);
      expect(answers.toSorted((a, b) => a - b)).toEqual(Array.from({ length: sent }, (_, i) => i + 1));
    } finally {
      await world.stop();
    }
  },
  TIMEOUT_MS,
);
