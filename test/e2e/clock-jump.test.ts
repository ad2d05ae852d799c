/**
 * The machine's wall clock jumps by an hour, forward and back, under the real daemon (libfaketime: every call for the
 * time of day is off, durations are not). While it is wrong a webhook is refused, because its signature's age cannot
 * be told, and doctor says why; what was taken before goes on, what is tried again does not wait an hour longer, and
 * once the clock is right all that was refused is taken. Nobody is answered twice.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Finding } from '../../src/admin/doctor/check.ts';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import { freePort, startDaemon, temporaryDirectory } from './daemon.ts';
import { plainMail } from './mail.ts';
import { programEnvironment } from '../program-environment.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
/** Of Debian's package libfaketime, by architecture. */
const LIBRARY = ['x86_64', 'aarch64']
  .map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketimeMT.so.1`)
  .find(existsSync);
const TIMEOUT_MS = 60_000;
const RETRIES = { retryDelaysMs: Array<number>(300).fill(100) };

if (!LIBRARY) {
  const message = 'libfaketime is not here: jumps of the clock are not tested';
  if (process.env['REQUIRE_FAKETIME']) throw new Error(message);
  process.stderr.write(`\n*** ${message} ***\n`);
}

it.runIf(LIBRARY).each([
  ['forward', 3600],
  ['back', -3600],
])(
  'an hour %s: what is under way goes on, webhooks wait until the clock is right',
  async (_way, seconds) => {
    await using stack = new AsyncDisposableStack();
    const directory = stack.use(await temporaryDirectory());
    const port = await freePort();
    const webhook = { url: `http://127.0.0.1:${port}/webhooks/resend`, secret: SECRET };
    const resend = await spawnResendStandIn({ apiKey: 're_clock', webhook });
    stack.defer(() => resend.stop());
    await mkdir(join(directory.path, 'tools'));
    await writeFile(
      join(directory.path, 'tools/index.ts'),
      'export const echo = ({ text }) => text.trim();\n',
    );
    const offset = join(directory.path, 'offset');
    const setClock = (by: number) => writeFile(offset, `${by < 0 ? '' : '+'}${by}\n`);
    await setClock(0);
    const variables = {
      MAIL_DOMAIN: 'agents.example',
      RESEND_API_KEY: 're_clock',
      RESEND_BASE_URL: resend.url,
      RESEND_WEBHOOK_SECRET: SECRET,
      DATA_DIR: join(directory.path, 'data'),
      TOOLS_PATH: join(directory.path, 'tools'),
      PORT: String(port),
    };
    const wrong = {
      LD_PRELOAD: LIBRARY!,
      FAKETIME_TIMESTAMP_FILE: offset,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    };
    const daemon = await startDaemon({ ...variables, ...wrong });
    stack.defer(() => daemon.kill());
    const mail = (id: string) => plainMail({ to: 'echo@agents.example', id, text: id });

    // It is with the outbox, whose provider is away, when the clock jumps.
    await resend.fault('send', { kind: 'error', status: 500, name: 'internal_server_error' }, 'forever');
    expect(await resend.deliver(mail('before'))).toMatchObject({ status: 200 });
    await expect.poll(() => daemon.output(), { timeout: TIMEOUT_MS }).toContain('stage.attempt_failed');
    await setClock(seconds);
    await resend.clearFaults();
    await resend.waitForAccepted(1, TIMEOUT_MS);

    // Svix tries again; until the clock is right each attempt is refused.
    const refused = await resend.deliver(mail('during'));
    expect(refused.statuses).toEqual([401]);
    await expect.poll(() => daemon.output()).toMatch(/"cause":"Message timestamp too (?:old|new)"/);
    expect(await findings({ ...variables, ...wrong })).toContainEqual(
      expect.objectContaining({
        part: 'clock',
        status: 'fault',
        mend: expect.stringContaining('timedatectl'),
      }),
    );
    expect((await fetch(`${daemon.url}/healthz`)).status).toBe(200);
    await setClock(0);
    await resend.redeliver(refused.svixId);
    await resend.deliver(mail('after'), RETRIES);
    const answers = (await resend.waitForAccepted(3, TIMEOUT_MS)).map(({ payload }) => payload.text?.trim());
    expect(answers.map((text) => text?.split('\n')[0]).toSorted()).toEqual(['after', 'before', 'during']);
    expect(await daemon.stop()).toBe(0);
  },
  TIMEOUT_MS,
);

function findings(variables: Record<string, string>): Promise<Finding[]> {
  const args = ['--no-node-snapshot', 'src/main.ts', 'doctor', '--json'];
  const env = programEnvironment(variables);
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { env }, (error, stdout, stderr) => {
      if (stderr) return reject(new Error(stderr, { cause: error }));
      resolve((JSON.parse(stdout) as { findings: Finding[] }).findings);
    });
  });
}
