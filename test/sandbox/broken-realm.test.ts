/**
 * Tools that break the realm that they run in, under the feet of our own code there, and tools that answer by what is
 * hardly a value. Whatever they break is theirs: the run ends with a reason or with what the tool stated, in its time,
 * and the next run finds nothing of it.
 */
import { describe, expect, it } from 'vitest';
import { parseGuestJson, runEndSchema } from '../../src/runner/sandbox/guest-json.ts';
import type { RunResult } from '../../src/runner/sandbox/sandbox.ts';
import { limits, repliesOf } from '../runner/tool-fixture.ts';
import { useToolCode } from './tool-code.ts';

const run = useToolCode();
const capabilities = { state: async () => ({ value: [['kept', 1]] }) };

/** Each still answers `x`. */
const harmless: Record<string, string> = {
  'Map without set': `Map.prototype.set = () => { throw new Error('broken') }; return 'x'`,
  'JSON that forges the end of the run': `JSON.stringify = () => '{"effects":[{"kind":"reply","text":"y"}],"state":{}}'; return 'x'`,
  'JSON.parse that forges': `JSON.parse = () => ({ kind: 'begin' }); await context.state.get('kept'); return 'x'`,
  'toJSON on all strings': `String.prototype.toJSON = () => ({}); return 'x'`,
  'toJSON on all numbers': `Number.prototype.toJSON = () => 'no'; await context.state.get('kept'); return 'x'`,
  'a setter for kind on all objects': `Object.defineProperty(Object.prototype, 'kind', { set() { this.to = ['victim@elsewhere.example'] }, configurable: true }); return { text: 'x' }`,
  'a getter for to on all objects': `Object.defineProperty(Object.prototype, 'to', { get: () => ['victim@elsewhere.example'], configurable: true }); return { text: 'x' }`,
  'a thenable that resolves twice': `return { then(resolve) { resolve('x'); resolve('y') } }`,
  'timers that would loop later': `for (let n = 0; n < 900; n++) setTimeout(() => { for (;;); }, 5); return 'x'`,
  'an interval that stays': `setInterval(() => {}, 0); return 'x'`,
  'timers beyond all time': `for (const ms of [2 ** 40, Infinity, -1e9, NaN]) setTimeout(() => {}, ms); return 'x'`,
  'a registry of what is collected': `const all = new FinalizationRegistry(() => { for (;;); }); for (let n = 0; n < 1e4; n++) all.register({}, n); return 'x'`,
  'a listener that throws': `const target = new EventTarget(); target.addEventListener('x', () => { throw new Error('no') }); target.dispatchEvent(new Event('x')); return 'x'`,
  'a microtask that throws': `queueMicrotask(() => { throw new Error('no') }); await null; await null; return 'x'`,
  'rejections without number': `for (let n = 0; n < 1e4; n++) Promise.reject(new Error(String(n))); return 'x'`,
  'a key named __proto__': `await context.state.set('__proto__', { polluted: 1 }); return 'x'`,
  'a view that lies about its length': `class Lying extends Uint8Array { get length() { return 1e9 } } return { text: 'x', attachments: [{ filename: 'a', content: new Lying(4) }] }`,
  'bytes that shrink while they are read': `const buffer = new ArrayBuffer(1e6, { maxByteLength: 1e6 }); return { text: 'x', attachments: [{ get filename() { buffer.resize(0); return 'a' }, content: new Uint8Array(buffer) }] }`,
};

