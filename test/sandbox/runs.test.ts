/**
 * What one run leaves for the next: nothing. Runs of the same tools share a process, and mostly an isolate;
 * each test here runs a tool that leaves something behind, and then looks for it from runs after it.
 */
import { describe, expect, it } from 'vitest';
import type { ToolBundle } from '../../src/runner/bundle.ts';
import type { Capability } from '../../src/runner/sandbox/sandbox.ts';
import { limits, repliesOf, sandboxPids, useSandbox } from '../runner/tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });

/** The text of the reply, or what went wrong. */
async function answerOf(bundle: ToolBundle, exportName: string, request = {}): Promise<string> {
  return String(repliesOf(await sandbox.run(bundle, { exportName, ...request }))?.[0]?.text);
}

/** What is left, and an expression that is true where it can be seen. */
const leftovers: [name: string, leave: string, isSeen: string][] = [
  ['a global', 'globalThis.secret = email.text; var x = 1;', `'secret' in globalThis`],
  [
    'a global that cannot be removed',
    `Object.defineProperty(globalThis, 'secret', { value: 1 });`,
    `'secret' in globalThis`,
  ],
  ['a property of Object.prototype', 'Object.prototype.secret = 1;', '({}).secret !== undefined'],
  ['a method of Array.prototype', 'Array.prototype.map = () => ["poison"];', '[1].map((x) => x)[0] !== 1'],
  [
    'a patched Promise',
    'const { then } = Promise.prototype; Promise.prototype.then = function (...args) { return then.apply(this, args) }; Promise.all = () => 0;',
    `!/native/.test(Promise.prototype.then) || Promise.all() === 0`,
  ],
  ['a patched JSON', 'JSON.stringify = JSON.parse = () => "poison";', `JSON.stringify(1) !== '1'`],
  [
    'a patched iterator',
    'Object.getPrototypeOf([][Symbol.iterator]()).next = () => ({ done: true });',
    '[...[1]].length !== 1',
  ],
  [
    'a frozen prototype',
    'Object.freeze(Array.prototype); Object.freeze(Object.prototype);',
    'Object.isFrozen(Array.prototype)',
  ],
  ['a patched function constructor', 'Function.prototype.call = () => "poison";', '(() => 1).call() !== 1'],
  [
    'a patched generator',
    'Object.getPrototypeOf(function* () {}).prototype.next = () => "poison";',
    `(function* () { yield 1 })().next().value !== 1`,
  ],
  [
    'a hook for stacks',
    'Error.prepareStackTrace = () => "poison"; Error.stackTraceLimit = 0; Error.prototype.name = "Poison";',
    `Error.prepareStackTrace !== undefined || new Error('x').stack === 'poison' || Error.stackTraceLimit !== 10 || String(new Error('x')) !== 'Error: x'`,
  ],
  [
    'a property of the error of the engine',
    'try { null.x } catch (error) { error.constructor.prototype.secret = email.text; Object.getPrototypeOf(error.constructor).secret = 1; }',
    `(() => { try { null.x } catch (error) { return 'secret' in error || 'secret' in error.constructor } })()`,
  ],
  [
    'a property of the error of the host',
    `await context.fetch('https://example.com').catch((error) => { error.constructor.secret = Object.getPrototypeOf(error).secret = 1; });`,
    `await context.fetch('https://example.com').catch((error) => 'secret' in error || 'secret' in error.constructor)`,
  ],
  [
    'the last match of a regular expression',
    '/(secret) (\\w+)/.exec("a secret text");',
    `RegExp.$1 !== '' || RegExp.lastMatch !== '' || RegExp.input !== '' || RegExp["$\`"] !== ''`,
  ],
  ['the position of a shared regular expression', 'sticky.exec("ab");', 'sticky.lastIndex !== 0'],
  [
    'state of the module',
    'state.count += 1; cache.set("x", email);',
    'state.count !== 0 || cache.size !== 0',
  ],
  ['a property of a tool', 'leave.secret = look.secret = email;', `'secret' in leave || 'secret' in look`],
  ['a template that was cached', 'seen.add(tag());', 'seen.has(tag()) || tag() !== tag()'],
  [
    'something of the Web’s classes',
    'URL.prototype.secret = Headers.secret = console.secret = crypto.secret = 1; fetch.secret = 1;',
    `'secret' in new URL('http://a') || 'secret' in Headers || 'secret' in console || 'secret' in crypto || 'secret' in fetch`,
  ],
  [
    'something of the context',
    'context.secret2 = context.fetch.secret2 = email.headers.secret2 = 1;',
    `'secret2' in context || 'secret2' in context.fetch || 'secret2' in email.headers`,
  ],
  [
    'a symbol of the registry that is a key',
    'globalThis[Symbol.for("secret")] = Symbol.prototype.secret = 1; Symbol.secret = Symbol.iterator;',
    `Symbol.for('secret') in globalThis || Symbol.for('secret').secret !== undefined || 'secret' in Symbol`,
  ],
  [
    'options of Intl',
    'Intl.DateTimeFormat.prototype.formatToParts = Intl.NumberFormat.supportedLocalesOf = () => "poison"; new Intl.NumberFormat("de").secret = 1; Intl.secret = 1; Number.prototype.toLocaleString = () => "poison";',
    `'secret' in new Intl.NumberFormat('de') || 'secret' in Intl || (1.5).toLocaleString('de') !== '1,5' || new Intl.DateTimeFormat('de', { timeZone: 'UTC' }).format(0) !== '1.1.1970'`,
  ],
];

