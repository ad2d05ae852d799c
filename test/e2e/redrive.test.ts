/**
 * A night of the operator's, with the real daemon, the real command line and a stand-in for Resend: a tool throws,
 * its mail is parked, the tool is mended, and what was parked is put back and answered once.
 */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DeadLetter } from '../../src/admin/dead-letters.ts';
import type { EmailTrace } from '../../src/admin/trace.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { startDaemon } from './daemon.ts';
import type { Daemon } from './daemon.ts';
import { startResendWorld } from './resend-world.ts';
import { plainMail } from './mail.ts';
import { programEnvironment } from '../program-environment.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const API_KEY = 're_redrive';
const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

const stack = new AsyncDisposableStack();
let resend: ResendStandIn;
let daemon: Daemon;
let toolsFile: string;

/** The machine may have much else to do. */
const WITHIN = { timeout: 30_000 };
const THROWS = "export const fragile = () => { throw new Error('not mended yet'); };\n";
const MENDED = 'export const fragile = (email) => `mended: ${email.text.trim()}`;\n';
const LATER = 'export const later = () => "at last";\n';

beforeAll(async () => {
  const world = await startResendWorld(stack, { apiKey: 're_redrive', tools: THROWS });
  ({ resend, toolsFile } = world);
  daemon = await startDaemon(world.variables);
  stack.defer(async () => void (await daemon.stop()));
}, 60_000);
afterAll(() => stack.disposeAsync());

/** What the command prints, and its exit code. */
function millrace(...words: string[]): Promise<{ output: string; code: number }> {
  const env = programEnvironment({ DATA_DIR: daemon.dataDir });
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...words], { env, timeout: 30_000 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : Number(error.code);
      resolve({ output: `${stdout}${stderr}`, code });
    });
  });
}

/** What the daemon answers, without the cost of a process. */
async function ask<T>(path: string): Promise<T> {
  const headers = { Authorization: `Bearer ${daemon.adminToken}` };
  const response = await fetch(`${daemon.url}/api/admin/${path}`, { headers });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return (await response.json()) as T;
}

async function deadLetters(query: string): Promise<DeadLetter[]> {
  return (await ask<{ deadLetters: DeadLetter[] }>(`dead-letters?${query}`)).deadLetters;
}

async function records(stream: string): Promise<{ json?: unknown; text?: string }[]> {
  return (await ask<{ records: [] }>(`streams/records?name=${encodeURIComponent(stream)}&from=0`)).records;
}

/** Changes the tools, and waits until as many revisions were live. */
async function changeTools(text: string, revisions: number): Promise<void> {
  await writeFile(toolsFile, text);
  const live = async (): Promise<number> =>
    (await records('tools')).filter(({ json }) => (json as { status: string }).status === 'live').length;
  await expect.poll(live, WITHIN).toBe(revisions);
}

/** All that the provider has taken, as soon as there are so many. */
async function answers(count: number): Promise<{ text: string | undefined; key: string | null }[]> {
  const accepted = await resend.waitForAccepted(count, 30_000);
  return accepted.map(({ payload, idempotencyKey }) => ({ text: payload.text, key: idempotencyKey }));
}

