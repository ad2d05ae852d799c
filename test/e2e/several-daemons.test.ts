/**
 * Several daemons on one basin of a real `s2 lite`: they share the inboxes, one comes, one sleeps past its lease,
 * one is killed, one leaves, one is cut off. Throughout, every mail is answered once, no record is settled twice, and
 * of the numbers that tools count none is missing or told twice. Each test goes on where the one before has ended.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { streamNames } from '../../src/streams/records.ts';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { s2Binary, startS2Lite } from '../streams/s2-lite.ts';
import { freePort, temporaryDirectory } from './daemon.ts';
import { openBasin, startFleetDaemon, writeTools } from './fleet.ts';
import type { Basin, FleetDaemon } from './fleet.ts';
import { plainMail } from './mail.ts';
import { createNetworkNamespace } from './network-namespace.ts';
import type { NetworkNamespace } from './network-namespace.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const API_KEY = 're_fleet';
/** Far more than it takes where the machine has nothing else to do. */
const TIMEOUT_MS = 60_000;
const INBOXES = Array.from({ length: 24 }, (_, i) => `box${String(i).padStart(2, '0')}`);
const UNITS = ['receive', 'outbox', ...INBOXES.map((inbox) => `runner/${inbox}`)].toSorted();
/** Their tools keep a number, and get several mails at once. */
const COUNTING = INBOXES.filter((_, i) => i % 3 === 0);
const RUNNER = { args: ['--only', 'runner'] };
/** What Svix does while the answer is no 2xx, in its own, slower way. */
const RETRY_DELAYS_MS = Array<number>(100).fill(200);

const stack = new AsyncDisposableStack();
const daemons = new Set<FleetDaemon>();
const expected: string[] = [];
let resend: ResendStandIn;
let basin: Basin;
let variables: Record<string, string>;
let s2Port: number;
/** All roles. */
let first: FleetDaemon;
let second: FleetDaemon;
/** `--only runner`. */
let runner: FleetDaemon;

async function start(
  options: Parameters<typeof startFleetDaemon>[1] & { s2Host?: string } = {},
): Promise<FleetDaemon> {
  const s2Url = `http://${options.s2Host ?? '127.0.0.1'}:${s2Port}`;
  const daemon = await startFleetDaemon(
    {
      ...variables,
      DATA_DIR: join(variables['DATA_DIR']!, String(daemons.size)),
      PORT: String(await freePort()),
      S2_ACCOUNT_ENDPOINT: s2Url,
      S2_BASIN_ENDPOINT: s2Url,
    },
    options,
  );
  daemons.add(daemon);
  return daemon;
}

/** From now on webhooks go to this one. */
const sendWebhooksTo = ({ url }: FleetDaemon): Promise<void> =>
  resend.configure({ webhook: { url: `${url}/webhooks/resend`, secret: SECRET } });

/** A mail to each inbox, three to one that counts; resolves when all webhooks were accepted. */
async function mailToAll(round: string): Promise<void> {
  const recipients = [...INBOXES, ...COUNTING, ...COUNTING];
  const deliveries = recipients.map((inbox, i) => {
    const id = `${round}-${inbox}-${i}`;
    expected.push(`${inbox} got ${id}`);
    const mail = plainMail({ to: `${inbox}@agents.example`, id, text: id });
    return resend.deliver(mail, { retryDelaysMs: RETRY_DELAYS_MS });
  });
  for (const { status } of await Promise.all(deliveries)) expect(status).toBe(200);
}

async function expectAllAnsweredOnce(): Promise<void> {
  const accepted = await resend.waitForAccepted(expected.length, 25_000);
  const texts = accepted.map(({ payload }) => payload.text?.replace(NUMBER, ''));
  expect(texts.toSorted()).toEqual(expected.toSorted());
}

/** What a tool that counts ends its answer with. */
const NUMBER = / as (\d+)$/u;

/** Resolves when some of the mails that were written since are answered and others are not. */
const underWay = (before: number): Promise<unknown> => resend.waitForAccepted(before + INBOXES.length / 4);

/** Each unit has one owner among these, and each of these has something to do. */
const isShared = (holdings: ReadonlyMap<FleetDaemon, readonly string[]>): boolean => {
  const shares = [...holdings.values()];
  return shares.every((held) => held.length > 0) && shares.flat().toSorted().join() === UNITS.join();
};

