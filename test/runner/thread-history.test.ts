/** The earlier mails of a conversation: which ones, in which order, and none of other people. */
import { expect, it } from 'vitest';
import { outboxRecordSchema, parseJsonRecord } from '../../src/streams/records.ts';
import { readAll } from '../streams/store-reading.ts';
import { useRunnerWorld } from './runner-world.ts';

const world = useRunnerWorld();

const TELL = `export const desk = async (email, { forward }) => {
  const earlier = await email.thread();
  if (email.text.includes('pass on')) forward('boss@far.example');
  return email.newText.trim() + ' after ' + JSON.stringify(earlier.map((mail) =>
    (mail.direction === 'inbound' ? '>' : '<') + mail.newText.trim().split(' ')[0]));
};`;

async function lastAnswer(): Promise<string | undefined> {
  return (await world.outbox()).map(({ request }) => request.text).at(-1);
}

it('are those in and out, oldest first, also after a restart', async () => {
  await world.start(TELL);
  const root = ['Message-ID: <root@x>'];
  const later = ['References: <root@x>'];
  await world.mail('desk', 'one', root);
  await world.mail('desk', 'elsewhere');
  await world.mail('desk', 'two, pass on', later);
  await world.settled('desk', 3);
  await world.mail('desk', 'three', later);
  await world.settled('desk', 4);
  expect(await lastAnswer()).toBe('three after [">one","<one",">two,","<two,"]');
  await world.start(TELL);
  await world.mail('desk', 'four', later);
  await world.settled('desk', 5);
  expect(await lastAnswer()).toBe('four after [">one","<one",">two,","<two,",">three","<three"]');
});

it('are none of which whoever would get the reply has no part', async () => {
  await world.start(TELL);
  await world.mail('desk', 'secret', ['Message-ID: <root@x>', 'Cc: Eve <eve@far.example>']);
  await world.settled('desk', 1);
  for (const [from, expected] of [
    ['Mallory <mallory@far.example>', 'hi after []'],
    // What she got herself, she may be told; not what was answered to somebody else.
    ['EVE@far.example', 'hi after [">secret"]'],
    ['Ann <ann@sender.example>\r\nReply-To: mallory2@far.example', 'hi after []'],
  ] as const) {
    await world.mail('desk', 'hi', ['References: <root@x>', `From: ${from}`]);
    await world.settled('desk', (await world.outbox()).length + 1);
    expect(await lastAnswer()).toBe(expected);
  }
});

// The bytes of a large answer are older than its record, and expire first: the tool's call failed, and with it the run.
it('leave out what has expired', async () => {
  await world.start(TELL.replace('email.newText.trim() +', "email.newText.trim().padEnd(800_000, '.') +"));
  const { emailId } = await world.mail('desk', 'one', ['Message-ID: <root@x>']);
  await world.settled('desk', 1);
  const answer = world.store().stream(`request/desk/${emailId}/0`);
  expect(await answer.tail()).toBe(1);
  await answer.trim(1);
  await world.start(TELL);
  await world.mail('desk', 'two', ['References: <root@x>']);
  expect(await world.settled('desk', 2)).toMatchObject([{ outcome: 'done' }, { outcome: 'done' }]);
  const [, answered] = await readAll(world.store().stream('outbox'));
  const { request } = parseJsonRecord(outboxRecordSchema, answered!);
  expect(request).toMatchObject({ text: 'two after [">one"]' });
});

it('are the last twenty, cut where they are long', async () => {
  await world.start(`export const desk = async (email) => {
    const earlier = await email.thread();
    return JSON.stringify([earlier.length, Math.max(0, ...earlier.map(({ text }) => text.length)),
      earlier.every(({ date }) => date instanceof Date && !Number.isNaN(date.getTime()))]);
  };`);
  for (let i = 0; i < 15; i++) await world.mail('desk', 'x'.repeat(20_000), ['References: <root@x>']);
  await world.settled('desk', 15);
  expect(await lastAnswer()).toBe('[20,10000,true]');
});

// Each call read and parsed all of the conversation anew, in the daemon's own process.
it('are read once for a run, however often its tool asks', async () => {
  let reads = 0;
  await world.start(
    `export const desk = async (email) => {
      const all = await Promise.all(Array.from({ length: 30 }, () => email.thread()));
      return String(all.flat().length);
    };`,
    {
      wrapStore: (store) => ({
        ...store,
        stream: (name) => {
          const stream = store.stream(name);
          if (name !== 'outbox') return stream;
          return { ...stream, read: (options) => (reads++, stream.read(options)) };
        },
      }),
    },
  );
  for (const text of ['one', 'two']) await world.mail('desk', text, ['References: <root@x>']);
  await world.settled('desk', 2);
  expect(await lastAnswer()).toBe('60');
  expect(reads).toBe(1);
});
