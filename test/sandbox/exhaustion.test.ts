/**
 * Tools that misbehave. Each costs its own run and nothing else: the run fails with its reason, the next one
 * is answered, and this process, which stands for the daemon, is still there.
 */
import { describe, expect, it } from 'vitest';
import type { FailureReason, RunRequest, RunResult } from '../../src/runner/sandbox/sandbox.ts';
import { isRunning, limits, repliesOf, sandboxPids, useSandbox } from '../runner/tool-fixture.ts';
import type { Sandbox } from '../runner/tool-fixture.ts';

const sandbox = useSandbox();
/** What the process of the daemon may hold more after one such tool: its bundle, its log, no more. */
const MAX_GROWTH_BYTES = 100 * 1024 * 1024;
const short = { limits: { ...limits, timeoutMs: 400, memoryLimitMb: 32 } };

const endless: Record<string, string> = {
  'a loop': 'for (;;);',
  'a loop after an await': 'await null; for (;;);',
  'a loop after a host call': `await context.fetch('https://example.com').catch(() => {}); for (;;);`,
  'a loop in a timer': 'await new Promise(() => setTimeout(() => { for (;;); }, 1));',
  'a loop of microtasks': 'for (;;) await null;',
  'a promise that never settles': 'await new Promise(() => {});',
  'a thenable that never settles': 'return { then() {} };',
  'a catastrophic regular expression': `return String(/^(a+)+$/.test('a'.repeat(60) + 'b'));`,
  'an error whose message loops': 'throw { __proto__: Error.prototype, get message() { for (;;); } };',
  'a stack that loops': 'Error.prepareStackTrace = () => { for (;;); }; throw new Error("x");',
  'a rejection that nobody handles and that loops':
    'Promise.reject({ get stack() { for (;;); } }); for (;;);',
  'a result whose getter loops': 'return { get text() { for (;;); } };',
  'a reverse of a sparse giant': 'Array.prototype.reverse.call({ length: 2 ** 53 - 1 });',
  'a search in a sparse giant': 'Array.prototype.includes.call({ length: 2 ** 53 - 1 }, 1);',
  'allocations that are caught': 'for (;;) try { new ArrayBuffer(1e6) } catch {}',
  'a log of a loop': 'context.log({ toJSON() { for (;;); } });',
};

/** Of the Web's standards, which are partly the host's: what a tool can make it do. */
const overWork: Record<string, string> = {
  'digests without end': `for (;;) await crypto.subtle.digest('SHA-512', new Uint8Array(1e5));`,
  'decoding without end': `const bytes = new Uint8Array(1e5); for (;;) new TextDecoder('gb18030').decode(bytes);`,
  'URLs without end': `for (let n = 0; ; n++) new URL('http://a/' + n);`,
  'a URL of megabytes': `for (;;) new URL('http://a/' + 'x'.repeat(1e6));`,
  'random bytes without end': 'for (;;) crypto.getRandomValues(new Uint8Array(65_536));',
  'a clone that is deep': `let deep = {}; for (let n = 0; n < 1e5; n++) deep = { deep }; structuredClone(deep); for (;;);`,
  'a label that loops': 'new TextDecoder({ toString() { for (;;); } });',
  'a listener that dispatches itself': `const t = new EventTarget(); for (;;) { t.addEventListener('x', () => {}); t.dispatchEvent(new Event('x')); }`,
  'intervals that start intervals': 'setInterval(() => { for (;;); }, 1); await new Promise(() => {});',
  'a sort of a proxy':
    'Array.prototype.sort.call(new Proxy([], { get: (_, key) => (key === "length" ? 2 ** 32 : 1) }));',
  'a generator without end': 'for (const x of (function* () { for (;;) yield 1 })());',
  'an async iterator without end': 'for await (const x of (async function* () { for (;;) yield 1 })());',
  'a template that loops': `return { html: { toString() { for (;;); } } };`,
  'HTML that never comes': 'return { html: new Promise(() => {}) };',
};

const greedy: Record<string, string> = {
  'an array of a thousand million': 'Array(1e9).fill(0);',
  'a map that grows': 'const map = new Map(); for (let i = 0; ; i++) map.set(i, { i });',
  'an array that grows': 'const all = []; for (;;) all.push(new Array(1000).fill(email));',
  'strings that grow': `let text = 'x'; const all = []; for (;;) { text += text.slice(0, 1e5); all.push(text + all.length); JSON.stringify(all); }`,
  buffers: 'const all = []; for (;;) all.push(new Uint8Array(1e7).fill(1));',
  'a replacement that explodes': `return 'a'.repeat(1e6).replace(/a/g, '$&'.repeat(1000));`,
  'weak references': 'const all = []; for (;;) all.push(new WeakRef({}));',
  'objects of Intl': `const all = []; for (;;) all.push(new Intl.DateTimeFormat('de'), new Intl.NumberFormat('fr'));`,
  'a normalisation of a huge string': `const t = 'ẛ̣'.repeat(5e6); for (;;) t.normalize('NFKD');`,
  'a square of a huge number': 'let n = 7n ** 400_000n; for (;;) n = n * n;',
};

