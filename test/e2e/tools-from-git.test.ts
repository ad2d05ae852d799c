/**
 * From a push to a live reply, as real processes: a bare repository, its webhook, the daemon, and Resend's
 * stand-in at the far end. Whatever goes wrong with a push, the next mail is answered by what worked.
 */
import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { openLocalStoreReadOnly } from '../../src/streams/local-store.ts';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { createBareRepository } from '../runner/sync/bare-repository.ts';
import type { BareRepository, Content, PushOptions } from '../runner/sync/bare-repository.ts';
import { freePort, startDaemon, temporaryDirectory } from './daemon.ts';
import type { Daemon } from './daemon.ts';
import { plainMail } from './mail.ts';
import { programEnvironment } from '../program-environment.ts';

const RESEND_SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const GIT_SECRET = 'a-long-random-word';
const TOKEN = 'github_pat_of_the_test';

const run = promisify(execFile);
const stack = new AsyncDisposableStack();
let repository: BareRepository;
let resend: ResendStandIn;
let daemon: Daemon;
let variables: Record<string, string>;
let mails = 0;

const tool = (answer: string, more = '') => ({
  'src/answer.ts': `export const answer: string = '${answer}';`,
  'mail/index.ts': `import { answer } from '../src/answer.ts';
    import type { Email } from 'millrace';
    export const echo = (email: Email) => answer + ' ' + email.text.trim();${more}`,
});

beforeAll(async () => {
  const directory = stack.use(await temporaryDirectory());
  repository = stack.use(await createBareRepository());
  const port = await freePort();
  resend = await spawnResendStandIn({
    apiKey: 're_git',
    webhook: { url: `http://127.0.0.1:${port}/webhooks/resend`, secret: RESEND_SECRET },
  });
  stack.defer(() => resend.stop());
  variables = {
    MAIL_DOMAIN: 'agents.example',
    RESEND_API_KEY: 're_git',
    RESEND_BASE_URL: resend.url,
    RESEND_WEBHOOK_SECRET: RESEND_SECRET,
    DATA_DIR: join(directory.path, 'data'),
    PORT: String(port),
    TOOLS_REPO: `file://${repository.path}`,
    TOOLS_PATH: 'mail',
    GITHUB_PAT: TOKEN,
    GIT_WEBHOOK_SECRET: GIT_SECRET,
  };
  await repository.push(tool('one'));
  daemon = await startDaemon(variables);
  stack.defer(async () => void (await daemon.stop()));
}, 60_000);
afterAll(() => stack.disposeAsync());

/** Pushes, announces it, and waits until something is on record about this very commit. */
async function push(files: Record<string, Content>, options?: PushOptions) {
  const id = await repository.push(files, options);
  await announce();
  return verdictOn(id);
}

async function announce(): Promise<void> {
  const body = JSON.stringify({ ref: 'refs/heads/main' });
  const signature = createHmac('sha256', GIT_SECRET).update(body).digest('hex');
  const headers = { 'x-hub-signature-256': `sha256=${signature}`, 'x-github-event': 'push' };
  expect((await fetch(`${daemon.url}/webhooks/git`, { method: 'POST', headers, body })).status).toBe(202);
}

interface Verdict {
  status: string;
  revision: string;
  error: string | null;
  commit?: { id: string };
}

async function verdictOn(id: string): Promise<Verdict> {
  const of = async () => (await bodies('tools')).find(({ commit }) => commit?.id === id);
  await expect.poll(of, { timeout: 15_000 }).toBeDefined();
  return (await of())!;
}

async function bodies(stream: string): Promise<Verdict[]> {
  const store = await openLocalStoreReadOnly({ clock: systemClock }, { directory: daemon.dataDir });
  try {
    const { records } = await store.stream(stream).read({ fromSeqNum: 0 });
    return records.map(({ body }) => JSON.parse(Buffer.from(body).toString()) as Verdict);
  } finally {
    await store.close();
  }
}

