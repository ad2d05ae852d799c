/**
 * Ways out of an isolate: whatever a tool gets hold of leads back into its own realm (what is left to who gets
 * out all the same: confinement.test.ts). `reach` collects what the known ways out would find.
 */
import { describe, expect, it } from 'vitest';
import { repliesOf, useSandbox } from '../runner/tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });

/** Says what a function constructor at the end of each chain sees: nothing of Node, ever. */
const reach = `
  const seen = [];
  const look = (name, from) => {
    let value;
    try { value = from(); } catch { return; }
    for (let step = 0; step < 6 && value !== null && value !== undefined; step++) {
      const F = value?.constructor?.constructor;
      if (typeof F === 'function') {
        try {
          const found = F('return [typeof process, typeof require, typeof module, typeof Buffer, typeof global].join()')();
          seen.push(name + ': ' + found);
        } catch (error) { seen.push(name + ': ' + error.message); }
      }
      value = Object.getPrototypeOf(value);
    }
  };`;

describe('constructor chains', () => {
  const chains: Record<string, string> = {
    'the email': 'email',
    'its headers': 'email.headers',
    'its addresses': 'email.to[0]',
    'a function of the context': 'context.fetch',
    'the global object': 'globalThis',
    'a promise of the host': `context.fetch('https://example.com').catch((error) => error)`,
    'an error of the host': `await context.fetch('https://example.com').catch((error) => error)`,
    'an error of a secret': '(() => { try { context.secret("X") } catch (error) { return error } })()',
    'an error of a URL': '(() => { try { new URL("?") } catch (error) { return error } })()',
    'an error of the engine': '(() => { try { null.x } catch (error) { return error } })()',
    'the console': 'console.log',
    'random bytes': 'crypto.getRandomValues(new Uint8Array(4))',
    'an async generator': '(async function* () {})()',
  };
  it.each(Object.entries(chains))('%s leads to nothing of the host', async (_name, expression) => {
    const result = await sandbox.runBody(
      `${reach} const start = ${expression}; look('chain', () => start); return seen.join(';') || 'nothing';`,
    );
    const [reply] = repliesOf(result) ?? [];
    expect(reply?.text).not.toMatch(/[:,] ?(?:object|function)/);
    expect(reply?.text).toMatch(/undefined,undefined,undefined,undefined,undefined/);
  });
});

it('frames above the tool are the guest’s: a stack shows no path and no function of the host', async () => {
  const body = `
    Error.stackTraceLimit = 100;
    const sites = [];
    Error.prepareStackTrace = (error, callSites) => callSites;
    for (const site of new Error().stack) {
      sites.push([site.getFileName?.(), typeof site.getThis?.(), typeof site.getFunction?.()].join());
    }
    delete Error.prepareStackTrace;
    const refused = await context.fetch('https://example.com').catch((error) => error.stack);
    return sites.join('\\n') + refused;`;
  const text = repliesOf(await sandbox.runBody(body))?.[0]?.text ?? '';
  expect(text).toContain('fetch is not granted');
  expect(text).not.toMatch(/\/src\/|node:|node_modules|sandbox-child|\/home|\/root|\/work/);
});

it('names of globals are the language’s and the Web’s', async () => {
  const names = repliesOf(
    await sandbox.runBody('return Object.getOwnPropertyNames(globalThis).sort().join(" ");'),
  )?.[0]?.text?.split(' ');
  const hostile = ['process', 'require', 'module', 'global', 'Buffer', 'WebAssembly', 'SharedArrayBuffer'];
  for (const name of [...hostile, 'Atomics', '$0', 'ivm', '_ivm', 'host']) expect(names).not.toContain(name);
  expect(names).toContain('URL');
});

it('pollution of prototypes stays in the realm', async () => {
  const body = `
    Object.prototype.polluted = 'yes';
    Object.prototype.toJSON = function () { return { polluted: true } };
    Array.prototype.push = function () { return 0 };
    Object.defineProperty(Object.prototype, 'reason', { get() { return 'polluted' }, set() {} });
    return { text: 'x' };`;
  const result = await sandbox.runBody(body);
  expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  // What the tool broke is its own result; the host takes it only where it is still a reply.
  expect(result.status).toMatch(/returned|failed/);
  expect(repliesOf(await sandbox.runBody('return "well";'))).toEqual([{ text: 'well' }]);
});

