/** The Web's globals inside of the isolate, compared with Node's own wherever it has them too. */
import { runInThisContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { repliesOf, useSandbox } from './tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });

/** What the expression is in the sandbox, as JSON. */
async function inGuest(expression: string): Promise<unknown> {
  const text = repliesOf(
    await sandbox.runBody(`return JSON.stringify(await (${expression})) ?? 'undefined';`),
  );
  return JSON.parse(text?.[0]?.text ?? '');
}

/** The same expression here, where Node is the standard to hold to. */
async function inNode(expression: string): Promise<unknown> {
  const value: unknown = await runInThisContext(`(async () => (${expression}))()`);
  return JSON.parse(JSON.stringify(value));
}

const parts =
  '[u.href, u.origin, u.host, u.port, u.pathname, u.search, u.hash, u.username, String(u), u.searchParams.size]';
const same: Record<string, string> = {
  'a URL': `((u) => ${parts})(new URL('https://user@EXAMPLE.com:443/a/../b?x=1&y=ä#z'))`,
  'a URL with a base': `new URL('../c?d', 'https://example.com/a/b/').href`,
  'a URL in punycode': `new URL('https://münchen.example').hostname`,
  'a URL that is none': `[URL.canParse('x'), URL.parse('x'), URL.canParse('x', 'http://a')]`,
  'a URL that is changed': `((u) => { u.pathname = '/ä b'; u.searchParams.set('q', 'a b&c'); u.hash = 'x'; u.port = '8080'; return ${parts}; })(new URL('http://example.com/?z=1'))`,
  'a URL as JSON': `JSON.stringify({ u: new URL('http://a') })`,
  'search parameters': `((p) => [String(p), [...p], p.get('a'), p.getAll('a'), p.has('c'), p.has('a', '2'), p.size])(new URLSearchParams('?a=1&a=2&b=%20+%zz&=x&d'))`,
  'search parameters of pairs': `String(new URLSearchParams([['a', "ä !'()~*"], ['b', '😀']]))`,
  'search parameters of an object': `String(new URLSearchParams({ a: 1, b: null }))`,
  'search parameters that are changed': `((p) => { p.append('b', '2'); p.delete('a'); p.set('c', '1'); p.set('b', '9'); p.sort(); return [String(p), [...p.keys()], [...p.values()]]; })(new URLSearchParams('c=0&a=1&b=1&b=3'))`,
  base64: `[btoa('\\x00\\xff\\x80abc'), atob('AP+AYWJj'), atob(' YQ = = '), btoa('')]`,
  'base64 that is none': `['a', 'a===', 'ä', '====', 'YQ='].map((text) => { try { return atob(text) } catch (error) { return error.name.length > 0 } })`,
  'btoa of what is not Latin-1': `(() => { try { btoa('€') } catch (error) { return error.name } })()`,
  'UTF-8': `[...new TextEncoder().encode('aä€😀\\ud800x\\udc00')]`,
  'UTF-8 back': `new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 97, 0xc3, 0xa4, 0xf0, 0x9f, 0x98, 0x80]))`,
  'UTF-8 that is broken': `[[0xc0, 0x80], [0xe2, 0x82], [0xf0, 0x9f, 0x98], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xff, 97], [0xe0, 0x80, 0x80]].map((bytes) => new TextDecoder().decode(new Uint8Array(bytes)))`,
  'UTF-8 that must not be broken': `(() => { try { new TextDecoder('utf8', { fatal: true }).decode(new Uint8Array([0xff])) } catch (error) { return error.name } })()`,
  headers: `((h) => { h.append('X-A', '2'); h.set('B', ' b '); return [[...h], h.get('x-A'), h.has('c'), h.get('c'), h.getSetCookie()]; })(new Headers([['x-a', '1'], ['Set-Cookie', 'a=1'], ['set-cookie', 'b=2']]))`,
  'headers that are none': `[['a b', 'x'], ['a', 'x\\ny'], ['', 'x']].map(([name, value]) => { try { new Headers().set(name, value) } catch (error) { return error.name } })`,
  'a response': `(async (r) => [r.status, r.ok, await r.clone().text(), await r.json(), r.bodyUsed, r.headers.get('content-type')])(Response.json({ a: [1] }, { status: 404 }))`,
  'a response that is read twice': `(async (r) => { await r.text(); return r.text().catch((error) => error.name) })(new Response('x'))`,
  'a response of bytes': `(async (r) => [...new Uint8Array(await r.arrayBuffer())])(new Response(new Uint8Array([1, 2, 3]).subarray(1)))`,
  'a request': `(async (r) => [r.method, r.url, r.headers.get('content-type'), await r.text()])(new Request('https://example.com/', { method: 'post', body: new URLSearchParams({ a: 'b c' }) }))`,
  'an abort': `(() => { const c = new AbortController(); const seen = []; c.signal.addEventListener('abort', (event) => seen.push(event.type)); c.abort(); c.abort(); return [seen, c.signal.aborted, c.signal.reason.name]; })()`,
  'an abort with a reason': `(() => { try { AbortSignal.abort('why').throwIfAborted() } catch (reason) { return reason } })()`,
  'any of several aborts': `(() => { const c = new AbortController(); const any = AbortSignal.any([new AbortController().signal, c.signal]); c.abort(1); return [any.aborted, any.reason]; })()`,
  'a timeout of a signal': `new Promise((resolve) => { const s = AbortSignal.timeout(1); s.onabort = () => resolve(s.reason.name) })`,
  'a structured clone': `(() => { const a = { d: new Date(5), m: new Map([[1, { x: 1 }]]), s: new Set([1]), r: /x/gi, b: new Uint8Array([1, 2]), l: [1, , 3], e: new RangeError('no') }; a.self = a; const c = structuredClone(a); return [c !== a, c.self === c, c.d.getTime(), c.m.get(1).x, c.m.get(1) !== a.m.get(1), [...c.s], String(c.r), [...c.b], c.l.length, c.e.message, c.e.name]; })()`,
  'a clone of a function': `(() => { try { structuredClone({ f() {} }) } catch (error) { return error.name } })()`,
  'the order of timers and microtasks': `new Promise((resolve) => { const seen = []; setTimeout(() => seen.push('late'), 20); setTimeout((a) => { seen.push(a); setTimeout(() => resolve(seen), 40) }, 1, 'soon'); queueMicrotask(() => seen.push('micro')); clearTimeout(setTimeout(() => seen.push('never'), 2)); })`,
  'an interval': `new Promise((resolve) => { let count = 0; const id = setInterval(() => { if (++count === 3) { clearInterval(id); resolve(count) } }, 1) })`,
};

describe('as in Node', () => {
  it.each(Object.entries(same))('%s', async (_name, expression) => {
    const guest = await inGuest(expression);
    expect(guest).toEqual(await inNode(expression));
  });
});

it('random values are random', async () => {
  const [uuids, bytes] = (await inGuest(
    `[[crypto.randomUUID(), crypto.randomUUID()], [...crypto.getRandomValues(new Uint8Array(64))]]`,
  )) as [string[], number[]];
  expect(uuids[0]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(uuids[0]).not.toBe(uuids[1]);
  expect(new Set(bytes).size).toBeGreaterThan(16);
});

it('long texts and bytes go both ways unharmed', async () => {
  const expression = `(() => {
    const text = 'aä€😀'.repeat(20_000);
    const bytes = new TextEncoder().encode(text);
    return [bytes.length, new TextDecoder().decode(bytes) === text, atob(btoa('x'.repeat(100_000))).length];
  })()`;
  expect(await inGuest(expression)).toEqual([200_000, true, 100_000]);
});

it('an encoding other than UTF-8 is refused by name', async () => {
  expect(
    await inGuest(`(() => { try { new TextDecoder('latin1') } catch (error) { return error.message } })()`),
  ).toBe('the encoding latin1 is not supported: only utf-8');
});
