/** What becomes of a folder of tools: the script, its names and settings, and what is refused. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { bundleTools } from '../../src/runner/bundle.ts';
import { folderWith, repliesOf, useSandbox } from './tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });
const build = (files: Record<string, string>, root?: string) =>
  bundleTools({
    directory: folderWith(files),
    clock,
    pool: sandbox.pool,
    ...(root !== undefined && { root }),
  });

const SECRET = 'a-secret-of-the-host';
const outside = mkdtempSync(join(tmpdir(), 'millrace-outside-'));
writeFileSync(join(outside, 'secret.txt'), SECRET);
writeFileSync(join(outside, 'secret.ts'), `export const secret = '${SECRET}';`);
writeFileSync(join(outside, 'secret.json'), `"${SECRET}"`);
afterAll(() => rmSync(outside, { recursive: true }));

it('shows functions as tools, other exports not, and the same code as the same revision', async () => {
  const source = `
    export const one = () => 'one';
    export async function two() { return 'two'; }
    export { one as 'daily-report' };
    export default () => 'rest';
    export const number = 42;
    export class Helper {}
    export const tests = {};
    export const settings = { one: { timeoutMs: 500 } };`;
  const bundle = await build({ 'index.ts': source });
  expect([...bundle.exports].toSorted()).toEqual(['daily-report', 'default', 'one', 'two']);
  expect(bundle.settings).toEqual({ one: { timeoutMs: 500 } });
  expect(bundle.revision).toMatch(/^[0-9a-f]{12}$/);
  expect((await build({ 'index.ts': source })).revision).toBe(bundle.revision);
  expect((await build({ 'index.ts': source.replace('42', '43') })).revision).not.toBe(bundle.revision);
});

it('takes several files, TSX, JSON, and packages of the folder whatever their form', async () => {
  const bundle = await build({
    'index.tsx': `
      import { render } from './lib/render.tsx';
      import data from './data.json';
      import legacy from 'legacy';
      import { modern } from 'modern';
      export const test = () => ({ html: render([data.name, legacy.name, modern]) });`,
    'lib/render.tsx': `export const render = (names: string[]) => <ul>{names.map((name) => <li>{name}</li>)}</ul>;`,
    'data.json': '{"name":"json"}',
    'node_modules/legacy/package.json': '{"name":"legacy","main":"main.js"}',
    'node_modules/legacy/main.js': `module.exports = { name: 'legacy' };`,
    'node_modules/modern/package.json': '{"name":"modern","type":"module","exports":"./modern.js"}',
    'node_modules/modern/modern.js': `export const modern = 'modern';`,
  });
  expect(repliesOf(await sandbox.run(bundle, { exportName: 'test' }))).toEqual([
    { html: '<ul><li>json</li><li>legacy</li><li>modern</li></ul>' },
  ]);
});

it('takes a file in place of a folder, and packages of the repository around the folder', async () => {
  const root = folderWith({
    'tools/mail.ts': `import { greet } from 'greet'; import { punctuation } from '../lib.ts';
      export const test = () => greet + punctuation;`,
    'lib.ts': `export const punctuation = '!';`,
    'node_modules/greet/package.json': '{"name":"greet","type":"module","exports":"./greet.js"}',
    'node_modules/greet/greet.js': `export const greet = 'hello';`,
  });
  const directory = join(root, 'tools/mail.ts');
  await expect(bundleTools({ directory, clock, pool: sandbox.pool })).rejects.toThrow(
    '"greet" lies outside of the tools: install it in their folder, or name the repository around them',
  );
  const bundle = await bundleTools({ directory, clock, pool: sandbox.pool, root });
  expect(repliesOf(await sandbox.run(bundle, { exportName: 'test' }))).toEqual([{ text: 'hello!' }]);
});

const REACT = {
  'node_modules/react/package.json': '{"name":"react"}',
  'node_modules/react/jsx-runtime.js': `exports.jsx = (type) => 'React made ' + type;`,
};
const TSX = { 'index.tsx': 'export const test = () => String(<b />);' };
// React Email as its own pages show it was bundled as Hono's elements, which React's renderer does not take.
it.each<[string, Record<string, string>, string]>([
  ['nobody says whose', REACT, '<b></b>'],
  ['package.json has React', { ...REACT, 'package.json': '{"dependencies":{"react":"19"}}' }, 'React made b'],
  [
    'tsconfig.json says React',
    { ...REACT, 'tsconfig.json': '{"compilerOptions":{"jsxImportSource":"react"},}' },
    'React made b',
  ],
  [
    'tsconfig.json says Hono, whatever packages there are',
    {
      ...REACT,
      'package.json': '{"devDependencies":{"react":"19"}}',
      'tsconfig.json': '{"compilerOptions":{"jsxImportSource":"hono/jsx"}}',
    },
    '<b></b>',
  ],
  [
    'tsconfig.json names another, or is commented out',
    { ...REACT, 'tsconfig.json': '// "jsxImportSource": "react"\n{"jsxImportSource":"/etc"}' },
    '<b></b>',
  ],
])('takes TSX for that of React where %s', async (_name, files, text) => {
  const bundle = await build({ ...TSX, ...files });
  expect(repliesOf(await sandbox.run(bundle, { exportName: 'test' }))).toEqual([{ text }]);
});

it('takes files as text, and as bytes', async () => {
  const bundle = await build({
    'index.ts': `import page from './page.html'; import logo from './logo.png';
      export const test = () => page + logo.length + (logo instanceof Uint8Array);`,
    'page.html': '<p>',
    'logo.png': 'PNG',
  });
  expect(repliesOf(await sandbox.run(bundle, { exportName: 'test' }))).toEqual([{ text: '<p>3true' }]);
});

it('ignores a tsconfig and its paths', async () => {
  const bundle = await build({
    'index.tsx': `export const test = () => ({ html: <b>{'<'}</b> });`,
    'tsconfig.json': '{"compilerOptions":{"jsx":"react","jsxFactory":"evil"}}',
  });
  expect(repliesOf(await sandbox.run(bundle, { exportName: 'test' }))).toEqual([{ html: '<b>&lt;</b>' }]);
});

describe('nothing outside of the folder gets into a bundle', () => {
  const imports: Record<string, string> = {
    'a relative path': `import s from '../../../../..${outside}/secret.ts'; export const test = () => s;`,
    'an absolute path': `import { secret } from '${outside}/secret.ts'; export const test = () => secret;`,
    'a text by attribute': `import s from '${outside}/secret.txt' with { type: 'text' }; export const test = () => s;`,
    'JSON by attribute': `import s from '${outside}/secret.json' with { type: 'json' }; export const test = () => s;`,
    'a URL of a file': `import s from 'file://${outside}/secret.ts'; export const test = () => s;`,
    'a required file': `export const test = () => require('${outside}/secret.json');`,
    'a dynamic import': `export const test = () => import('${outside}/secret.ts');`,
    'a link to a file': `import { secret } from './link.ts'; export const test = () => secret;`,
    'a link to a folder': `import { secret } from './folder/secret.ts'; export const test = () => secret;`,
    'a package that is a link': `import { secret } from 'linked'; export const test = () => secret;`,
    'a package that points out': `import { secret } from 'pointing'; export const test = () => secret;`,
    'our own packages': `import { pino } from 'pino'; export const test = () => pino;`,
    'our own sources': `import { systemClock } from '${process.cwd()}/src/platform/clock.ts'; export const test = () => systemClock;`,
    'a module of Node': `import fs from 'node:fs'; export const test = () => fs.readFileSync('/etc/passwd');`,
    'a glob': `export const test = (email) => import(\`../../../../..${outside}/\${email.text}.json\`);`,
  };
  it.each(Object.entries(imports))('%s', async (_name, source) => {
    const folder = folderWith({
      'index.ts': source,
      'node_modules/linked/package.json': '{"name":"linked","main":"secret.ts"}',
      'node_modules/pointing/package.json': `{"name":"pointing","main":"../../../..${outside}/secret.ts"}`,
    });
    rmSync(join(folder, 'node_modules/linked'), { recursive: true });
    symlinkSync(outside, join(folder, 'node_modules/linked'));
    symlinkSync(join(outside, 'secret.ts'), join(folder, 'link.ts'));
    symlinkSync(outside, join(folder, 'folder'));
    await expect(bundleTools({ directory: folder, clock, pool: sandbox.pool })).rejects.toMatchObject({
      kind: 'invalid',
      code: 'tools.build_failed',
      message: expect.not.stringContaining(SECRET),
    });
  });
});

// The folder of the server's that the commit lay in stood in the commit's status.
it.each([
  ['tools', 'tools'],
  ['', 'the repository'],
])('names the folder %j of a repository as its author does', async (path, shown) => {
  const root = folderWith({ 'tools/readme.md': '' });
  const refused = bundleTools({ directory: join(root, path), clock, pool: sandbox.pool, root });
  await expect(refused).rejects.toThrow(`there is no index.ts or index.tsx in ${shown}`);
});

describe('is refused, with what is wrong and where', () => {
  const faults: [name: string, files: Record<string, string>, message: RegExp][] = [
    ['a syntax error', { 'index.ts': 'export const a = () => 1;\nexport const b = (;' }, /^index\.ts:2:19: /],
    [
      'a missing file',
      { 'index.ts': `import './lib.ts';` },
      /^index\.ts:1:8: Could not resolve "\.\/lib\.ts"/,
    ],
    [
      'a module of Node',
      { 'index.ts': `import 'node:fs';` },
      /^index\.ts:1:8: "node:fs" is a module of Node, which tools have not/,
    ],
    [
      'a package that is not there',
      { 'index.ts': `import 'left-pad';` },
      /^index\.ts:1:8: Could not resolve "left-pad": is it in package\.json and package-lock\.json\?/,
    ],
    ['no function', { 'index.ts': 'export const answer = 42;' }, /^index\.ts exports no function: /],
    [
      'no function, and what there is in its place',
      { 'index.ts': 'export class Report {}\nexport const help = { run() {} };' },
      /^index\.ts exports no function: each one is an inbox \(Report, help: no function\)$/,
    ],
    // They were live, and every mail to them was parked.
    [
      'a generator',
      { 'index.ts': `export const ok = () => 'x';\nexport function* digest() { yield 'a'; }` },
      /^index\.ts: digest is a generator, which answers nothing: return an array of replies/,
    ],
    [
      'a generator that is asynchronous, from another file',
      {
        'index.ts': `export { digest as weekly } from './digest.ts';`,
        'digest.ts': `export async function* digest() { yield 'a'; }`,
      },
      /^index\.ts: weekly is a generator, /,
    ],
    [
      'a default export that is an object',
      { 'index.ts': `export const ok = () => 'x';\nexport default { email() {} };` },
      /^index\.ts: the default export is no function: it is the catch-all/,
    ],
    [
      'a default export that is a class',
      { 'index.ts': `export const ok = () => 'x';\nexport default class {}` },
      /^index\.ts: the default export is a class: /,
    ],
    ['no index', { 'readme.md': '' }, /^there is no index\.ts or index\.tsx in /],
    ['an error at the top level', { 'index.ts': 'export {};\nnull!.x;' }, /TypeError: .*\(index\.ts:2:7\)$/],
    ['a loop at the top level', { 'index.ts': 'for (;;);' }, /longer than 5000 ms/],
    ['a tool named settings', { 'index.ts': 'export const settings = () => 1;' }, /^settings: not a name/],
    [
      'a bundle that is too big',
      {
        'index.ts': `import { b } from '@acme/huge'; export const a = () => b;`,
        'node_modules/@acme/huge/index.js': `export const b = '${'x'.repeat(5_300_000)}';`,
      },
      /at most 5242880 are taken\. Most of it: @acme\/huge \(53\d{5} bytes\), index\.ts \(\d+ bytes\)$/,
    ],
  ];
  it.each(faults)('%s', async (_name, files, message) => {
    const fault = { kind: 'invalid', code: 'tools.build_failed', message: expect.stringMatching(message) };
    await expect(build(files)).rejects.toMatchObject(fault);
  });

  it('two functions that claim one inbox', async () => {
    const source = 'export const dailyReport = () => 1; export const DailyReport = () => 2;';
    await expect(build({ 'index.ts': source })).rejects.toMatchObject({
      kind: 'invalid',
      code: 'tools.inbox_conflict',
    });
  });

  it('top-level await, which a script has not', async () => {
    await expect(build({ 'index.ts': 'await null; export {};' })).rejects.toThrow(
      /^index\.ts:1:1: Top-level await/,
    );
  });
});

describe('settings', () => {
  const faults: [settings: string, message: string][] = [
    [
      '{ test: { timeout: 5 } }',
      'settings.test: Unrecognized key: "timeout"; known: from, unauthenticated, hosts, secrets, timeoutMs, ',
    ],
    ['{ test: { timeoutMs: "5" } }', 'settings.test.timeoutMs: '],
    ['{ test: { timeoutMs: 300_001 } }', 'settings.test.timeoutMs: '],
    ['{ test: { timeoutMs: 5n } }', 'settings.test.timeoutMs: '],
    ['{ test: { timeoutMs: Infinity } }', 'settings.test.timeoutMs: '],
    ['{ test: { hosts: () => [] } }', 'settings.test.hosts: '],
    ['{ test: { memoryLimitMb: 4096 } }', 'settings.test.memoryLimitMb: '],
    ['{ test: { hosts: "example.com" } }', 'settings.test.hosts: '],
    ['{ test: { hosts: ["example.com/path"] } }', 'settings.test.hosts.0: expected a host'],
    ['{ test: { hosts: ["*.example.com"] } }', 'settings.test.hosts.0: expected a host'],
    ['{ test: { hosts: ["ftp://example.com"] } }', 'settings.test.hosts.0: expected a host'],
    ['{ test: { hosts: ["a@example.com"] } }', 'settings.test.hosts.0: expected a host'],
    ['{ test: { secrets: ["lower"] } }', 'settings.test.secrets.0: expected a name'],
    ['{ test: { from: ["ann"] } }', 'settings.test.from.0: expected an address'],
    ['{ test: { from: ["@"] } }', 'settings.test.from.0: expected an address'],
    [
      '{ test: { from: ["ann@example.com"], unauthenticated: "run" } }',
      'settings.test.unauthenticated: with `from`, expected',
    ],
    ['{ tset: {} }', 'settings.tset: there is no exported function of this name'],
    ['"none"', 'settings: '],
    ['[]', 'settings: '],
    ['{ get test() { throw new Error("no") } }', 'evaluating the tools: '],
  ];
  it.each(faults)('%s names the key at fault', async (settings, message) => {
    const source = `export const test = () => 'x'; export const settings = ${settings};`;
    await expect(build({ 'index.ts': source })).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining(message),
    });
  });

  it('names every fault at once', async () => {
    const source = `export const test = () => 'x';
      export const settings = { test: { timeoutMs: 0, hosts: ['?'] }, other: {} };`;
    await expect(build({ 'index.ts': source })).rejects.toThrow(/hosts\.0.*timeoutMs.*settings\.other/s);
  });
});

it('a folder that is itself a link is taken as what it leads to', async () => {
  const folder = folderWith({
    'real/index.ts': `import './other.ts'; export const test = () => 'x';`,
    'real/other.ts': '',
  });
  mkdirSync(join(folder, 'a'));
  symlinkSync(join(folder, 'real'), join(folder, 'a/link'));
  const bundle = await bundleTools({ directory: join(folder, 'a/link'), clock, pool: sandbox.pool });
  expect(bundle.exports).toEqual(['test']);
});

it('takes of a package of before `exports` what it has for the Web, and not what it leaves out there', async () => {
  const browser = { './node.js': './web.js', './files.js': false, fs: false };
  const bundle = await build({
    'index.ts': `import { kind } from 'templates'; import whole from 'whole'; export const test = () => kind + whole;`,
    'node_modules/templates/package.json': JSON.stringify({ name: 'templates', main: './main.js', browser }),
    'node_modules/templates/main.js': `exports.kind = [require('./node.js').kind, require('fs').x, require('./files.js').x].join();`,
    'node_modules/templates/files.js': `require('node:path'); exports.x = 1;`,
    'node_modules/templates/node.js': `require('node:stream'); exports.kind = 'node';`,
    'node_modules/templates/web.js': `exports.kind = 'web';`,
    'node_modules/whole/package.json': '{"name":"whole","main":"./node.js","browser":"./web.js"}',
    'node_modules/whole/node.js': `module.exports = require('http');`,
    'node_modules/whole/web.js': `module.exports = '!';`,
  });
  expect(repliesOf(await sandbox.run(bundle, { exportName: 'test' }))).toEqual([{ text: 'web,,!' }]);
});

it('takes of a package what is meant for the Web alone, and as in production', async () => {
  const exports = { '.': { node: './node.js', workerd: './web.js', default: './node.js' } };
  const bundle = await build({
    'index.ts': `import { kind } from 'renderer'; export const test = () => kind;`,
    'node_modules/renderer/package.json': JSON.stringify({ name: 'renderer', type: 'module', exports }),
    'node_modules/renderer/node.js': `import 'node:stream'; export const kind = 'node';`,
    'node_modules/renderer/web.js': `export const kind = 'web ' + process.env.NODE_ENV;`,
  });
  expect(repliesOf(await sandbox.run(bundle, { exportName: 'test' }))).toEqual([{ text: 'web production' }]);
});
