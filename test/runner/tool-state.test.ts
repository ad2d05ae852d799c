/** What tools keep: counted once, whatever runs side by side, fails or is run again; and what is too much. */
import { describe, expect, it } from 'vitest';
import { MillraceError } from '../../src/platform/errors.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { readAll } from '../streams/store-reading.ts';
import { useRunnerWorld } from './runner-world.ts';
import type { RunnerWorld } from './runner-world.ts';

const world = useRunnerWorld();

const COUNT = `const add = async (state) => {
  const n = ((await state.get('n')) ?? 0) + 1;
  await state.set('n', n);
  return n;
};`;

async function answers({ outbox }: RunnerWorld): Promise<string[]> {
  return (await outbox()).map(({ request }) => request.text);
}

/** What stands between a runner and its store: the process ends at its next mail. */
function outboxThatBreaks(): { breakDown: () => void; wrapStore: (store: StreamStore) => StreamStore } {
  let isDown = false;
  return {
    breakDown: () => void (isDown = true),
    wrapStore: (store) => ({
      ...store,
      stream: (name) => {
        const stream = store.stream(name);
        if (name !== 'outbox') return stream;
        return {
          ...stream,
          append: (records, options) => {
            if (!isDown) return stream.append(records, options);
            throw new MillraceError('bug', 'test.crash', 'the process ends here');
          },
        };
      },
    }),
  };
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => String(i + 1));

describe('the state of an inbox', () => {
  it('is counted once for each of many that run side by side', async () => {
    await world.start(`export const count = async (email, { state }) => {
        // Those that begin together have all seen the same when the first one is done.
        const before = (await state.get('n')) ?? 0;
        await new Promise((done) => setTimeout(done, 100));
        await state.set('n', before + 1);
        return String(before + 1);
      };`);
    for (const n of numbers(12)) await world.mail('count', n);
    await world.settled('count', 12);
    expect((await answers(world)).map(Number).toSorted((a, b) => a - b)).toEqual(numbers(12).map(Number));
  });

  it('is there after a restart, with what was deleted gone', async () => {
    const tools = `export const keep = async (email, { state }) => {
      const [what, key, value] = email.text.trim().split(' ');
      if (what === 'set') await state.set(key, { value, list: [1, null, 'ä'] });
      if (what === 'delete') return String(await state.delete(key));
      return JSON.stringify([await state.keys(), await state.get(key)]);
    };`;
    await world.start(tools);
    const conversation = ['References: <root@x>'];
    for (const text of ['set __proto__ 1', 'set b 2', 'set c 3', 'delete b', 'delete b', 'get b'])
      await world.mail('keep', text, conversation);
    await world.settled('keep', 6);
    await world.start(tools);
    await world.mail('keep', 'get __proto__', conversation);
    await world.settled('keep', 7);
    expect((await answers(world)).slice(3)).toEqual([
      'true',
      'false',
      JSON.stringify([['__proto__', 'c'], null]),
      JSON.stringify([['__proto__', 'c'], { value: '1', list: [1, null, 'ä'] }]),
    ]);
  });

  it('is left alone by a run that fails, or sends what is refused', async () => {
    await world.start(`${COUNT}
      export const count = async (email, { state }) => {
        const n = String(await add(state));
        if (email.text.includes('throw')) throw new Error('after counting');
        if (email.text.includes('refused')) return { to: 'x@agent.example', text: n };
        return email.text.includes('silent') ? undefined : n;
      };`);
    for (const text of ['throw', 'fine', 'refused', 'silent', 'fine'])
      await world.mail('count', text, ['References: <root@x>']);
    const outcomes = await world.settled('count', 5);
    expect(outcomes.map(({ outcome }) => outcome)).toEqual([
      'dead-letter',
      'done',
      'dead-letter',
      'skipped',
      'done',
    ]);
    expect(await answers(world)).toEqual(['1', '3']);
  });

  it('is kept also by a tool that does not wait for it', async () => {
    await world.start(`export const count = (email, { state }) => {
      state.get('n').then((n) => state.set('n', (n ?? 0) + 1));
      state.set('last', email.text.trim());
      return state.get('n').then(String);
    };`);
    for (const n of numbers(3)) await world.mail('count', n, ['References: <root@x>']);
    await world.settled('count', 3);
    expect(await answers(world)).toEqual(['undefined', '1', '2']);
  });

  it('is one with what is sent: a run that is cut off between the two is finished, not run again', async () => {
    const tools = `${COUNT}
      export const count = async (email, { state, random }) => (await add(state)) + ' ' + random() + Math.random();`;
    const outbox = outboxThatBreaks();
    await world.start(tools, outbox);
    await world.mail('count', 'a');
    await world.settled('count', 1);
    outbox.breakDown();
    await world.mail('count', 'b');
    await world.ended();
    expect(await answers(world)).toHaveLength(1);
    const intents = (await readAll(world.store().stream('runs/count'))).filter((record) =>
      Buffer.from(record.body).includes('"kind":"intent"'),
    );
    expect(intents).toHaveLength(2);
    await world.start(tools);
    await world.mail('count', 'c');
    await world.settled('count', 3);
    const texts = await answers(world);
    expect(texts.map((text) => text.split(' ')[0])).toEqual(['1', '2', '3']);
    // As it was decided before: another run would have drawn another number.
    expect(Buffer.from(intents[1]!.body).toString()).toContain(texts[1]);
  });

  // The caps were read back before what was decided had been finished, and so did not know of it.
  it('is counted by the caps also where its run is finished after a crash', async () => {
    const tools = `${COUNT} export const count = async (email, { state }) => String(await add(state));`;
    const outbox = outboxThatBreaks();
    await world.start(tools, outbox);
    outbox.breakDown();
    await world.mail('count', 'a');
    await world.ended();
    await world.start(tools, { caps: { perSender: 1 } });
    await world.mail('count', 'b');
    const outcomes = await world.settled('count', 2);
    expect(outcomes.map(({ outcome, reason }) => [outcome, reason])).toEqual([
      ['done', null],
      ['skipped', 'sender-cap'],
    ]);
  });
});

