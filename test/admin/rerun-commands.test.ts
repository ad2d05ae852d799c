/** The commands that run mail again, on a real admin API, over a line that breaks. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createAdminClient } from '../../src/admin/admin-client.ts';
import type { AdminClient } from '../../src/admin/admin-client.ts';
import { redriveDeadLetters, replayMails } from '../../src/admin/rerun-commands.ts';
import type { CommandDeps, RedriveOptions } from '../../src/admin/rerun-commands.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { headerOf } from '../../src/streams/records.ts';
import { readAll } from '../streams/store-reading.ts';
import { OPERATOR_TOKEN, startOperatorWorld, workOff } from './operator-world.ts';
import type { OperatorWorld } from './operator-world.ts';

let world: OperatorWorld;
let printed: string[];
beforeEach(async () => {
  world = await startOperatorWorld();
  printed = [];
});
afterEach(() => world[Symbol.asyncDispose]());

/** Every post whose number, from 1, is named comes to nothing, after the daemon has done it. */
function deps({ lost }: { lost: readonly number[] }): CommandDeps {
  const client = createAdminClient({ url: world.url, token: OPERATOR_TOKEN });
  let posts = 0;
  const breaking: AdminClient = {
    ...client,
    async post<T>(path: string, body: unknown) {
      posts += 1;
      const isLost = lost.includes(posts);
      const answer = await client.post<T>(path, body);
      if (isLost) throw new MillraceError('transient', 'admin.failed', 'the streams are down');
      return answer;
    },
  };
  return {
    client: breaking,
    print: (text) => void printed.push(text),
    confirm: async () => true,
    newId: () => crypto.randomUUID(),
    sleep: async () => {},
  };
}

const desk = { inbox: 'desk', seq: { from: 0, to: 199 } };
const copies = async (): Promise<(string | undefined)[]> => {
  const records = await readAll(world.store.stream('inbox/desk'));
  return records.slice(60).map((record) => headerOf(record, 'key'));
};

describe('a replay of 60 mails, in two pages', () => {
  beforeEach(async () => {
    for (let n = 0; n < 60; n++) await world.mail(`e${n}`);
  });

  it('asks again for a page that failed, and runs no mail twice', async () => {
    await replayMails(deps({ lost: [1, 4] }), desk);
    expect(new Set(await copies()).size).toBe(60);
    expect(await copies()).toHaveLength(60);
  });

  // Each time it was given it was a replay of its own: mail of the pages before was answered twice.
  it('that broke off goes on under its id, and runs no mail twice', async () => {
    const brokenOff = replayMails(deps({ lost: [4, 5, 6, 7, 8] }), desk);
    await expect(brokenOff).rejects.toMatchObject({ code: 'admin.failed' });
    expect(printed.filter((line) => line.includes('  replayed  '))).toHaveLength(50);
    const [, id] = /--id (\S+)/.exec(printed.join('\n')) ?? [];
    printed = [];
    await replayMails(deps({ lost: [] }), { ...desk, id });
    expect(await copies()).toHaveLength(60);
    expect(printed.filter((line) => line.includes('  already replayed  '))).toHaveLength(60);
  });

  it('without that id is a new one, and runs them again', async () => {
    await replayMails(deps({ lost: [] }), desk);
    await replayMails(deps({ lost: [] }), desk);
    expect(await copies()).toHaveLength(120);
  });
});

// Copies of the pages before had failed again meanwhile, stood at the journal's end, and were put back too: on and on.
it('a redrive of all puts each dead letter back once, also where each fails again before the next page', async () => {
  const handle = () => Promise.reject(new MillraceError('permanent', 'tool.threw', 'TypeError: no'));
  const workDesk = () => workOff(world.store, { source: 'inbox/desk', journal: 'runs/desk', handle });
  for (let n = 0; n < 120; n++) await world.mail(`e${n}`);
  await workDesk();
  const whole = deps({ lost: [] });
  let pages = 0;
  const client: AdminClient = {
    ...whole.client,
    async post<T>(path: string, body: unknown) {
      pages += 1;
      if (pages > 5) throw new Error('it does not end');
      const answer = await whole.client.post<T>(path, body);
      await workDesk();
      return answer;
    },
  };
  await redriveDeadLetters({ ...whole, client }, { inbox: 'desk', all: true });
  expect(printed.at(-1)).toBe('120 dead letters put back.');
  expect(pages).toBe(3);
  const records = await readAll(world.store.stream('inbox/desk'));
  const keys = records.slice(120).map((record) => headerOf(record, 'key'));
  expect(new Set(keys)).toEqual(new Set(Array.from({ length: 120 }, (_, n) => `e${n}#redrive-${n}`)));
  expect(keys).toHaveLength(120);
});

// A mistyped name was answered as if all had been put back.
it('a redrive of what is not there is refused, and of what is all put back is none', async () => {
  const redrive = (options: RedriveOptions) => redriveDeadLetters(deps({ lost: [] }), options);
  await world.mail('e0');
  await redrive({ inbox: 'desk', all: true });
  expect(printed).toEqual(['No dead letter is left to put back.']);
  await redrive({ stage: 'outbox', all: true });
  const refused: [RedriveOptions, string][] = [
    [{ inbox: 'des', all: true }, 'rerun.no_such_inbox'],
    [{ inbox: 'nope', seq: { from: 0, to: 0 } }, 'rerun.no_such_inbox'],
    [{ inbox: 'desk', seq: { from: 99, to: 99 } }, 'rerun.no_dead_letter'],
    [{ stage: 'outbox', seq: { from: 0, to: 5 } }, 'rerun.no_dead_letter'],
  ];
  for (const [options, code] of refused)
    await expect(redrive(options)).rejects.toMatchObject({ kind: 'invalid', code });
});

// What JavaScript takes for a date is wider: "7" is a day of 2001, and so was all mail.
it.each(['7', 'July', 'yesterday', '2026-22-11'])('a replay of mail since %j is refused', async (since) => {
  const refused = replayMails(deps({ lost: [] }), { inbox: 'desk', since });
  await expect(refused).rejects.toMatchObject({ kind: 'invalid', code: 'admin.usage' });
});
