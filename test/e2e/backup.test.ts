/**
 * The day on which the disk dies: a backup is made while mail is under way, the daemon goes on, then it and its
 * streams are gone. Restored on another store, every mail from before the backup is answered, and at the far end each
 * has been answered once.
 */
import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import { s2Binary, startS2Lite } from '../streams/s2-lite.ts';
import { freePort, startDaemon, temporaryDirectory } from './daemon.ts';
import { writeTools } from './fleet.ts';
import { plainMail } from './mail.ts';
import { programEnvironment } from '../program-environment.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const INBOXES = ['ann', 'ben', 'cleo', 'dora'];
const MAILS = 12;
const TIMEOUT_MS = 120_000;
const EXPECTED = Array.from({ length: MAILS }, (_, round) =>
  INBOXES.map((inbox) => `${inbox} got ${round}-${inbox}`),
)
  .flat()
  .toSorted();

async function millrace(variables: Record<string, string>, ...args: string[]): Promise<string> {
  const command = ['src/main.ts', ...args];
  const env = programEnvironment(variables);
  return (await promisify(execFile)(process.execPath, command, { env })).stdout;
}

/** What a correspondent got in all, before the loss and after. */
async function answersAfter(kind: 'local' | 's2'): Promise<unknown[]> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const resend = await spawnResendStandIn({ apiKey: 're_backup' });
  stack.defer(() => resend.stop());
  const tools = join(directory.path, 'tools');
  await writeTools(tools, INBOXES);
  const file = join(directory.path, 'backup.gz');

  /** Streams of their own each time: another folder, or another server. */
  async function newStreams(name: string): Promise<Record<string, string>> {
    const folder = join(directory.path, name);
    const shared = {
      MAIL_DOMAIN: 'agents.example',
      RESEND_API_KEY: 're_backup',
      RESEND_BASE_URL: resend.url,
      RESEND_WEBHOOK_SECRET: SECRET,
      TOOLS_PATH: tools,
      DATA_DIR: folder,
      PORT: String(await freePort()),
    };
    if (kind === 'local') return shared;
    const lite = await startS2Lite({ directory: `${folder}-s2` });
    stack.defer(() => lite.stop());
    const endpoints = { S2_ACCOUNT_ENDPOINT: lite.url, S2_BASIN_ENDPOINT: lite.url };
    return { ...shared, ...endpoints, STREAMS: 's2', S2_ACCESS_TOKEN: 'ignored' };
  }

  const before = await newStreams('before');
  const first = await startDaemon(before);
  stack.defer(() => first.kill());
  await resend.configure({ webhook: { url: `${first.url}/webhooks/resend`, secret: SECRET } });
  const deliveries = Array.from({ length: MAILS }, (_, round) =>
    INBOXES.map((inbox) => {
      const id = `${round}-${inbox}`;
      return resend.deliver(plainMail({ to: `${inbox}@agents.example`, id, text: id }));
    }),
  ).flat();
  for (const { status } of await Promise.all(deliveries)) expect(status).toBe(200);
  await millrace(before, 'backup', file);
  await resend.waitForAccepted(2);
  // The daemon goes on, and nobody will know how far it came.
  await first.kill();
  await rm(before['DATA_DIR']!, { recursive: true });

  const after = await newStreams('after');
  expect(await millrace(after, 'restore', file)).toContain('are back on');
  const second = await startDaemon(after);
  stack.defer(() => second.kill());
  await resend.waitForAccepted(EXPECTED.length, 60_000);
  await settledOn(second);
  return (await resend.accepted()).map(({ payload }) => payload.text).toSorted();
}

interface Daemon {
  url: string;
  adminToken: string;
}

async function read({ url, adminToken }: Daemon, name: string) {
  const headers = { authorization: `Bearer ${adminToken}` };
  const response = await fetch(`${url}/api/admin/streams/records?name=${name}&from=0&count=500`, { headers });
  const { records } = (await response.json()) as {
    records: { json: { outcome?: string; seqNum?: number } }[];
  };
  return records.map(({ json }) => json);
}

/** Numbers of the records whose outcome is final. */
async function settledOf(daemon: Daemon, journal: string): Promise<Set<number | undefined>> {
  const outcomes = (await read(daemon, journal)).filter(
    ({ outcome }) => outcome !== undefined && outcome !== 'deferred',
  );
  return new Set(outcomes.map(({ seqNum }) => seqNum));
}

/** Resolves when the outbox has an outcome for the request of every mail, again or anew. */
async function settledOn(daemon: Daemon): Promise<void> {
  for (let isSettled = false; !isSettled;) {
    const requests = await read(daemon, 'outbox');
    const settled = await settledOf(daemon, 'sent');
    isSettled = requests.length >= MAILS * INBOXES.length && settled.size >= requests.length;
    await setImmediate();
  }
}

describe('backup, loss and restore under load', { timeout: TIMEOUT_MS }, () => {
  it('on the local store: every mail is answered once', async () => {
    expect(await answersAfter('local')).toEqual(EXPECTED);
  });

  it.skipIf(s2Binary() === null)('on s2 lite: every mail is answered once', async () => {
    expect(await answersAfter('s2')).toEqual(EXPECTED);
  });
});
