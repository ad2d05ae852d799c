/**
 * Who cannot be reached, or does not want to be: with the real daemon, the real command line and a stand-in for Resend. A
 * reply bounces, and its sender gets no more, until the operator lifts that; across restarts, and a kill behind the webhook.
 */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SuppressionsPage } from '../../src/admin/suppressions.ts';
import type { EmailTrace, TraceStep } from '../../src/admin/trace.ts';
import type { DeliveryEvent, ResendStandIn } from '../resend-stand-in/contract.ts';
import { startDaemon } from './daemon.ts';
import type { Daemon } from './daemon.ts';
import { startResendWorld } from './resend-world.ts';
import { plainMail } from './mail.ts';
import { programEnvironment } from '../program-environment.ts';

const TOOLS = `export const echo = (email) => email.text.trim();
export const team = () => ({ to: ['dan@d.example'], cc: ['eve@e.example'], subject: 'News', text: 'news' });
`;
const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
/** The machine may have much else to do. */
const WITHIN = { timeout: 30_000 };

const stack = new AsyncDisposableStack();
let resend: ResendStandIn;
let daemon: Daemon;
let start: () => Promise<Daemon>;

beforeAll(async () => {
  const world = await startResendWorld(stack, { apiKey: 're_suppression', tools: TOOLS });
  ({ resend } = world);
  start = () => startDaemon(world.variables);
  daemon = await start();
  stack.defer(async () => void (await daemon.stop()));
}, 60_000);
afterAll(() => stack.disposeAsync());

/** What the command prints. */
function millrace(...words: string[]): Promise<string> {
  const env = programEnvironment({ DATA_DIR: daemon.dataDir });
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...words], { env, timeout: 30_000 }, (_error, stdout, stderr) =>
      resolve(`${stdout}${stderr}`),
    );
  });
}

/** What the daemon answers, without the cost of a process; undefined for a refusal. */
async function ask<T>(path: string): Promise<T | undefined> {
  const headers = { Authorization: `Bearer ${daemon.adminToken}` };
  const response = await fetch(`${daemon.url}/api/admin/${path}`, { headers });
  return response.ok ? ((await response.json()) as T) : undefined;
}

const suppressed = async (): Promise<string[] | undefined> =>
  (await ask<SuppressionsPage>('suppressions'))?.suppressions.map(({ address }) => address);

let mails = 0;
/** A mail to an inbox; gives its id. */
async function mailFrom(sender: string, inbox = 'echo'): Promise<string> {
  const id = `m${mails++}`;
  const mail = plainMail({ from: sender, to: `${inbox}@agents.example`, id, text: id });
  const { emailId, status } = await resend.deliver(mail);
  expect(status).toBe(200);
  return emailId;
}

/** The final outcomes that `sent` has for a mail's requests, as soon as there is one. */
async function outcomes(emailId: string): Promise<TraceStep['facts'][]> {
  const final = async (): Promise<TraceStep['facts'][]> => {
    const trace = await ask<{ emails: EmailTrace[] }>(`trace?id=${emailId}`);
    const steps = trace?.emails.flatMap((email) => email.steps) ?? [];
    const sent = steps.filter(({ step, facts }) => step === 'sent' && facts['outcome'] !== 'deferred');
    return sent.map(({ facts }) => facts);
  };
  await expect.poll(async () => (await final()).length, WITHIN).toBeGreaterThan(0);
  return final();
}

/** Answered, and then the provider says this of the answer. */
async function answeredThen(
  event: DeliveryEvent,
  emailId: string,
  details?: Record<string, unknown>,
): Promise<void> {
  const [outcome] = await outcomes(emailId);
  expect(outcome).toMatchObject({ outcome: 'done' });
  expect(await resend.postDeliveryEvent(event, String(outcome?.['providerId']), details)).toBe(200);
}

const skipped = { outcome: 'skipped', reason: 'suppressed' };

describe('suppression', { timeout: 180_000 }, () => {
  it('stops answers to an address after a bounce, and says why; others are answered', async () => {
    await answeredThen('bounced', await mailFrom('Ann <ann@a.example>'));
    await expect.poll(suppressed, WITHIN).toEqual(['ann@a.example']);
    const emailId = await mailFrom('ANN@A.example');
    expect(await outcomes(emailId)).toEqual([expect.objectContaining(skipped)]);
    expect(await outcomes(await mailFrom('bea@b.example'))).toMatchObject([{ outcome: 'done' }]);
    expect(await resend.accepted()).toHaveLength(2);
    const shown = await millrace('trace', emailId);
    expect(shown).toMatch(/send of \d+: skipped \(suppressed\), attempt 1/);
    expect(shown).toContain('suppressed: ann@a.example, bounced');
    expect(await millrace('suppressions')).toMatch(
      /ann@a\.example {2}bounced: Permanent, General, The recipient/,
    );
  });

  it('remembers it over a restart, and over a kill right after the webhook was accepted', async () => {
    await answeredThen('complained', await mailFrom('cai@c.example'));
    await daemon.kill();
    daemon = await start();
    await expect.poll(suppressed, WITHIN).toEqual(['ann@a.example', 'cai@c.example']);
    const before = (await resend.accepted()).length;
    for (const sender of ['ann@a.example', 'cai@c.example'])
      expect(await outcomes(await mailFrom(sender))).toEqual([expect.objectContaining(skipped)]);
    expect(await daemon.stop()).toBe(0);
    daemon = await start();
    expect(await outcomes(await mailFrom('ann@a.example'))).toEqual([expect.objectContaining(skipped)]);
    expect(await resend.accepted()).toHaveLength(before);
  });

  it('answers again when the operator lifts it, and stops at the next bounce', async () => {
    expect(await millrace('suppressions', 'lift', 'Ann@a.example')).toContain(
      'is sent to ann@a.example again',
    );
    await expect.poll(suppressed, WITHIN).toEqual(['cai@c.example']);
    const emailId = await mailFrom('ann@a.example');
    await answeredThen('suppressed', emailId);
    await expect.poll(suppressed, WITHIN).toEqual(['cai@c.example', 'ann@a.example']);
    expect(await outcomes(await mailFrom('ann@a.example'))).toEqual([expect.objectContaining(skipped)]);
  });

  it('is not begun by a bounce that passes, nor by one of a mail to several', async () => {
    await answeredThen('bounced', await mailFrom('fay@f.example'), { bounce: { type: 'Transient' } });
    await answeredThen('bounced', await mailFrom('gus@g.example', 'team'));
    expect(await outcomes(await mailFrom('fay@f.example'))).toMatchObject([{ outcome: 'done' }]);
    expect(await outcomes(await mailFrom('dan@d.example'))).toMatchObject([{ outcome: 'done' }]);
    expect(await suppressed()).toEqual(['cai@c.example', 'ann@a.example']);
  });
});