describe('the operator', { timeout: 60_000 }, () => {
  it('finds parked mail, mends the tool, and puts it back: it is answered once', async () => {
    const { emailId } = await resend.deliver(
      plainMail({ to: 'fragile@agents.example', id: 'm1', text: 'one' }),
    );
    await resend.deliver(plainMail({ to: 'fragile@agents.example', id: 'm2', text: 'two' }));
    await expect.poll(() => deadLetters('inbox=fragile'), WITHIN).toHaveLength(2);
    const { output: listed } = await millrace('dead-letters');
    expect(listed).toContain(`--inbox fragile --seq 0, email ${emailId}`);
    expect(listed).toMatch(/tool\.threw: .*not mended yet/);

    await changeTools(MENDED, 2);
    const first = await millrace('redrive', '--all', '--inbox', 'fragile');
    expect(first).toMatchObject({ code: 0, output: expect.stringContaining('2 dead letters put back') });
    const again = await millrace('redrive', '--seq', '0..1', '--inbox', 'fragile');
    expect(again.output).toContain('0 dead letters put back');
    expect((await millrace('redrive', '--all', '--inbox', 'fragile')).output).toContain(
      'No dead letter is left',
    );

    // What comes after it in the same inbox shows that the second command had its turn.
    await resend.deliver(plainMail({ to: 'fragile@agents.example', id: 'm3', text: 'three' }));
    const sent = await answers(3);
    expect(sent.map(({ text }) => text)).toEqual(
      expect.arrayContaining(['mended: one', 'mended: two', 'mended: three']),
    );
    expect(sent.map(({ key }) => key)).toContain(`fragile/${emailId}/0`);
    expect(await deadLetters('inbox=fragile&open=true')).toEqual([]);
  });

  it('sees the whole life of a mail, by its Message-ID', async () => {
    const { output } = await millrace('trace', '<m1@sender.example>', '--json');
    const { emails } = JSON.parse(output) as { emails: EmailTrace[] };
    expect(emails).toHaveLength(1);
    const steps = emails[0]!.steps.map(({ step, stream, facts }) => [step, stream, facts['outcome']]);
    expect(steps).toEqual(
      expect.arrayContaining([
        ['event', 'events', undefined],
        ['raw', `mail/${emails[0]!.emailId}`, undefined],
        ['received', 'received', 'done'],
        ['inbox', 'inbox/fragile', undefined],
        ['run', 'runs/fragile', 'dead-letter'],
        ['rerun', 'inbox/fragile', undefined],
        ['run', 'runs/fragile', 'done'],
        ['request', 'outbox', undefined],
        ['attempt', 'sent', undefined],
        ['sent', 'sent', 'done'],
      ]),
    );
    const shown = await millrace('trace', emails[0]!.emailId);
    expect(shown.output).toContain('run of 0: dead-letter (tool.threw), attempt 1');
    expect(shown.output).toContain('redrive by a person, to inbox/fragile');
    expect((await millrace('trace', 'no-such-email')).code).toBe(2);
  });

  it('runs a mail again on purpose, only when told so twice', async () => {
    const before = (await resend.accepted()).length;
    const { emailId } = await resend.deliver(
      plainMail({ to: 'fragile@agents.example', id: 'm4', text: 'four' }),
    );
    await answers(before + 1);
    const replay = ['replay', '--inbox', 'fragile', '--email', emailId];
    expect(await millrace(...replay)).toMatchObject({ code: 2, output: expect.stringContaining('--yes') });
    expect((await millrace(...replay, '--yes')).output).toContain('1 mail put on inbox/fragile');
    const [one, two] = (await answers(before + 2)).slice(before);
    expect([one?.text, two?.text]).toEqual(['mended: four', 'mended: four']);
    expect(one?.key).not.toBe(two?.key);
  });

  it('sends a refused request again under the same key', async () => {
    const before = (await resend.accepted()).length;
    await resend.fault('send', { kind: 'error', status: 422, name: 'validation_error' });
    const { emailId } = await resend.deliver(
      plainMail({ to: 'fragile@agents.example', id: 'm5', text: 'five' }),
    );
    await expect.poll(() => deadLetters('stage=outbox&open=true'), WITHIN).toHaveLength(1);
    const [parked] = await deadLetters('stage=outbox');
    expect(parked).toMatchObject({ emailId, stage: 'outbox' });
    const { output } = await millrace('redrive', '--stage', 'outbox', '--seq', String(parked?.seqNum));
    expect(output).toContain('under the idempotency key that it had');
    const [sent] = (await answers(before + 1)).slice(before);
    expect(sent).toEqual({ text: 'mended: five', key: `fragile/${emailId}/0` });
  });

  it('hands mail that no tool took to one that came later, once', async () => {
    const before = (await resend.accepted()).length;
    await resend.deliver(plainMail({ to: 'later@agents.example', id: 'm6' }));
    await resend.deliver(plainMail({ to: 'others@agents.example', id: 'm7' }));
    await expect.poll(() => records('inbox/unrouted'), WITHIN).toHaveLength(2);
    expect((await millrace('streams', 'read', 'inbox/unrouted')).output).toContain('later@agents.example');
    const replay = ['replay', '--unrouted', '--to', 'later', '--yes'];
    expect(await millrace(...replay)).toMatchObject({
      code: 2,
      output: expect.stringContaining('no tool serves'),
    });

    await changeTools(`${MENDED}${LATER}`, 3);
    expect((await millrace(...replay)).output).toContain('1 mail put on inbox/later');
    expect((await millrace(...replay)).output).toContain('0 mails put on inbox/later');
    expect((await answers(before + 1)).slice(before).map(({ text }) => text)).toEqual(['at last']);
    expect((await millrace('streams', 'ls', 'inbox/')).output.split('\n')).toContain('inbox/later');
  });

  it('shows nothing without the token, and no secret with it', async () => {
    for (const path of ['dead-letters?stage=receive', 'trace?id=x', 'streams', 'streams/records?name=events'])
      expect((await fetch(`${daemon.url}/api/admin/${path}`)).status).toBe(401);
    const printed: string[] = [daemon.output()];
    for (const name of (await ask<{ names: string[] }>('streams')).names)
      printed.push(JSON.stringify(await records(name)));
    for (const secret of [API_KEY, SECRET, daemon.adminToken])
      expect(printed.join('\n')).not.toContain(secret);
  });
});
