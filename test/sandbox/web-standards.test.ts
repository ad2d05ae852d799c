/**
 * The Web's globals inside of the isolate, held to Node's own: each expression is evaluated in both, and what
 * comes of it (a value as JSON, or the name of what was thrown) must be the same.
 */
import { runInThisContext } from 'node:vm';
import { beforeAll, describe, expect, it } from 'vitest';
import type { ToolBundle } from '../../src/runner/bundle.ts';
import { email, repliesOf, useSandbox } from '../runner/tool-fixture.ts';
import { expressions, namesThatDiffer } from './web-expressions.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });

/** In scope of every expression, here and there. */
const helpers = `
  const hex = (bytes) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, '0')).join('');
  const utf8 = (text) => new TextEncoder().encode(text);
  const thrown = async (act) => { try { await act(); return 'nothing' } catch (error) { return [error?.name, error?.code ?? null, error instanceof Error] } };
  const names = (act) => { try { act(); return 'nothing' } catch (error) { return error?.name ?? error } };`;

let evaluator: ToolBundle;
beforeAll(async () => {
  evaluator = await sandbox.bundle(
    `export const evaluate = async (email) => JSON.stringify(await (0, eval)(email.text)) ?? 'null';`,
  );
});

const scriptOf = (expression: string): string =>
  `(async () => { ${helpers} try { return { value: await (${expression}) } } catch (error) { return { threw: error?.name } } })()`;

async function inGuest(expression: string): Promise<unknown> {
  const result = await sandbox.run(evaluator, {
    exportName: 'evaluate',
    email: { ...email, text: scriptOf(expression) },
  });
  return JSON.parse(repliesOf(result)?.[0]?.text ?? '');
}

/** The same expression here, where Node is the standard to hold to. */
async function inNode(expression: string): Promise<unknown> {
  return JSON.parse(JSON.stringify(await runInThisContext(scriptOf(expression)))) as unknown;
}

describe.each(Object.entries(expressions))('%s', (_group, group) => {
  it.each(Object.entries(group))('%s', async (_name, expression) => {
    const expected = await inNode(expression);
    expect(expected, 'in Node').not.toHaveProperty('threw');
    expect(await inGuest(expression)).toEqual(expected);
  });
});

it.each(Object.entries(namesThatDiffer))(
  'what is not as in Node is so on purpose: %s',
  async (_name, [expression, value]) => {
    expect(await inGuest(expression)).toEqual({ value });
  },
);

it('random values are random, of version 4, and fill what they are asked to', async () => {
  const { value } = (await inGuest(
    `[crypto.randomUUID(), crypto.randomUUID(), [...crypto.getRandomValues(new Uint8Array(64))]]`,
  )) as { value: [string, string, number[]] };
  const [first, second, bytes] = value;
  expect(first).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(first).not.toBe(second);
  expect(new Set(bytes).size).toBeGreaterThan(16);
});

it('a key that was made in the guest signs as Node does with it', async () => {
  const { value } = (await inGuest(`(async () => {
    const key = await crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-384' }, true, ['sign']);
    const raw = await crypto.subtle.exportKey('raw', key);
    return [hex(raw), hex(await crypto.subtle.sign('HMAC', key, utf8('text'))), (await crypto.subtle.exportKey('jwk', key)).alg];
  })()`)) as { value: [string, string, string] };
  const algorithm = { name: 'HMAC', hash: 'SHA-384' };
  const key = await crypto.subtle.importKey('raw', Buffer.from(value[0], 'hex'), algorithm, false, [
    'verify',
  ]);
  expect(value[0]).toHaveLength(256);
  expect(value[2]).toBe('HS384');
  const signature = Buffer.from(value[1], 'hex');
  expect(await crypto.subtle.verify('HMAC', key, signature, Buffer.from('text'))).toBe(true);
});

it('long texts and bytes go both ways unharmed', async () => {
  const expression = `(() => {
    const text = 'aä€😀'.repeat(20_000);
    const bytes = new TextEncoder().encode(text);
    return [bytes.length, new TextDecoder().decode(bytes) === text, atob(btoa('x'.repeat(100_000))).length];
  })()`;
  expect(await inGuest(expression)).toEqual({ value: [200_000, true, 100_000] });
});

it('the console’s lines are on the run’s record, formatted and indented', async () => {
  const result = await sandbox.runBody(`
    console.log('%s is %d years, %i', 'Ada', '36.5', 36.5, { a: 1 });
    console.group('group'); console.warn(1, null, undefined, [1n]); console.groupEnd();
    console.assert(true, 'no'); console.assert(false, 'yes'); console.count(); console.count(); console.log('100%');`);
  expect(result.logs).toEqual([
    'Ada is 36.5 years, 36 {"a":1}',
    'group',
    '  1 null undefined ["1n"]',
    'Assertion failed: yes',
    'default: 1',
    'default: 2',
    '100%',
  ]);
});