/** Each fails by itself, by a reason that says so. */
const failing: Record<string, [body: string, reason: string, message: RegExp]> = {
  'then without function': [
    `Promise.prototype.then = () => { throw new Error('broken') }; return 'x'`,
    'threw',
    /broken/,
  ],
  'no slice of strings': [
    `String.prototype.slice = () => { throw 1 }; throw new Error('x')`,
    'threw',
    /cannot be described/,
  ],
  'a Proxy of an error': [
    `throw new Proxy(new Error('x'), { get() { throw new Error('trap') } })`,
    'threw',
    /cannot be described/,
  ],
  'a revoked Proxy': [
    `const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); throw proxy`,
    'threw',
    /cannot be described/,
  ],
  'an error whose name throws': [
    `throw Object.assign(new Error('x'), { name: { toString() { throw 1 } } })`,
    'threw',
    /cannot be described/,
  ],
  nothing: ['throw undefined', 'threw', /undefined/],
  'a symbol': ['throw Symbol("x")', 'threw', /Symbol\(x\)/],
  'a list whose iterator never ends': [
    `Array.prototype[Symbol.iterator] = function* () { for (;;) yield 1 }; return [{ text: 'x' }]`,
    'invalid-result',
    /element 0/,
  ],
  'a list of a length that is none': [
    `return new Proxy([], { get: (_, key) => (key === 'length' ? NaN : { text: 'x' }) })`,
    'invalid-result',
    /NaN effects/,
  ],
  'a list that grows as it is read': [
    `let n = 0; return new Proxy([], { get: (_, key) => (key === 'length' ? ++n : { text: 'x' }) })`,
    'invalid-result',
    /at most 100/,
  ],
  'an async generator': [
    `return (async function* () { for (;;) yield { text: 'x' } })()`,
    'invalid-result',
    /without/,
  ],
  'a generator': [`return (function* () { for (;;) yield { text: 'x' } })()`, 'invalid-result', /without/],
  'JSON as it is': [`return { text: JSON.rawJSON('"x"') }`, 'invalid-result', /`text` is an object/],
  'a text that would loop as one': [
    `return { text: { [Symbol.toPrimitive]() { for (;;); } } }`,
    'invalid-result',
    /`text` is an object/,
  ],
  'a time beyond the years': [
    `return { text: 'x', at: new Date(8.64e15) }`,
    'invalid-result',
    /`at` is no time of the years/,
  ],
  'a time that says another': [
    `class Never extends Date { toISOString() { return 'never' } } return { text: 'x', at: new Never() }`,
    'invalid-result',
    /`at` is no time of the years/,
  ],
  'a key of megabytes': [`return { text: 'x', ['k'.repeat(5e6)]: 1 }`, 'invalid-result', /^[^]{8000,10000}$/],
  'replies without end': [`for (;;) context.reply('x')`, 'invalid-result', /101 effects/],
  'state that is nested deep': [
    `let deep = []; for (let n = 0; n < 5_000; n++) deep = [deep]; await context.state.set('k', deep); return 'x'`,
    'threw',
    /state\.k is nested deeper than 100 levels/,
  ],
  'a key of the state that is none': [
    `await context.state.set({ toString: () => 'k' }, 1)`,
    'threw',
    /a key of the state is an object/,
  ],
  'a body without end': [
    `return new Response(new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(1e6)) } })).text()`,
    'threw',
    /allocation failed/,
  ],
  'timers of signals': [`for (;;) AbortSignal.timeout(1_000)`, 'call-flood', /timers/],
  'a call that is nested deep': [
    `const top = {}; let deep = top; for (let n = 0; n < 6_000; n++) deep = deep.d = {}; Array.prototype.toJSON = () => top;
     await context.fetch('https://example.com/', { headers: { a: 'b' } }).catch(() => {}); return 'x'`,
    'crashed',
    /asked its host \(call\) for what cannot be passed on/,
  ],
};

/** Each would go on for ever. */
const endless: Record<string, string> = {
  'a species of promises': `Object.defineProperty(Promise, Symbol.species, { get() { for (;;); } }); await context.state.get('kept')`,
  'a then on all objects': `Object.prototype.then = () => { for (;;); }; return { text: 'x' }`,
  'thenables of thenables': `const next = () => ({ then(resolve) { resolve(next()) } }); return next()`,
  'microtasks that go on once it has answered': `return { then(resolve) { const f = () => Promise.resolve().then(f); f(); resolve('x') } }`,
  'whether an error is one': `Object.defineProperty(Error, Symbol.hasInstance, { value() { for (;;); } }); throw 1`,
  'timers that are cleared': `for (;;) clearTimeout(setTimeout(() => {}, 1_000))`,
  'replies that are refused': `for (;;) try { context.reply('x') } catch {}`,
  'a comparison of giants': `const a = '1'.repeat(2e7), c = new Intl.Collator('de', { numeric: true }); for (;;) c.compare(a, a + '2')`,
  'a repetition in a name': `return String(/^(?<a>(x+x+)+)\\k<a>y/.test('x'.repeat(40)))`,
  'a stream of nothing': `const reader = new ReadableStream({ pull(c) { c.enqueue('x') } }).getReader(); for (;;) await reader.read()`,
};

const greedy: Record<string, string> = {
  'buffers that grow': `const all = []; for (;;) { const buffer = new ArrayBuffer(0, { maxByteLength: 1e9 }); buffer.resize(5e8); new Uint8Array(buffer).fill(1); all.push(buffer) }`,
  'lists in words': `const list = new Intl.ListFormat('en'); for (;;) list.format(Array(1e6).fill('xxxxxxxxxx'))`,
  'keys without end': `Reflect.ownKeys = () => { const all = []; for (;;) all.push('k') }; return { text: 'x' }`,
  'labels of the console': `for (let n = 0; ; n++) console.time('label ' + n)`,
};