it.each(['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'settings', ''])(
  'the inherited or missing name %j is not called as a tool',
  async (exportName) => {
    const bundle = await sandbox.bundle('export const test = () => "x"; export const settings = {};');
    const result = await sandbox.run(bundle, { exportName });
    expect(result).toMatchObject({ status: 'failed', reason: 'threw' });
  },
);

it('a call by an inherited name reaches no capability', async () => {
  // The prelude offers no way to name a capability, so this goes through a patched method that it uses.
  const body = `
    const { stringify } = JSON;
    const names = ['constructor', '__proto__', 'toString'];
    const results = [];
    for (const name of names) results.push(await context.fetch(name).catch((error) => error.message));
    return results.join(' | ');`;
  expect(repliesOf(await sandbox.runBody(body))?.[0]?.text).toMatch(/^(?:Invalid URL(?: \| )?){3}$/);
});

/** Each is true where something came through that must not. */
const tricks: Record<string, string> = {
  'import() of a module of Node': `await import(['node', 'fs'].join(':')).then(() => true, () => false)`,
  'import() of a file': `await import(['/etc', 'passwd'].join('/')).then(() => true, () => false)`,
  'import() in code that was made': `await (0, eval)('import("node:fs")').then(() => true, () => false)`,
  'import() in a function that was made': `await new Function('return import("fs")')().then(() => true, () => false)`,
  'the meta of a module': `(() => { try { return Boolean(new Function('return import.meta')()) } catch { return false } })()`,
  'require in the scope of eval': `['require', 'process', 'module', 'exports', '__filename'].some((name) => (0, eval)('typeof ' + name) !== 'undefined')`,
  'what is local to the prelude': `['callback', 'tellHost', '$0', '$1', 'pendingCalls', '__prelude', 'deliver'].some((name) => (0, eval)('typeof ' + name) !== 'undefined')`,
  'this of a sloppy function': `new Function('return this')() !== globalThis`,
  'this of the bundle': `typeof this === 'object' && this !== globalThis && this !== undefined`,
  'callers above': `(() => { try { return Boolean(new Function('return arguments.callee.caller')()) } catch { return false } })()`,
  'the prototype of the global object': `Object.getOwnPropertyNames(Object.getPrototypeOf(globalThis)).some((name) => !Object.getOwnPropertyNames(Object.prototype).includes(name))`,
  'symbols of the global object': `Object.getOwnPropertySymbols(globalThis).some((symbol) => symbol !== Symbol.toStringTag)`,
  'a species that the host calls': `await (async () => { let met = false; class Mine extends Promise { static get [Symbol.species]() { met = met || !(new Error().stack ?? '').includes('tools@'); return Promise } } await Mine.resolve(1).then(() => 1); return met })()`,
  'a species of a buffer': `(() => { class Mine extends Uint8Array { static get [Symbol.species]() { return Array } } try { return !(crypto.getRandomValues(new Mine(4)) instanceof Uint8Array) } catch { return false } })()`,
  'a then on all objects': `await (async () => { let seen = []; Object.prototype.then = function (done) { seen.push(Object.keys(this).join()); delete Object.prototype.then; done(1) }; await context.fetch('https://example.com').catch(() => {}); delete Object.prototype.then; return seen.some((keys) => /process|require|port|pipe/.test(keys)) })()`,
  'setters on all objects': `(() => { let seen = false; void URL; Object.defineProperty(Object.prototype, 'value', { set(value) { seen = typeof value === 'function' && value.constructor !== Function }, configurable: true }); new URL('http://a'); delete Object.prototype.value; return seen })()`,
  'a stack that is asynchronous': `await (async () => { const error = await new Promise((resolve) => setTimeout(async () => { await null; resolve(new Error('x')) }, 1)); return /node:|file:|\\/src\\//.test(error.stack) })()`,
  'call sites with functions': `await (async () => { Error.prepareStackTrace = (_, sites) => sites.map((site) => site.getFunction() ?? site.getThis()); const all = await new Promise((resolve) => setTimeout(() => resolve(new Error('x').stack), 1)); delete Error.prepareStackTrace; return all.some((each) => each !== undefined && each !== null && each !== globalThis) })()`,
  'an error of too deep a stack': `(() => { let found; const f = () => { try { f() } catch (error) { found ??= error } }; f(); return found.constructor !== RangeError || found.constructor.constructor !== Function })()`,
  'an error of the regular expression engine': `(() => { try { new RegExp('(') } catch (error) { return error.constructor.constructor !== Function } })()`,
  'an error of a buffer that is too large': `(() => { try { new ArrayBuffer(2 ** 53) } catch (error) { return error.constructor.constructor !== Function } })()`,
  'WebAssembly by another name': `(() => { try { return typeof (0, eval)('WebAssembly') !== 'undefined' } catch { return false } })()`,
  'shared memory by another name': `(() => { try { return Boolean(new (0, eval)('SharedArrayBuffer')(8)) } catch { return false } })()`,
  'native syntax': `(() => { try { new Function('return %GetHeapUsage()')(); return true } catch { return false } })()`,
  'a debugger': `(() => { debugger; return typeof inspector !== 'undefined' })()`,
  'a realm of its own': `typeof ShadowRealm !== 'undefined' && new ShadowRealm().evaluate('typeof process') !== 'undefined'`,
  'an iframe, a worker or a port': `['document', 'Worker', 'MessagePort', 'BroadcastChannel', 'XMLHttpRequest', 'WebSocket', 'importScripts', 'gc', 'd8', 'load', 'read', 'print'].some((name) => name in globalThis)`,
  'buffers that were detached under the host': `(() => { const bytes = new Uint8Array(8); bytes.buffer.transfer(); try { crypto.getRandomValues(bytes); return bytes.length !== 0 } catch { return false } })()`,
  'a resizable buffer that shrinks while it is read': `(() => { const buffer = new ArrayBuffer(8, { maxByteLength: 16 }); const text = { toString() { buffer.resize(0); return 'utf-8' } }; try { return new TextDecoder(text).decode(new Uint8Array(buffer)).length > 8 } catch { return false } })()`,
};

describe('nothing comes through by', () => {
  it.each(Object.entries(tricks))('%s', async (_name, expression) => {
    const result = await sandbox.runBody(`const through = ${expression}; return String(through);`);
    expect(repliesOf(result)).toMatchObject([{ text: 'false' }]);
  });
});