beforeAll(async () => {
  const directory = stack.use(await temporaryDirectory());
  const lite = await startS2Lite({ directory: join(directory.path, 's2') });
  stack.defer(() => lite.stop());
  s2Port = lite.port;
  resend = await spawnResendStandIn({ apiKey: API_KEY });
  stack.defer(() => resend.stop());
  const tools = join(directory.path, 'tools');
  await writeTools(tools, INBOXES, COUNTING);
  variables = {
    MAIL_DOMAIN: 'agents.example',
    RESEND_API_KEY: API_KEY,
    RESEND_BASE_URL: resend.url,
    RESEND_WEBHOOK_SECRET: SECRET,
    STREAMS: 's2',
    S2_ACCESS_TOKEN: 'ignored',
    DATA_DIR: join(directory.path, 'data'),
    TOOLS_PATH: tools,
  };
  basin = stack.use(await openBasin(lite.url, 'agents-example'));
  stack.defer(async () => {
    for (const daemon of daemons) daemon.signal('SIGKILL');
    await Promise.all([...daemons].map(({ ended }) => ended));
  });
  [first, second] = await Promise.all([start(), start()]);
}, TIMEOUT_MS);
afterAll(() => stack.disposeAsync());

describe.skipIf(s2Binary() === null)('several daemons on one basin', { timeout: TIMEOUT_MS }, () => {
  it('share the inboxes, with one owner for receive and one for the outbox', async () => {
    await basin.waitForHoldings([first, second], isShared);
    await sendWebhooksTo(first);
    await mailToAll('shared');
    await expectAllAnsweredOnce();
  });

  it('give a share to one that comes, of its role alone', async () => {
    runner = await start(RUNNER);
    const holdings = await basin.waitForHoldings([first, second, runner], isShared);
    expect(holdings.get(runner)!.every((unit) => unit.startsWith('runner/'))).toBe(true);
    await mailToAll('three');
    await expectAllAnsweredOnce();
  });

  it('do the work of one that is stopped past its lease; waking up, it commits nothing and has its share', async () => {
    // The one that sends mail is the one that could send it twice.
    const holdings = await basin.waitForHoldings([first, second, runner], isShared);
    if (!holdings.get(first)!.includes('outbox')) [first, second] = [second, first];
    await sendWebhooksTo(second);
    const answered = expected.length;
    const delivered = mailToAll('stopping');
    await underWay(answered);
    first.signal('SIGSTOP');
    await basin.waitForHoldings([second, runner], isShared);
    await delivered;
    await mailToAll('stopped');
    await expectAllAnsweredOnce();
    const written = mailToAll('waking');
    first.signal('SIGCONT');
    await basin.waitForHoldings([first, second, runner], isShared);
    await written;
    await expectAllAnsweredOnce();
  });

  it('do the work of one that is killed', async () => {
    await sendWebhooksTo(second);
    const answered = expected.length;
    const delivered = mailToAll('killed');
    await underWay(answered);
    first.signal('SIGKILL');
    await basin.waitForHoldings([second, runner], isShared);
    await delivered;
    await expectAllAnsweredOnce();
  });

  it('have handed to them what one holds that is told to end', async () => {
    const answered = expected.length;
    const delivered = mailToAll('ending');
    await underWay(answered);
    runner.signal('SIGTERM');
    await basin.waitForHoldings([second], isShared);
    await runner.ended;
    await delivered;
    await expectAllAnsweredOnce();
    expect(runner.output()).toContain('"daemon.stopped"');
    expect(runner.output()).not.toContain('"ownership.lost"');
    expect(second.output()).toMatch(/"members\.left"/u);
  });

  describe('one of them behind a cable of its own', async () => {
    const namespace: NetworkNamespace | null = await createNetworkNamespace();
    if (namespace) stack.use(namespace);

    it.skipIf(namespace === null)(
      'is done without while it is cut off, and has its share again',
      async () => {
        const { hostAddress, prefix } = namespace!;
        const remote = await start({ ...RUNNER, prefix, s2Host: hostAddress });
        await basin.waitForHoldings([second, remote], isShared);
        const answered = expected.length;
        const delivered = mailToAll('cutting');
        await underWay(answered);
        await namespace!.disconnect();
        await basin.waitForHoldings([second], isShared);
        await delivered;
        await mailToAll('cut');
        await expectAllAnsweredOnce();
        const written = mailToAll('mended');
        await namespace!.reconnect();
        await basin.waitForHoldings([second, remote], isShared);
        await written;
        await expectAllAnsweredOnce();
      },
    );
  });

  it('have told each number of a tool that counts once, and left none out', async () => {
    const answers = (await resend.accepted()).map(({ payload }) => payload.text ?? '');
    for (const inbox of COUNTING) {
      const told = answers
        .filter((text) => text.startsWith(`${inbox} `))
        .map((text) => NUMBER.exec(text)?.[1]);
      const numbers = told.map(Number).toSorted((a, b) => a - b);
      expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, i) => i + 1));
      expect(numbers.length).toBeGreaterThan(0);
    }
  });

  it('have settled no record twice', async () => {
    const journals = [
      streamNames.received,
      streamNames.sent,
      ...INBOXES.map((inbox) => streamNames.runs(inbox)),
    ];
    for (const journal of journals) {
      const counts = await basin.finalOutcomes(journal);
      expect(counts.size).toBeGreaterThan(0);
      expect([...counts].filter(([, count]) => count !== 1)).toEqual([]);
    }
  });
});
