/** What a stranger whose DNS never answers can cost others, by signed mail and the real runner. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { MAX_LOOKS } from '../../src/runner/sender-proofs.ts';
import { KEY_RECORD, signedMail } from '../mail/signed-mail.ts';
import { startNameServer } from '../platform/name-server.ts';
import type { NameServer, Zone } from '../platform/name-server.ts';
import { useRunnerWorld } from './runner-world.ts';

const SILENT_KEY = 's1._domainkey.silent.example';
const zone: Zone = {
  [SILENT_KEY]: 'silent',
  '_dmarc.silent.example': 'silent',
  's1._domainkey.sender.example': { TXT: [KEY_RECORD] },
};
const world = useRunnerWorld();
let nameServer: NameServer;
beforeAll(async () => {
  nameServer = await startNameServer(zone);
});
afterAll(() => nameServer.close());

const SPEED = 50;
const startMs = Date.now();
/** A minute takes a second. */
const quickClock: Clock = {
  ...systemClock,
  nowMs: () => startMs + (Date.now() - startMs) * SPEED,
  monotonicMs: () => systemClock.monotonicMs() * SPEED,
  after: (ms, callback) => systemClock.after(ms / SPEED, callback),
  sleep: (ms, signal) => systemClock.sleep(ms / SPEED, signal),
};

let mails = 0;
function signed(domain: string, references = ''): Promise<string> {
  const head = [
    `From: ann@${domain}`,
    'To: desk@agent.example',
    'Subject: Hello',
    `Message-ID: <${++mails}@${domain}>`,
    ...(references === '' ? [] : [`References: ${references}`]),
  ];
  return signedMail(`${head.join('\r\n')}\r\n\r\nHi\r\n`, { domain });
}

// Forty such mails took 85 sandbox processes in 40 seconds.
it('takes no sandbox processes where a tool asks for the proof, and the tool is told in the end', async () => {
  const tools = `export const desk = async (email) => {
    const { result, domain, reason } = await email.authentication();
    return [result, domain, reason].join(' ');
  };`;
  await world.start(tools, { dnsServers: [nameServer.address], clock: quickClock });
  const starts = world.sandboxStarts();
  const count = 40;
  for (let mail = 0; mail < count; mail++) await world.message('desk', await signed('silent.example'));
  const outcomes = await world.settled('desk', count);
  expect(new Set(outcomes.map(({ outcome }) => outcome))).toEqual(new Set(['done']));
  expect(Math.max(...outcomes.map(({ attempts }) => attempts))).toBeLessThanOrEqual(MAX_LOOKS);
  const [reply] = await world.outbox();
  expect(reply!.request.text).toContain('fail silent.example temperror: the DNS does not say');
  expect(world.sandboxStarts() - starts).toBeLessThanOrEqual(5);
  expect(nameServer.asked.filter((name) => name === SILENT_KEY).length).toBeLessThan(count);
});

// Who named the root of somebody's conversation held it for hours.
it('holds a conversation for a few looks, and is parked then where unproven mail is skipped', async () => {
  const tools = `
    export const desk = () => 'welcome';
    export const settings = { desk: { from: ['@silent.example', '@sender.example'] } };`;
  await world.start(tools, { dnsServers: [nameServer.address], clock: quickClock });
  const root = '<root@sender.example>';
  await world.message('desk', await signed('silent.example', root));
  await world.message('desk', await signed('sender.example', root));
  const [mallorys, anns] = await world.settled('desk', 2);
  expect(mallorys).toMatchObject({
    outcome: 'dead-letter',
    reason: 'sender.unauthenticated',
    attempts: MAX_LOOKS,
  });
  expect(mallorys!.error!.message).toContain('temperror');
  expect(anns).toMatchObject({ outcome: 'done', attempts: 1 });
});

// Each held a place of the inbox for as long as its own lookups took.
it('is asked for once, however many of its mails come before that of others', async () => {
  const tools = `
    export const desk = () => 'welcome';
    export const settings = { desk: { from: ['@silent.example', '@sender.example'] } };`;
  await world.start(tools, { dnsServers: [nameServer.address] });
  const askedBefore = nameServer.asked.length;
  for (let mail = 0; mail < 60; mail++) await world.message('desk', await signed('silent.example'));
  await world.message('desk', await signed('sender.example'));
  expect(await world.settled('desk', 1)).toMatchObject([{ outcome: 'done' }]);
  const asked = nameServer.asked.slice(askedBefore);
  // The resolver itself asks twice.
  expect(asked.filter((name) => name === SILENT_KEY).length).toBeLessThanOrEqual(2);
});