/** What a subcommand of the program prints. */
async function command(...args: string[]): Promise<string> {
  const env = programEnvironment({ DATA_DIR: daemon.dataDir });
  const { stdout } = await run(process.execPath, ['src/main.ts', ...args], { env });
  return stdout;
}

/** The message of the commit that the daemon says is live. */
async function liveSubject(): Promise<string | undefined> {
  const headers = { authorization: `Bearer ${daemon.adminToken}` };
  const response = await fetch(`${daemon.url}/api/admin/tools`, { headers });
  const { live } = (await response.json()) as { live: { commit?: { subject: string } } | null };
  return live?.commit?.subject;
}

/** What one more mail is answered with. */
async function nextAnswer(): Promise<string | undefined> {
  mails++;
  await resend.deliver(plainMail({ to: 'echo@agents.example', id: `m${mails}`, text: `mail ${mails}` }));
  const accepted = await resend.waitForAccepted(mails, 20_000);
  expect(accepted).toHaveLength(mails);
  return accepted.at(-1)?.payload.text;
}

describe('tools from Git', () => {
  it('answer the next mail with what was pushed, and the run names its revision', async () => {
    expect(await nextAnswer()).toBe('one mail 1');
    const { status, revision } = await push(tool('two'));
    expect(status).toBe('live');
    expect(await nextAnswer()).toBe('two mail 2');
    const runs = (await bodies('runs/echo')) as unknown as { facts?: { revision?: string } }[];
    expect(runs.map(({ facts }) => facts?.revision).filter((used) => used === revision)).toHaveLength(1);
  });

  it('answer as before when a push does not compile, and the reason is on record', async () => {
    const verdict = await push({ ...tool('three'), 'src/answer.ts': 'export const answer = (' });
    expect(verdict.status).toBe('refused');
    expect(verdict.error).toMatch(/answer\.ts:1:\d+: Unexpected end of file/);
    expect(await nextAnswer()).toBe('two mail 3');
  });

  it('answer as before when a test of theirs fails', async () => {
    const tests = `; export const tests = { echo: [{ email: { text: 'x' }, expect: { text: 'other' } }] };`;
    const verdict = await push(tool('four', tests));
    expect(verdict).toMatchObject({
      status: 'refused',
      error: 'tests.echo.0: expected the text "other", got "four x"',
    });
    expect(await nextAnswer()).toBe('two mail 4');
  });

  it('follow a history that was overwritten', async () => {
    expect(await push(tool('five'), { force: true, message: 'five' })).toMatchObject({ status: 'live' });
    expect(await nextAnswer()).toBe('five mail 5');
  });

  it('answer after a restart while the Git host is away', async () => {
    await daemon.kill();
    await rename(repository.path, `${repository.path}.away`);
    daemon = await startDaemon(variables);
    expect(await nextAnswer()).toBe('five mail 6');
    await rename(`${repository.path}.away`, repository.path);
    expect(await push(tool('six'))).toMatchObject({ status: 'live' });
    expect(await nextAnswer()).toBe('six mail 7');
  });

  it('are rolled back by one command, stay there, and follow the branch again by another', async () => {
    expect(await command('tools', 'rollback')).toContain('"five": it is asked for');
    await expect.poll(liveSubject, { timeout: 15_000 }).toBe('five');
    await repository.push(tool('seven'), { message: 'seven' });
    await announce();
    expect(await nextAnswer()).toBe('five mail 8');
    expect(await command('tools', 'unpin')).toContain('followed again');
    await expect.poll(liveSubject, { timeout: 15_000 }).toBe('seven');
    expect(await nextAnswer()).toBe('seven mail 9');
  });

  it('keep their token and secret out of what is printed and recorded', async () => {
    const written = daemon.output() + JSON.stringify(await bodies('tools'));
    for (const secret of [TOKEN, GIT_SECRET]) expect(written).not.toContain(secret);
  });
});
