/** How an operator finds a mail without its id, and sees what waits: over HTTP, on a real store. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MailPage } from '../../src/admin/find-mails.ts';
import type { StageLag } from '../../src/admin/stage-lag.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { startOperatorWorld, workOff } from './operator-world.ts';
import type { OperatorWorld } from './operator-world.ts';

const MAILS = 1203;
let world: OperatorWorld;

beforeAll(async () => {
  world = await startOperatorWorld();
  const events = world.store.stream('events');
  const records = Array.from({ length: MAILS }, (_, number) => event(number));
  for (let first = 0; first < MAILS; first += 500) await events.append(records.slice(first, first + 500));
  // What is no arrival, and what is nothing at all.
  await events.append([{ body: '{"type":"email.delivered","data":{"email_id":"e1"}}' }, { body: '{' }]);
});
afterAll(() => world[Symbol.asyncDispose]());

/** Ann wrote the first and the last. */
function event(number: number): { body: string } {
  const name = number === 0 || number === MAILS - 1 ? 'Ann' : 'bob';
  const data = {
    email_id: `E${number}`,
    from: `${name}@sender.example`,
    to: ['list@else.example'],
    received_for: ['desk@agents.example'],
    subject: `Question ${number}`,
    message_id: `<m${number}@sender.example>`,
  };
  return { body: JSON.stringify({ type: 'email.received', data }) };
}

async function mails(query: string): Promise<MailPage> {
  const response = await world.ask(`/api/admin/mails?${query}`);
  expect(response.status).toBe(200);
  return (await response.json()) as MailPage;
}

describe('mail', () => {
  it('is listed newest first, page by page, each once', async () => {
    const numbers: number[] = [];
    for (let before: number | null | undefined; before !== null;) {
      const page: MailPage = await mails(`limit=500${before === undefined ? '' : `&before=${before}`}`);
      numbers.push(...page.mails.map(({ seqNum }) => seqNum));
      before = page.next;
    }
    expect(numbers).toEqual(Array.from({ length: MAILS }, (_, index) => MAILS - 1 - index));
  });

  it.each([
    ['its sender, whatever the case', 'text=ANN@', [MAILS - 1, 0]],
    ['its subject', 'text=Question%20700', [700]],
    ['its Message-ID', 'text=%3Cm3@sender', [3]],
    ['who of ours it is for', 'text=desk@agents.example&limit=2', [MAILS - 1, MAILS - 2]],
    ['nothing that it has', 'text=nobody', []],
    ['its sender, below a number', `text=ann@&before=${MAILS - 1}`, [0]],
  ])('is found by %s', async (_, query, expected) => {
    expect((await mails(query)).mails.map(({ seqNum }) => seqNum)).toEqual(expected);
  });

  it('is told as its event tells it', async () => {
    expect((await mails('text=ann@&limit=1')).mails[0]).toEqual({
      emailId: `e${MAILS - 1}`,
      seqNum: MAILS - 1,
      at: expect.stringMatching(/^\d{4}-/) as string,
      from: 'Ann@sender.example',
      to: ['desk@agents.example'],
      subject: `Question ${MAILS - 1}`,
      messageId: `<m${MAILS - 1}@sender.example>`,
    });
  });
});

it('what waits is told for each stage, whoever does its work', async () => {
  await world.mail('e0');
  await world.mail('e1');
  await workOff(world.store, {
    source: 'inbox/desk',
    journal: 'runs/desk',
    handle: () => {
      throw new MillraceError('permanent', 'tool.threw', 'no');
    },
  });
  await world.mail('e2');
  const response = await world.ask('/api/admin/health');
  const health = (await response.json()) as { faults: string[]; missingRoles: string[]; stages: StageLag[] };
  expect(response.status).toBe(200);
  expect(health).toMatchObject({ missingRoles: ['runner'], faults: ['no tools are live yet'] });
  expect(health.stages).toEqual([
    { stage: 'receive', inbox: null, waiting: MAILS + 2, oldestAt: expect.any(String) as string, retried: 0 },
    { stage: 'runner', inbox: 'desk', waiting: 1, oldestAt: expect.any(String) as string, retried: 0 },
    { stage: 'outbox', inbox: null, waiting: 0, oldestAt: null, retried: 0 },
  ]);
});