describe('the state of a conversation', () => {
  it('is its own', async () => {
    await world.start(`${COUNT}
      export const count = async (email, { state }) => email.text.trim() + (await add(state.thread));`);
    for (const text of ['a', 'b', 'a', 'a', 'b'])
      await world.mail('count', text, [`References: <${text}@x>`]);
    await world.settled('count', 5);
    expect((await answers(world)).toSorted()).toEqual(['a1', 'a2', 'a3', 'b1', 'b2']);
  });
});

describe('what cannot be kept', () => {
  it.each([
    [`set('a', undefined)`, 'state.a is undefined, not JSON; delete takes a key away'],
    [`set('a', () => 1)`, 'state.a is a function, not JSON'],
    [`set('a', 1n)`, 'state.a is not JSON: TypeError'],
    [`set('a', (() => { const o = {}; o.o = o; return o })())`, 'state.a is not JSON: TypeError'],
    [`set('a', { seen: new Set([1]) })`, 'state.a is not JSON: TypeError: [object Set] at seen'],
    [`set('a', /x/)`, 'state.a is not JSON: TypeError: [object RegExp]'],
    [`set('a', Promise.resolve(1))`, 'state.a is not JSON: TypeError: [object Promise]'],
    [`set('a', [1, 0 / 0])`, 'state.a is not JSON: TypeError: NaN at 1'],
    [`set(42, 1)`, 'a key of the state is a number (42), not a string'],
    [`set('', 1)`, 'a key of the state has 1 to 200 characters'],
    [`get('k'.repeat(201))`, 'a key of the state has 1 to 200 characters'],
    [`set('a', 'x'.repeat(40_000))`, 'bytes; at most 32768 are kept'],
    [
      `keys().then(async () => { for (let i = 0; i < 257; i++) await state.set('k' + i, i) })`,
      'the state would have 257 keys; at most 256 are kept',
    ],
  ])('%s is refused by name', async (call, message) => {
    await world.start(`export const test = async (email, { state }) => {
      await state.${call};
    };`);
    await world.mail('test', 'x');
    const [outcome] = await world.settled('test', 1);
    expect(outcome?.error).toMatchObject({
      code: 'tool.threw',
      message: expect.stringContaining(message) as string,
    });
  });
});

describe('random numbers', () => {
  it('look random, and are those of the email', async () => {
    await world.start(
      `export const test = (email, { random }) => JSON.stringify(Array.from({ length: 50 }, random));`,
    );
    await world.mail('test', 'a');
    await world.mail('test', 'b');
    await world.settled('test', 2);
    const drawn = (await answers(world)).map((text) => JSON.parse(text) as number[]);
    expect(new Set(drawn.flat()).size).toBe(100);
    expect(drawn.flat().every((number) => number >= 0 && number < 1)).toBe(true);
    const mean = drawn.flat().reduce((sum, number) => sum + number, 0) / 100;
    expect(Math.abs(mean - 0.5)).toBeLessThan(0.25);
  });
});
