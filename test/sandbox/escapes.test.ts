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