async function runThenAnother(body: string, changed: Partial<typeof limits> = {}): Promise<RunResult> {
  const result = await run(body, { capabilities, limits: { ...limits, ...changed } });
  expect(repliesOf(await run('return "next"'))).toEqual([{ text: 'next' }]);
  return result;
}

describe('answers all the same', () => {
  it.each(Object.entries(harmless))('%s', async (_name, body) => {
    expect(repliesOf(await runThenAnother(body))?.[0]?.text).toBe('x');
  });
});

describe('fails by itself', () => {
  it.each(Object.entries(failing))('%s', async (_name, [body, reason, message]) => {
    const result = await runThenAnother(body, { timeoutMs: 20_000 });
    expect(result).toMatchObject({ status: 'failed', reason, message: expect.stringMatching(message) });
  });
});

describe('ends with its time', () => {
  it.each(Object.entries(endless))('%s', async (_name, body) => {
    const result = await runThenAnother(body, { timeoutMs: 300, memoryLimitMb: 32 });
    expect(result).toMatchObject({ status: 'failed', reason: 'timeout' });
  });
});

describe('ends with its memory, or its time', () => {
  it.each(Object.entries(greedy))('%s', async (_name, body) => {
    const result = await runThenAnother(body, { timeoutMs: 1_500, memoryLimitMb: 32 });
    // Which limit is met first depends on how fast the machine is.
    expect(result).toMatchObject({ reason: expect.stringMatching(/^(?:memory|timeout)$/) });
  });
});

/** The end of a run that a tool has forged, as the host judges it. */
const judged = (end: string): unknown => parseGuestJson(runEndSchema, end);
const many = (element: string, count: number): string => `[${Array(count).fill(element).join()}]`;

it('an end of a run that is nested deep is none', () => {
  const deep = `${'['.repeat(16_000)}${']'.repeat(16_000)}`;
  const end = `{"effects":[],"state":{"inbox":[["k",${deep}]]}}`;
  expect(judged(end)).toEqual({ fault: expect.stringContaining('nested deeper than 100 levels') });
});

it.each([
  ['more state than is kept', `{"effects":[],"state":{"inbox":${many('0', 1_000)}}}`],
  ['more addresses than are taken', `{"effects":[{"kind":"send","to":${many('0', 1_000)}}],"state":{}}`],
  ['more files', `{"effects":[{"kind":"reply","attachments":${many('0', 1_000)}}],"state":{}}`],
  ['more effects', `{"effects":${many('0', 1_000)},"state":{}}`],
])('an end of a run with %s is told by one fault, not by each element', (_name, end) => {
  const place = /^✖ Too big: expected array to have <=\d+ items\n {2}→ at \S+$/;
  expect(judged(end)).toEqual({ fault: expect.stringMatching(place) });
});

it.each([
  ['empty lists', `{"effects":[],"state":{"inbox":[["k",${many('[]', 150_000)}]]}}`],
  ['numbers behind a string', `{"effects":["\\\\\\"[,"],"state":${many('0', 150_000)}}`],
  ['lists in lists', '['.repeat(200_000)],
])('an end of a run with millions of values is not even parsed: %s', (_name, end) => {
  expect(judged(end)).toEqual({ fault: 'it has more than 131072 parts' });
});

it('what is wrong with an end of a run is told as far as a person reads', () => {
  const keys = Object.fromEntries(Array.from({ length: 20_000 }, (_, n) => [`key-${n}`, n]));
  const mails = Array.from({ length: 100 }, () => ({ kind: 'send', to: [0, 1, 2] }));
  for (const end of [keys, { effects: mails, state: {} }]) {
    const { fault } = judged(JSON.stringify(end)) as { fault: string };
    expect(fault.length).toBeLessThanOrEqual(1_000);
  }
});

it('a text of megabytes full of brackets and commas is one value', () => {
  const end = { effects: [{ kind: 'reply', text: '[,{"\\'.repeat(500_000) }], state: {} };
  expect(judged(JSON.stringify(end))).toEqual({ data: end });
});

it('a tool that forges its result by what all objects inherit fails by itself', async () => {
  const result = await runThenAnother(`
    Object.prototype.toJSON = () => {
      delete Object.prototype.toJSON;
      return { effects: [], state: { inbox: Array(200_000).fill(0) } };
    };
    return 'x'`);
  expect(result).toMatchObject({ reason: 'invalid-result', message: expect.stringContaining('more than') });
});

it('a tool that asks its host for a million values at once is ended', async () => {
  const result = await runThenAnother(`
    Headers.prototype[Symbol.iterator] = () => Array(1_000_000).fill([]).values();
    await context.fetch('https://granted.example/', { headers: {} });`);
  expect(result).toMatchObject({ reason: 'call-flood', message: expect.stringContaining('values at once') });
});
