/** The author's own tests: what they may say, and that they are run in the sandbox before anything goes live. */
import { describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { hasCode } from '../../src/platform/errors.ts';
import { checkedTests, runToolTests } from '../../src/runner/tool-tests.ts';
import { useSandbox } from './tool-fixture.ts';

const sandbox = useSandbox();

const TOOLS = `
export const echo = (email) => email.text === '' ? undefined : email.text;
export const rich = (email) => ({ html: '<p>' + email.from.address + ' ' + email.tag + '</p>' });
export const sized = async (email) => (await email.attachments[0].text()) + email.headers.get('X-One');
export const asking = async (email) => Object.values(await email.authentication()).join();
export const throwing = () => {
  throw new Error('no such luck');
};
export const fetching = (email, { fetch }) => fetch('https://example.com').then(() => 'fetched');
export const knowing = (email, { secret }) => secret('API_KEY');
export const endless = () => { for (;;); };
export const desk = async (email, { send, state, now }) => {
  const n = ((await state.get('n')) ?? 0) + 1;
  await state.set('n', n);
  await state.thread.set('last', { at: now().toISOString(), of: email.newText });
  const earlier = await email.thread();
  send({ to: 'ops@far.example', subject: 'No. ' + n, text: earlier.map((mail) => mail.direction + ' ' + mail.text).join() });
  return { forward: ['boss@far.example'] };
};
export const settings = {
  fetching: { hosts: ['example.com'] }, knowing: { secrets: ['API_KEY'] }, endless: { timeoutMs: 100 },
};
`;

/** What running these tests says; empty where all hold. */
async function failures(tests: string): Promise<string[]> {
  const bundle = await sandbox.bundle(`${TOOLS}\nexport const tests = ${tests};`);
  try {
    await runToolTests({ pool: sandbox.pool, clock }, bundle, new AbortController().signal);
    return [];
  } catch (error) {
    if (!hasCode(error, 'tools.tests_failed')) throw error;
    return error.message.split('\n');
  }
}

describe('tests of tools', () => {
  it('hold when the tool does what they say', async () => {
    const tests = `{
      echo: [
        { email: { text: 'abc' }, expect: { text: 'abc' } },
        { email: { text: 'abc' }, expect: { contains: 'b', matches: /^A/i } },
        { email: {}, expect: { noReply: true } },
      ],
      rich: [{ email: { from: 'eve@example.net', tag: 'x' }, expect: { text: '<p>eve@example.net x</p>' } }],
      sized: [{
        email: { attachments: [{ filename: 'a', content: 'bytes' }], headers: { 'x-one': '1' } },
        expect: { text: 'bytes1' },
      }],
      asking: [
        { email: {}, expect: { contains: 'none,example.net,' } },
        { email: { from: 'b@x.example', authentication: 'pass' }, expect: { contains: 'pass,x.example,' } },
      ],
      throwing: [{ email: {}, expect: { throws: true } }, { email: {}, expect: { throws: 'such luck' } }],
      fetching: [{ email: {}, expect: { throws: 'no network in a test' } }],
      knowing: [{ email: {}, secrets: { API_KEY: 'k' }, expect: { text: 'k' } }],
    }`;
    expect(await failures(tests)).toEqual([]);
  });

  it('may say what is kept and what was written before, and what is sent and kept then', async () => {
    const given = `email: { text: 'hi' }, state: { n: 6, other: [1] }, now: '2026-11-22T10:00:00Z',
      thread: [{ text: 'first' }, { text: 'second', sent: true }]`;
    const tests = `{ desk: [
      { ${given}, expect: {
        noReply: true,
        send: { to: 'ops@far.example', subject: 'No. 7', text: 'inbound first,outbound second' },
        forward: { to: 'boss@far.example' },
        state: { n: 7, other: [1], none: null },
        threadState: { last: { of: 'hi', at: '2026-11-22T10:00:00.000Z' } },
      } },
      { ${given}, expect: { send: { to: 'boss@far.example' } } },
      { ${given}, expect: { forward: { text: 'x' } } },
      { ${given}, expect: { state: { n: 6 } } },
      { ${given}, expect: { threadState: { last: null } } },
    ] }`;
    expect(await failures(tests)).toEqual([
      expect.stringMatching(/^tests\.desk\.1: expected send .*boss@far.example.* got .*ops@far.example/),
      expect.stringMatching(/^tests\.desk\.2: expected forward /),
      'tests.desk.3: expected state.n to be 6, got "7"',
      expect.stringMatching(/^tests\.desk\.4: expected threadState.last to be null, got /),
    ]);
  });

  it('say what came in place of what was expected', async () => {
    const tests = `{
      echo: [
        { name: 'shouts', email: { text: 'abc' }, expect: { text: 'ABC' } },
        { email: { text: 'abc' }, expect: { contains: 'x' } },
        { email: { text: 'abc' }, expect: { matches: /x+/ } },
        { email: { text: 'abc' }, expect: { noReply: true } },
        { email: { text: 'abc' }, expect: { throws: true } },
        { email: {}, expect: { text: 'abc' } },
      ],
      throwing: [
        { email: {}, expect: { throws: 'other' } },
        { email: {}, expect: { text: 'abc' } },
      ],
      endless: [{ email: {}, expect: { throws: true } }],
    }`;
    expect(await failures(tests)).toEqual([
      'tests.echo.0 (shouts): expected the text "ABC", got "abc"',
      'tests.echo.1: expected a text with "x" in it, got "abc"',
      'tests.echo.2: expected a text that matches /x+/, got "abc"',
      'tests.echo.3: expected no reply, got "abc"',
      'tests.echo.4: expected an error, got "abc"',
      'tests.echo.5: expected a reply, got none',
      expect.stringMatching(
        /^tests\.throwing\.0: expected an error with "other" in its message, got ".*luck"$/,
      ),
      expect.stringMatching(/^tests\.throwing\.1: .*no such luck \(.*index\.ts:7:\d+\)$/),
      expect.stringMatching(/^tests\.endless\.0: /),
    ]);
  });

  it('cannot hang the daemon by their own regular expression', async () => {
    const tests = `{ echo: [{ email: { text: 'a'.repeat(60) + 'b' }, expect: { matches: /^(a+)+$/ } }] ,
      endless: [] }; settings.echo = { timeoutMs: 200 }; export const unused = 0`;
    const [failure] = await failures(tests);
    expect(failure).toMatch(/^tests\.echo\.0: /);
  });

  it.each([
    [`{ nobody: [] }`, 'tests.nobody: there is no exported function of this name'],
    [`[]`, 'tests: '],
    [`{ echo: {} }`, 'tests.echo: '],
    [`{ echo: [{ email: {}, expects: {} }] }`, 'tests.echo.0.expect: '],
    [`{ echo: [{ email: { txt: 'a' }, expect: { text: 'a' } }] }`, '"txt"'],
    [`{ echo: [{ email: {}, expect: {} }] }`, 'tests.echo.0.expect: expected some of text'],
    [`{ echo: [{ email: {}, expect: { text: 'a', noReply: true } }] }`, 'tests.echo.0.expect: expected some'],
    [`{ echo: [{ email: {}, expect: { throws: true, state: {} } }] }`, 'tests.echo.0.expect: expected some'],
    [
      `{ echo: [{ email: {}, expect: { matches: 'a' } }] }`,
      'tests.echo.0.expect.matches: expected a regular',
    ],
    [`{ echo: [{ email: {}, expect: { text: () => 'a' } }] }`, 'tests.echo.0.expect.text: '],
    [
      `{ echo: [{ email: { date: 'now' }, expect: { text: 'a' } }] }`,
      'tests.echo.0.email.date: expected a date',
    ],
    [`{ __proto__: { echo: 1 }, toString: [] }`, 'tests.toString: '],
  ])('are refused as %s, by the name of the key', async (tests, message) => {
    const bundling = sandbox.bundle(`${TOOLS}\nexport const tests = ${tests};`);
    await expect(bundling).rejects.toMatchObject({
      code: 'tools.tests_invalid',
      message: expect.stringContaining(message) as string,
    });
  });

  it('are not without number', () => {
    const many = Array.from({ length: 201 }, () => ({ email: {}, expect: { text: 'a' } }));
    expect(() => checkedTests({ echo: many }, ['echo'])).toThrow('there are 201; at most 200 are run');
  });
});
