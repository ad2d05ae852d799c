/** What a tool hands back, in every wrong shape: named as such, or taken for what it is, and never the host's trouble. */
import { describe, expect, it } from 'vitest';
import { limits, repliesOf } from '../runner/tool-fixture.ts';
import { useToolCode } from './tool-code.ts';

const run = useToolCode();

const refused: Record<string, string> = {
  'a number': 'return 42',
  NaN: 'return NaN',
  'a boolean': 'return false',
  'a bigint': 'return 2n ** 100n',
  'a symbol': 'return Symbol("x")',
  'a function': 'return () => "x"',
  'a class': 'return class A {}',
  'an empty object': 'return {}',
  'an object of nothing': 'return Object.create(null)',
  'a Map': 'return new Map([["text", "x"]])',
  'a Date': 'return new Date()',
  'a regular expression': 'return /x/',
  bytes: 'return new Uint8Array(4)',
  'a promise in an object': 'return { text: Promise.resolve("x") }',
  'a String object as text': 'return { text: new String("x") }',
  'a list of lists': 'return [["x"]]',
  'a sparse list': 'return [, { text: "x" }]',
  'a cycle': 'const a = { text: "x" }; a.a = a; return a',
  'a list of itself': 'const a = []; a.push(a); return a',
  'a list of a hundred thousand': 'return Array(100_000).fill({ text: "x" })',
  'a Proxy of keys without end':
    'return new Proxy({}, { ownKeys: () => Array.from({ length: 1e5 }, (_, i) => "k" + i) })',
  'a getter that throws': 'return { get text() { throw new Error("getter") } }',
  'a getter that throws what is none': 'return { get text() { throw null } }',
  'an unknown key': 'return { text: "x", bcc: "victim@elsewhere.example" }',
  'a key of the prototype': 'return JSON.parse(\'{"text":"x","__proto__":{"html":"y"}}\')',
  'a symbol for a key': 'return { text: "x", [Symbol("s")]: 1 }',
  'headers of its own': 'return { text: "x", headers: { "X-A": "b" } }',
  'a subject that is no string': 'return { text: "x", subject: ["a"] }',
  'attachments that are none': 'return { text: "x", attachments: {} }',
  'an attachment without a name': 'return { attachments: [{ content: "x" }] }',
  'an attachment of a number': 'return { attachments: [{ filename: "a", content: 1 }] }',
  'an attachment with a path to read': 'return { attachments: [{ filename: "a", path: "/etc/passwd" }] }',
  'an attachment to be fetched':
    'return { attachments: [{ filename: "a", href: "http://169.254.169.254/" }] }',
  'HTML that renders to an object': 'return { html: { toString: () => ({}) } }',
  'HTML that throws': 'return { html: { toString() { throw new Error("no") } } }',
  'a thenable that rejects': 'return { text: "x", html: { then(_, reject) { reject(new Error("no")) } } }',
};

/** Of these, awaiting the result already fails: it is the tool's own promise that rejects. */
const rejected: Record<string, string> = {
  'a Proxy that is trapped':
    'return new Proxy({}, { get() { throw new Error("trap") }, ownKeys: () => ["text"], getOwnPropertyDescriptor: () => ({ configurable: true, enumerable: true }) })',
  'a revoked Proxy': 'const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy',
  'a revoked Proxy of a list': 'const { proxy, revoke } = Proxy.revocable([], {}); revoke(); return proxy',
};

describe('rejects the tool’s own promise', () => {
  it.each(Object.entries(rejected))('%s', async (_name, body) => {
    expect(await run(body)).toMatchObject({ status: 'failed', reason: 'threw' });
  });
});

describe('is named as no reply', () => {
  it.each(Object.entries(refused))('%s', async (_name, body) => {
    const result = await run(body);
    expect(result).toMatchObject({ status: 'failed', reason: 'invalid-result' });
    expect(result).toMatchObject({ message: expect.stringMatching(/\S{3}/) });
  });
});

const taken: Record<string, [body: string, text: string]> = {
  'a getter': ['return { get text() { return "x" } }', 'x'],
  'a getter that answers otherwise the second time': [
    'let n = 0; return { get text() { return "x" + n++ } }',
    'x0',
  ],
  'a Proxy that behaves': ['return new Proxy({ text: "x" }, {})', 'x'],
  'a frozen object': ['return Object.freeze({ text: "x" })', 'x'],
  'an object without a prototype': ['return Object.assign(Object.create(null), { text: "x" })', 'x'],
  'what a thenable gives': ['return { then(resolve) { resolve("x") } }', 'x'],
  'a text of NUL and lone surrogates': ['return "a\\u0000b\\ud800"', 'a\u0000b\ud800'],
  'a text that looks like JSON': ['return \'{"kind":"reply"}\'', '{"kind":"reply"}'],
  'with toJSON of its own': ['return { text: "x", __proto__: { toJSON: () => ({ text: "evil" }) } }', 'x'],
  'with a toJSON on all objects': [
    'Object.prototype.toJSON = () => "evil"; delete Object.prototype.toJSON; return "x"',
    'x',
  ],
};

describe('is taken for what it is', () => {
  it.each(Object.entries(taken))('%s', async (_name, [body, text]) => {
    expect(repliesOf(await run(body))).toMatchObject([{ text }]);
  });
});

describe('is too much', () => {
  const little = { limits: { ...limits, maxResultBytes: 10_000 } };
  it.each([
    ['a long text', 'return "x".repeat(10_001)'],
    ['a text that is long once escaped', 'return "\\u0000".repeat(2_000)'],
    ['a text of few characters and many bytes', 'return "€".repeat(4_000)'],
    ['a large attachment', 'return { attachments: [{ filename: "a", content: new Uint8Array(9_000) }] }'],
    ['many replies', 'return Array(90).fill({ text: "x".repeat(200) })'],
  ])('%s', async (_name, body) => {
    expect(await run(body, little)).toMatchObject({ status: 'failed', reason: 'result-too-large' });
  });

  it('what is just below is taken', async () => {
    expect(repliesOf(await run('return "x".repeat(9_000)', little))).toHaveLength(1);
  });
});

it('JSON that a tool forges with a toJSON of all objects is checked where it arrives', async () => {
  const body = `Object.prototype.toJSON = function () { return [{ kind: 'reply', text: 'x', evil: process }] }; return { text: 'x' };`;
  expect(await run(body)).toMatchObject({ status: 'failed' });
});
