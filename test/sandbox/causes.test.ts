/** What a tool's error came of is on record with it: each cause once, with its place, and no secret. */
import { expect, it } from 'vitest';
import { MillraceError } from '../../src/platform/errors.ts';
import { useSandbox } from '../runner/tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });

/** The message of a tool whose body, in line 2 of its file, is this. */
async function failureOf(body: string, secrets: Record<string, string> = {}): Promise<string> {
  const result = await sandbox.runBody(body, { secrets });
  return result.status === 'failed' ? result.message : 'it has not failed';
}

const AT = String.raw`\(index\.ts:2:\d+\)`;

it.each([
  [
    'a cause, and its cause',
    `throw new Error('no weather', { cause: new TypeError('fetch failed', { cause: new Error('refused') }) })`,
    `^Error: no weather ${AT}; caused by TypeError: fetch failed ${AT}; caused by Error: refused ${AT}$`,
  ],
  [
    'what is no error',
    `throw new Error('no', { cause: { code: 404 } })`,
    `^Error: no ${AT}; caused by {"code":404}$`,
  ],
  [
    'all that were tried',
    `await Promise.any([Promise.reject(new Error('one')), Promise.reject('two')])`,
    `^AggregateError: All promises were rejected(?: ${AT})?; caused by Error: one ${AT}; caused by two$`,
  ],
  [
    'a circle once',
    `const a = new Error('a'); a.cause = new Error('b', { cause: a }); throw a`,
    `^Error: a ${AT}; caused by Error: b ${AT}$`,
  ],
  ['a cause of nothing', `throw new Error('a', { cause: undefined })`, `^Error: a ${AT}$`],
])('%s', async (_name, body, message) => {
  expect(await failureOf(body)).toMatch(new RegExp(message));
});

it('of a call to the host is where the tool called', async () => {
  const fetch = (): Promise<never> => Promise.reject(new MillraceError('permanent', 'x', 'not granted'));
  const body = `await null; const answer = await context.fetch('https://a.example'); return 'x';`;
  const result = await sandbox.runBody(body, { capabilities: { fetch } });
  expect(result).toMatchObject({
    message: expect.stringMatching(new RegExp(`not granted ${AT}$`)) as string,
  });
});

it('is on the log with the places of the source, and none of our own frames', async () => {
  const { logs } = await sandbox.runBody(`console.error('seen', new Error('a', { cause: new Error('b') }));`);
  const frame = String.raw`\n    at (?:async )?test \(index\.ts:2:\d+\)`;
  expect(logs.join()).toMatch(new RegExp(`^seen Error: a${frame}\ncaused by Error: b${frame}$`));
});

it('is not looked for where a tool only says so', async () => {
  const { status, logs } = await sandbox.runBody(`
    const [revision] = /tools@[0-9a-f]+/.exec(new Error().stack);
    for (const place of ['0:0', '1:0', '9'.repeat(400) + ':1', '1:' + '9'.repeat(400)]) console.log(revision + ':' + place);`);
  expect(status).toBe('returned');
  expect(logs).toHaveLength(4);
});

it('of whatever kind it is, is shown as far as it goes round', async () => {
  const around = `const order = { id: 7, of: { name: 'Ann' } }; order.of.orders = [order]; order.twice = [order.of.name, {}, {}];`;
  const text = '{"id":7,"of":{"name":"Ann","orders":["[circular]"]},"twice":["Ann",{},{}]}';
  expect(await failureOf(`${around} throw order`)).toBe(`threw ${text}`);
  const result = await sandbox.runBody(`${around} console.log('got', order, 'and', [1n])`);
  expect(result.logs).toEqual([`got ${text} and ["1n"]`]);
});

it('is told as far as five causes, each of a thousand characters', async () => {
  const message = await failureOf(`
    let error = new Error('deepest');
    for (let depth = 0; depth < 100; depth++) error = new Error('x'.repeat(5_000), { cause: error });
    throw error;`);
  expect(
    message
      .split('; caused by ')
      .slice(1)
      .map((cause) => cause.replace(/ \(.*/, '').length),
  ).toEqual(Array(5).fill(1_001));
});

it('that cannot be read is the tool’s own failure, told all the same', async () => {
  const broken = `Object.defineProperty(new Error('outer'), 'cause', { get() { throw new Error('inner') } })`;
  expect(await failureOf(`throw ${broken}`)).toMatch(new RegExp(`^Error: outer ${AT}$`));
  expect(
    await failureOf(
      `throw new Error('outer', { cause: new Proxy({}, { ownKeys() { throw 1 }, getPrototypeOf() { throw 1 } }) })`,
    ),
  ).toMatch(/^Error: outer /);
});

it('is on the log, too, and holds no secret', async () => {
  const body = `
    const error = new Error('no', { cause: new Error('401 for ' + context.secret('API_KEY')) });
    console.error(error);
    throw error;`;
  const result = await sandbox.runBody(body, { secrets: { API_KEY: 'a-secret-value' } });
  const seen = JSON.stringify(result);
  expect(seen).toContain('caused by Error: 401 for [secret API_KEY]');
  expect(result.logs.join()).toContain('caused by Error: 401 for [secret API_KEY]');
  expect(seen).not.toContain('a-secret-value');
});