const flagrant: [name: string, body: string, reason: FailureReason][] = [
  ['throws', 'throw new Error("no");', 'threw'],
  ['rejects', 'return Promise.reject(new TypeError("no"));', 'threw'],
  ['throws what is no error', 'throw { toString() { throw 1 } };', 'threw'],
  ['recurses without end', 'const f = () => f() + 1; f();', 'threw'],
  [
    'throws in a timer',
    'setTimeout(() => { throw new Error("late") }, 1); await new Promise(() => {});',
    'threw',
  ],
  ['returns 10 MB', `return 'x'.repeat(1e7);`, 'result-too-large'],
  ['returns a number', 'return 42;', 'invalid-result'],
  ['returns a function', 'return () => {};', 'invalid-result'],
  ['returns a symbol', 'return Symbol.iterator;', 'invalid-result'],
  ['returns a cycle', 'const a = []; a.push(a); return a;', 'invalid-result'],
  [
    'returns a Proxy that throws',
    'return new Proxy({}, { ownKeys() { throw new Error("no") } });',
    'invalid-result',
  ],
  ['returns a getter that throws', 'return { get text() { throw new Error("no") } };', 'invalid-result'],
  ['floods its log', 'for (;;) context.log("flood");', 'log-flood'],
  ['floods its log with nothing', 'for (;;) console.log("");', 'log-flood'],
  ['calls its host in a storm', 'for (;;) context.fetch("https://example.com");', 'call-flood'],
  [
    'calls its host for ever',
    'for (;;) await context.fetch("https://example.com").catch(() => {});',
    'call-flood',
  ],
  ['starts timers in a storm', 'for (;;) setTimeout(() => {}, 1000);', 'call-flood'],
];

describe('without end', () => {
  it.each(Object.entries(endless))('%s ends with its time', async (_name, body) => {
    expect(await runThenAnother(body, short)).toMatchObject({ status: 'failed', reason: 'timeout' });
  });
});

describe('over work', () => {
  it.each(Object.entries(overWork))('%s ends', async (_name, body) => {
    const result = await runThenAnother(body, short);
    // Deep recursion may meet its own limit first, and what is large the memory's.
    expect(result).toMatchObject({
      status: 'failed',
      reason: expect.stringMatching(/^(?:timeout|threw|memory|call-flood)$/),
    });
  });
});

describe('out of memory', () => {
  it.each(Object.entries(greedy))('%s ends', async (_name, body) => {
    const result = await runThenAnother(body, { limits: { ...short.limits, timeoutMs: 1_500 } });
    // Which limit is met first depends on how fast the machine is.
    expect(result).toMatchObject({
      status: 'failed',
      reason: expect.stringMatching(/^(?:memory|timeout|crashed|threw)$/),
    });
  });
});

it('memory that no limit of the engine counts is seen from outside of the process', async () => {
  const body = `const all = []; for (;;) all.push(new Intl.DateTimeFormat('de', { dateStyle: 'full' }));`;
  expect(
    await runThenAnother(body, { limits: { ...limits, timeoutMs: 15_000, memoryLimitMb: 32 } }),
  ).toMatchObject({
    reason: 'memory',
    message: "the tool's process used more than 224 MiB",
  });
});

describe('a tool that', () => {
  it.each(flagrant)('%s', async (_name, body, reason) => {
    // Time is no matter here: the machine may be slow.
    const request = { limits: { ...limits, timeoutMs: 20_000 } };
    expect(await runThenAnother(body, request)).toMatchObject({ status: 'failed', reason });
  });
});

it('tools that do not even fit into their memory are said to', async () => {
  const bundle = await sandbox.bundle(
    `const big = ${JSON.stringify(Array.from({ length: 400_000 }, (_, index) => [index]))}; export const test = () => 'x' + big.length;`,
  );
  const result = await sandbox.run(bundle, { exportName: 'test', limits: { ...limits, memoryLimitMb: 16 } });
  expect(result).toMatchObject({ status: 'failed', reason: 'memory' });
});

it('a rejection that nobody handled is on the log, and is not the next run’s', async () => {
  const result = await sandbox.runBody('Promise.reject(new Error("lost")); return "well";');
  expect(repliesOf(result)).toEqual([{ text: 'well' }]);
  expect(result.logs).toEqual(['unhandled rejection: lost']);
  expect(await sandbox.runBody('return "next";')).toMatchObject({ effects: [{ text: 'next' }], logs: [] });
});

it('nothing of a run is left for the next', async () => {
  const body = `
    globalThis.count = (globalThis.count ?? 0) + 1;
    Array.prototype.join = Array.prototype.map = JSON.stringify = () => 'poisoned';
    return String(globalThis.count);`;
  for (const run of [1, 2, 3]) {
    expect(repliesOf(await sandbox.runBody(body)), `run ${run}`).toEqual([{ text: '1' }]);
  }
});

/** Runs the body, and behind it a good tool, which must be answered whatever the first one did. */
async function runThenAnother(body: string, request?: Partial<RunRequest>): Promise<RunResult> {
  const before = process.memoryUsage().rss;
  const result = await sandbox.runBody(body, request);
  await expectAnswer(sandbox);
  expect(sandboxPids().filter(isRunning).length).toBeLessThanOrEqual(2);
  expect(process.memoryUsage().rss - before, 'memory of the daemon').toBeLessThan(MAX_GROWTH_BYTES);
  return result;
}

async function expectAnswer({ runBody }: Sandbox): Promise<void> {
  expect(repliesOf(await runBody('return "still here";'))).toEqual([{ text: 'still here' }]);
}

it('a template in TSX that loops is stopped as any other code, and one that does not is rendered', async () => {
  const bundle = await sandbox.bundle({
    'index.tsx': `
      const Page = ({ children }) => <html lang="en"><body>{children}</body></html>;
      const Looping = () => { for (;;); };
      export const good = (email) => ({ html: <Page><h1>{email.subject}</h1></Page> });
      export const looping = () => ({ html: <Page><Looping /></Page> });`,
  });
  const looping = await sandbox.run(bundle, { exportName: 'looping', ...short });
  expect(looping).toMatchObject({ status: 'failed', reason: 'timeout' });
  expect(repliesOf(await sandbox.run(bundle, { exportName: 'good' }))).toEqual([
    { html: '<html lang="en"><body><h1>Hello</h1></body></html>' },
  ]);
});
