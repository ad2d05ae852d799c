/** Who may write to a tool, by signed mail, a DNS server on loopback, and the real runner. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { KEY_RECORD, signedMail } from '../mail/signed-mail.ts';
import { startNameServer } from '../platform/name-server.ts';
import type { NameServer, Zone } from '../platform/name-server.ts';
import { useRunnerWorld } from './runner-world.ts';

const world = useRunnerWorld();
const zone: Zone = {};
let nameServer: NameServer;
beforeAll(async () => {
  nameServer = await startNameServer(zone);
});
afterAll(() => nameServer.close());
beforeEach(() => {
  zone['s1._domainkey.sender.example'] = { TXT: [KEY_RECORD] };
  zone['s1._domainkey.eve.example'] = zone['s1._domainkey.sender.example'];
});

const start = (tools: string): Promise<void> => world.start(tools, { dnsServers: [nameServer.address] });

function mailOf(from: string, text = 'Hi', fields: readonly string[] = []): string {
  const head = [
    ...fields,
    `From: ${from}`,
    'To: desk@agent.example',
    'Subject: Hello',
    `Message-ID: <${from}>`,
  ];
  return `${head.join('\r\n')}\r\n\r\n${text}\r\n`;
}

const signed = (mail: string, domain = 'sender.example'): Promise<string> => signedMail(mail, { domain });
const ANNS = 'Ann <ann@sender.example>';
const FORGED = 'Authentication-Results: amazonses.com; dkim=pass header.d=sender.example; dmarc=pass';

describe('a tool that names who may write to it', () => {
  const tools = `
    export const desk = () => 'welcome';
    export const settings = { desk: { from: ['Ann@Sender.example', '@friends.example'] } };`;

  it('answers who is on the list and has proven it', async () => {
    await start(tools);
    await world.message('desk', await signed(mailOf('ANN@SENDER.example')));
    expect(await world.settled('desk', 1)).toMatchObject([{ outcome: 'done' }]);
  });

  it.each<[string, () => Promise<string>, string]>([
    ['only claims to be Ann', async () => mailOf(ANNS), 'sender-unauthenticated'],
    ['forges the verdict', async () => mailOf(ANNS, 'Hi', [FORGED]), 'sender-unauthenticated'],
    ['signs as another', async () => signed(mailOf(ANNS), 'eve.example'), 'sender-unauthenticated'],
    [
      'changes what Ann wrote',
      async () => (await signed(mailOf(ANNS, 'pay 10'))).replace('pay 10', 'pay 99'),
      'sender-unauthenticated',
    ],
    [
      'is proven to be somebody else',
      async () => signed(mailOf('eve@eve.example'), 'eve.example'),
      'sender-not-allowed',
    ],
    ['is of a domain below one on the list', async () => mailOf('a@x.friends.example'), 'sender-not-allowed'],
  ])('does not answer who %s', async (_, mail, reason) => {
    await start(tools);
    await world.message('desk', await mail());
    expect(await world.settled('desk', 1)).toMatchObject([{ outcome: 'skipped', reason }]);
    expect(await world.outbox()).toEqual([]);
  });

  it('asks no DNS for somebody who is not on it', async () => {
    await start(tools);
    const before = nameServer.asked.length;
    await world.message('desk', await signed(mailOf('eve@eve.example'), 'eve.example'));
    await world.settled('desk', 1);
    expect(nameServer.asked.length).toBe(before);
  });

  it('waits while the DNS does not say, and answers when it does', async () => {
    zone['s1._domainkey.sender.example'] = 'broken';
    await start(tools);
    await world.message('desk', await signed(mailOf(ANNS)));
    await expect.poll(() => nameServer.asked.includes('s1._domainkey.sender.example')).toBe(true);
    zone['s1._domainkey.sender.example'] = { TXT: [KEY_RECORD] };
    expect(await world.settled('desk', 1)).toMatchObject([{ outcome: 'done' }]);
  });
});

it('is parked where the tool wants to see nobody unproven, with what to do', async () => {
  await start(
    "export const desk = () => 'x'; export const settings = { desk: { unauthenticated: 'park' } };",
  );
  await world.message('desk', mailOf(ANNS));
  const [outcome] = await world.settled('desk', 1);
  expect(outcome).toMatchObject({ outcome: 'dead-letter', reason: 'sender.unauthenticated' });
  expect(JSON.stringify(outcome)).toContain('it is not signed');
});

it('is told to a tool that asks', async () => {
  await start(`export const desk = async (email) => {
    const { result, domain } = await email.authentication();
    return result + ' ' + domain;
  };`);
  await world.message('desk', await signed(mailOf(ANNS)));
  await world.settled('desk', 1);
  await world.message('desk', await signed(mailOf('Bob <bob@sender.example>'), 'eve.example'));
  await world.settled('desk', 2);
  const texts = (await world.outbox()).map(({ request }) => request.text);
  expect(texts[0]).toContain('pass sender.example');
  expect(texts[1]).toContain('fail sender.example');
});

it('holds for a message above 64 KiB, too', async () => {
  await start(
    "export const desk = () => 'x'; export const settings = { desk: { from: ['@sender.example'] } };",
  );
  await world.message('desk', await signed(mailOf(ANNS, `${'x'.repeat(70)}\r\n`.repeat(2_000))));
  expect(await world.settled('desk', 1)).toMatchObject([{ outcome: 'done' }]);
});