const moduleState = `const state = { count: 0 }, cache = new Map(), sticky = /a/g, seen = new WeakSet();
  const tag = () => ((strings) => strings)\`x\`;`;

describe('after a run that left', () => {
  it.each(leftovers)('%s, the next finds nothing', async (_name, leave, isSeen) => {
    const bundle = await sandbox.bundle(`${moduleState}
      const look = async (email, context) => (${isSeen}) ? 'seen' : 'nothing';
      const leave = async (email, context) => { ${leave} };
      export const leaving = async (email, context) => { await leave(email, context); return look(email, context) };
      export const looking = (email, context) => look(email, context);`);
    const pids = sandboxPids();
    expect(await answerOf(bundle, 'leaving')).toBe('seen');
    for (const run of [1, 2]) expect(await answerOf(bundle, 'looking'), `run ${run}`).toBe('nothing');
    expect(sandboxPids()).toEqual(pids);
  });
});

describe('what comes late', () => {
  const late: [name: string, leave: string][] = [
    ...[0, 1, 2, 3, 5, 8, 13, 40].map((turns): [string, string] => [
      `a rejection after ${turns} turns`,
      `(async () => { for (let turn = 0; turn < ${turns}; turn++) await null; throw new Error('late') })();`,
    ]),
    ['many rejections', 'for (let i = 0; i < 50; i++) Promise.reject(new Error("late"));'],
    [
      'a rejection whose error rejects when it is read',
      'const again = (depth) => Promise.reject({ __proto__: Error.prototype, get message() { if (depth < 9) again(depth + 1); return "late" }, get stack() { again(9); return "late" } }); again(0);',
    ],
    [
      'a rejection of a call that is given up',
      'const c = new AbortController(); fetch("https://example.com", { signal: c.signal }); c.abort(new Error("late"));',
    ],
    ['a timer', 'setTimeout(() => { console.log("late"); throw new Error("late") }, 3);'],
    ['an interval', 'setInterval(() => { console.log("late"); Promise.reject(new Error("late")) }, 1);'],
    [
      'a chain of microtasks at a timer',
      'setTimeout(async () => { for (;;) { await null; console.log("late"); } }, 2);',
    ],
    [
      'a finalizer that loops',
      'const registry = new FinalizationRegistry(() => { console.log("late"); for (;;); }); for (let i = 0; i < 100; i++) registry.register({ i }, i); globalThis.registry = registry;',
    ],
  ];
  // Long enough for what is late to come, and garbage enough for the engine to collect.
  const next = `let garbage = [];
    for (let turn = 0; turn < 8; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      for (let i = 0; i < 100; i++) garbage.push(new Array(20_000).fill(turn));
      garbage = [];
    }
    return 'well';`;

  it.each(late)('%s reaches no other run', async (_name, leave) => {
    const bundle = await sandbox.bundle(`
      export const leaving = async (email, context) => { const { fetch } = context; ${leave} return 'left' };
      export const looking = async (email, context) => { ${next} };`);
    // Time is no matter here: the machine may be slow.
    const request = { limits: { ...limits, timeoutMs: 20_000 } };
    const pids = sandboxPids();
    expect(await answerOf(bundle, 'leaving', request)).toBe('left');
    for (const run of [1, 2]) {
      const result = await sandbox.run(bundle, { exportName: 'looking', ...request });
      expect(result, `run ${run}`).toMatchObject({ effects: [{ text: 'well' }], logs: [] });
    }
    // A process that died of it would have cost the next run its first attempt.
    expect(sandboxPids()).toEqual(pids);
  });

  it('an answer of the host reaches only the run that asked', async () => {
    const first = Promise.withResolvers<void>();
    const answers: Capability[] = [
      async () => (await first.promise, { value: { status: 500, headers: [] } }),
      async () => {
        first.resolve();
        await first.promise;
        return { value: { status: 200, headers: [] } };
      },
    ];
    const bundle = await sandbox.bundle(`
      export const leaving = (email, { fetch }) => { fetch('https://example.com').catch(() => {}); return 'left' };
      export const looking = async (email, { fetch }) => String((await fetch('https://example.com')).status);`);
    const capabilities = { fetch: ((...call) => answers.shift()!(...call)) as Capability };
    expect(await answerOf(bundle, 'leaving', { capabilities })).toBe('left');
    expect(await answerOf(bundle, 'looking', { capabilities })).toBe('200');
  });
});

it('memory is counted for each run: what one used, the next has', async () => {
  const bundle = await sandbox.bundle(`export const test = () => {
    const all = [];
    for (let i = 0; i < 40; i++) all.push(i % 2 ? new Uint8Array(1e6).fill(i) : new Array(125_000).fill(i));
    return String(all.length);
  };`);
  for (let run = 0; run < 6; run++) expect(await answerOf(bundle, 'test'), `run ${run}`).toBe('40');
});

it('hundreds of runs in one process are each the first of their module', async () => {
  const bundle = await sandbox.bundle('let runs = 0; export const test = () => String(++runs);');
  const pids = sandboxPids();
  for (let run = 0; run < 230; run++) expect(await answerOf(bundle, 'test')).toBe('1');
  expect(sandboxPids()).toEqual(pids);
});
