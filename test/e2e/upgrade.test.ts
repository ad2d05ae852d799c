/**
 * Upgrade and rollback under load: real releases side by side, real daemons on a real `s2 lite`, and mail all the
 * while. At the far end every mail is answered once, whatever became of the switch. The cases in which nothing runs
 * are in test/admin/upgrade.test.ts.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rollback, upgrade } from '../../src/admin/upgrade/upgrade.ts';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { s2Binary, startS2Lite } from '../streams/s2-lite.ts';
import { freePort, temporaryDirectory } from './daemon.ts';
import { writeTools } from './fleet.ts';
import { plainMail } from './mail.ts';
import { createUpgradeWorld } from './upgrade-world.ts';
import type { UpgradeWorld } from './upgrade-world.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const TIMEOUT_MS = 180_000;
const INBOXES = ['ann', 'ben', 'cleo', 'dora'];
/** What Svix does while the answer is no 2xx, in its own, slower way. */
const RETRY_DELAYS_MS = Array<number>(300).fill(200);
const timing = { upWithinMs: 20_000, stableMs: 1_000, lookMs: 100 };

const stack = new AsyncDisposableStack();
const { signal } = new AbortController();
const expected: string[] = [];
let resend: ResendStandIn;
let world: UpgradeWorld;
let first: string;

const toNewest = (version: string) =>
  upgrade(world.deps, { version, keep: 3, noWayBack: false, timing }, signal);

/** Mails to all inboxes, round after round, while the work goes on; then every mail so far is answered once. */
async function underLoad(name: string, work: () => Promise<void>): Promise<void> {
  let isOver = false;
  const working = work().finally(() => (isOver = true));
  working.catch(() => {});
  const deliveries: Promise<unknown>[] = [];
  for (let round = 0; !isOver || round < 2; round++) {
    for (const inbox of INBOXES) {
      const id = `${name}-${round}-${inbox}`;
      expected.push(`${inbox} got ${id}`);
      const mail = plainMail({ to: `${inbox}@agents.example`, id, text: id });
      deliveries.push(resend.deliver(mail, { retryDelaysMs: RETRY_DELAYS_MS }));
    }
    // The next round when this one is at least half answered, or the switch is over: a load, not a flood.
    await Promise.race([resend.waitForAccepted(expected.length - 2, 60_000), working.catch(() => {})]);
  }
  await Promise.all(deliveries);
  const accepted = await resend.waitForAccepted(expected.length, 60_000);
  expect(accepted.map(({ payload }) => payload.text).toSorted()).toEqual(expected.toSorted());
  await working;
}

beforeAll(async () => {
  if (s2Binary() === null) return;
  const directory = stack.use(await temporaryDirectory());
  const lite = await startS2Lite({ directory: join(directory.path, 's2') });
  stack.defer(() => lite.stop());
  const port = String(await freePort());
  const webhook = { url: `http://127.0.0.1:${port}/webhooks/resend`, secret: SECRET };
  resend = await spawnResendStandIn({ apiKey: 're_upgrade', webhook });
  stack.defer(() => resend.stop());
  const tools = join(directory.path, 'tools');
  await writeTools(tools, INBOXES);
  world = await createUpgradeWorld(join(directory.path, 'opt'), {
    MAIL_DOMAIN: 'agents.example',
    RESEND_API_KEY: 're_upgrade',
    RESEND_BASE_URL: resend.url,
    RESEND_WEBHOOK_SECRET: SECRET,
    STREAMS: 's2',
    S2_ACCESS_TOKEN: 'ignored',
    S2_ACCOUNT_ENDPOINT: lite.url,
    S2_BASIN_ENDPOINT: lite.url,
    TOOLS_PATH: tools,
    PORT: port,
  });
  stack.defer(() => world.stop());
  first = world.releases.current()!;
}, TIMEOUT_MS);
afterAll(() => stack.disposeAsync());

describe.skipIf(s2Binary() === null)('upgrade and rollback under load', { timeout: TIMEOUT_MS }, () => {
  let second: string;

  it('go to a new release and back, and every mail is answered once', async () => {
    second = await world.release('package.json', (text) =>
      text.replace(/"version": "[^"]+"/, '"version": "9.0.0"'),
    );
    await underLoad('upgrade', async () => {
      await toNewest(second);
      expect(await world.running()).toEqual([second, second, second]);
      expect(world.releases.previous()).toBe(first);
      await rollback(world.deps, { to: null, timing }, signal);
    });
    expect(await world.running()).toEqual([first, first, first]);
    expect(world.releases.previous()).toBe(second);
  });

  it('switch back by themselves from a release that crashes at its start', async () => {
    const broken = await world.release('src/command-line.ts', (text) =>
      text.replace('const { createApp', "throw new Error('broken'); const { createApp"),
    );
    await underLoad('broken', () =>
      expect(toNewest(broken)).rejects.toMatchObject({ code: 'upgrade.switched_back' }),
    );
    expect(world.releases.current()).toBe(first);
    expect(await world.running()).toEqual([first, first, first]);
  });
});
