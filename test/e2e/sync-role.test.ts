/**
 * The role sync as a process of its own, on a real `s2 lite`: it alone reaches the repository, and two runners
 * that find neither Git nor npm on their PATH serve what it publishes.
 */
import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseJsonRecord, streamNames, toolsStreamSchema } from '../../src/streams/records.ts';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { createBareRepository } from '../runner/sync/bare-repository.ts';
import type { BareRepository } from '../runner/sync/bare-repository.ts';
import { s2Binary, startS2Lite } from '../streams/s2-lite.ts';
import { readAll } from '../streams/store-reading.ts';
import { freePort, temporaryDirectory } from './daemon.ts';
import { openBasin, startFleetDaemon } from './fleet.ts';
import type { Basin, FleetDaemon } from './fleet.ts';
import { plainMail } from './mail.ts';
import { programEnvironment } from '../program-environment.ts';

const RESEND_SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const GIT_SECRET = 'a-long-random-word';
/** Far more than it takes where the machine has nothing else to do. */
const TIMEOUT_MS = 180_000;
const run = promisify(execFile);
const stack = new AsyncDisposableStack();
const daemons: FleetDaemon[] = [];
let directory: string;
let shared: Record<string, string>;
let repository: BareRepository;
let resend: ResendStandIn;
let ingest: FleetDaemon;
let basin: Basin;
let mails = 0;

const tool = (answer: string) => ({
  'tools/index.ts': `export const echo = (email) => '${answer} ' + email.text.trim();`,
});
const sync = (): Record<string, string> => ({ ...shared, DATA_DIR: join(directory, 'sync') });

beforeAll(async () => {
  if (s2Binary() === null) return;
  directory = stack.use(await temporaryDirectory()).path;
  repository = stack.use(await createBareRepository());
  const s2 = await startS2Lite({ directory: join(directory, 's2') });
  stack.defer(() => s2.stop());
  const port = await freePort();
  resend = await spawnResendStandIn({
    apiKey: 're_sync',
    webhook: { url: `http://127.0.0.1:${port}/webhooks/resend`, secret: RESEND_SECRET },
  });
  stack.defer(() => resend.stop());
  shared = {
    MAIL_DOMAIN: 'agents.example',
    STREAMS: 's2',
    S2_BASIN: 'sync-test',
    S2_ACCESS_TOKEN: 'ignored',
    S2_ACCOUNT_ENDPOINT: s2.url,
    S2_BASIN_ENDPOINT: s2.url,
    TOOLS_REPO: repository.path,
    LOG_LEVEL: 'info',
  };
  basin = stack.use(await openBasin(s2.url, 'sync-test'));
  stack.defer(async () => {
    for (const daemon of daemons) daemon.signal('SIGTERM');
    await Promise.all(daemons.map(({ ended }) => ended));
  });
  await repository.push(tool('one'));
  ingest = await start('ingest', {
    DATA_DIR: join(directory, 'ingest'),
    PORT: String(port),
    RESEND_API_KEY: 're_sync',
    RESEND_BASE_URL: resend.url,
    RESEND_WEBHOOK_SECRET: RESEND_SECRET,
    GIT_WEBHOOK_SECRET: GIT_SECRET,
    ADMIN_TOKEN: 'of-the-test',
  });
  for (const name of ['one', 'two'])
    await start('runner', { DATA_DIR: join(directory, `runner-${name}`), PATH: directory });
  await start('outbox', {
    DATA_DIR: join(directory, 'outbox'),
    RESEND_SENDING_KEY: 're_sync',
    RESEND_BASE_URL: resend.url,
  });
}, TIMEOUT_MS);
afterAll(() => stack.disposeAsync(), TIMEOUT_MS);

async function start(role: string, variables: Record<string, string>): Promise<FleetDaemon> {
  const daemon = await startFleetDaemon({ ...shared, ...variables }, { args: ['--only', role] });
  daemons.push(daemon);
  return daemon;
}

async function nextAnswer(): Promise<string | undefined> {
  mails++;
  const from = `Ann <ann${mails}@sender.example>`;
  const raw = plainMail({ to: 'echo@agents.example', id: `m${mails}`, from, text: `mail ${mails}` });
  await resend.deliver(raw);
  return (await resend.waitForAccepted(mails, TIMEOUT_MS)).at(-1)?.payload.text;
}

async function announce(): Promise<void> {
  const signature = createHmac('sha256', GIT_SECRET).update('{}').digest('hex');
  const headers = { 'x-hub-signature-256': `sha256=${signature}` };
  const response = await fetch(`${ingest.url}/webhooks/git`, { method: 'POST', headers, body: '{}' });
  expect(response.status).toBe(202);
}

async function liveCommits(): Promise<(string | undefined)[]> {
  const records = await readAll(basin.store.stream(streamNames.tools));
  const tools = records.map((record) => parseJsonRecord(toolsStreamSchema, record));
  return tools.flatMap((record) =>
    record.kind === 'tools' && record.status === 'live' ? [record.commit?.id] : [],
  );
}

/** Exit code of one look. */
async function lookOnce(): Promise<number> {
  const env = programEnvironment({ ...sync(), LOG_LEVEL: 'silent' });
  const args = ['src/main.ts', 'serve', '--only', 'sync', '--once'];
  return run(process.execPath, args, { env }).then(
    () => 0,
    (error: { code: number }) => error.code,
  );
}

describe.skipIf(s2Binary() === null)('the role sync', () => {
  it(
    'may look once: the exit code says what became of the head of the branch',
    { timeout: TIMEOUT_MS },
    async () => {
      expect(await lookOnce()).toBe(0);
      expect(await nextAnswer()).toBe('one mail 1');
      await repository.push({ 'tools/index.ts': 'export const echo = (' });
      expect(await lookOnce()).toBe(3);
      await rename(repository.path, `${repository.path}.away`);
      expect(await lookOnce()).toBe(1);
      await rename(`${repository.path}.away`, repository.path);
      expect(await nextAnswer()).toBe('one mail 2');
    },
  );

  it('publishes each push for runners without Git', { timeout: TIMEOUT_MS }, async () => {
    await start('sync', sync());
    for (const answer of ['two', 'three']) {
      const id = await repository.push(tool(answer));
      await announce();
      await expect.poll(liveCommits, { timeout: TIMEOUT_MS }).toContain(id);
      expect(await nextAnswer()).toBe(`${answer} mail ${mails}`);
    }
  });
});
