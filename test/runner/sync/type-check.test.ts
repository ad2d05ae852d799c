/** The compiler's word on a revision: heard where it is the author's fault, and never a way to read this machine. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../../src/platform/clock.ts';
import { createTypeCheck } from '../../../src/runner/sync/type-check.ts';
import type { TypeCheckOptions } from '../../../src/runner/sync/type-check.ts';
import { folderWith } from '../tool-fixture.ts';

const SECRET = 'of_the_host_alone';
let outside: string;
beforeEach(async () => {
  outside = await mkdtemp(join(tmpdir(), 'millrace-outside-'));
});
afterEach(() => rm(outside, { recursive: true }));

/** Null where the types are right, else what is said of them. */
async function check(files: Record<string, string>, options: TypeCheckOptions = {}): Promise<string | null> {
  const root = folderWith(files);
  const checkTypes = createTypeCheck({ clock }, options);
  try {
    await checkTypes({ root, directory: join(root, 'tools') }, new AbortController().signal);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

const typed = (body: string) => `import type { Context, Email, Settings, Tests } from 'millrace';\n${body}`;

describe('the type check', () => {
  it('takes what is right, with packages, JSX, JSON and text', async () => {
    const files = {
      'tools/index.ts': typed(`import { page } from './page.tsx';
        import { greet } from 'untyped';
        import { typedGreet } from 'typed';
        import names from './names.json';
        import legal from './legal.txt';
        import { plain } from './plain.js';
        export const settings: Settings = { echo: { hosts: ['api.example.com'] } };
        export const tests: Tests = { echo: [{ email: { text: 'a' }, expect: { contains: 'a' } }] };
        export async function echo(email: Email, { fetch, log }: Context) {
          const response = await fetch(new URL('https://api.example.com'));
          log(response.status, new TextEncoder().encode(legal), structuredClone(names.first));
          return { html: page(email.subject), text: greet(typedGreet(email.text)) + plain(1) };
        }`),
      'tools/page.tsx': 'export const page = (subject: string) => <p>{subject}</p>;',
      'tools/names.json': '{ "first": "Ann" }',
      'tools/legal.txt': 'All rights reserved.',
      'tools/plain.js': 'export const plain = (x) => x.nothing.of.this.is.checked;',
      'node_modules/untyped/package.json': '{ "name": "untyped", "main": "index.js", "type": "module" }',
      'node_modules/untyped/index.js': 'export const greet = (text) => text;',
      'node_modules/typed/package.json': '{ "name": "typed", "exports": "./index.ts", "type": "module" }',
      'node_modules/typed/index.ts':
        'export const typedGreet = (t: string): string => { const x: number = t; return t; };',
      'tsconfig.json': '{ "compilerOptions": { "strict": true } }',
    };
    expect(await check(files)).toBeNull();
  });

  it('takes the JSX of React where package.json has it, by its own types', async () => {
    const files = {
      'package.json': '{ "dependencies": { "react": "19" } }',
      'tools/index.tsx': 'export const echo = () => ({ html: String(<letter to="Ann" />) });',
      'node_modules/react/package.json': '{ "name": "react", "types": "index.d.ts" }',
      'node_modules/react/jsx-runtime.d.ts':
        'export namespace JSX { interface IntrinsicElements { letter: { to: string } } }',
    };
    expect(await check(files)).toBeNull();
    const wrong = { ...files, 'tools/index.tsx': 'export const echo = () => String(<letter to={1} />);' };
    expect(await check(wrong)).toContain("Type 'number' is not assignable to type 'string'");
  });

  it('says how to take a component for React’s', async () => {
    const root = folderWith({
      'tools/index.tsx': `const Page = (): bigint => 1n;
        export const echo = () => ({ html: <Page /> });`,
    });
    const checked = createTypeCheck({ clock })(
      { root, directory: join(root, 'tools') },
      new AbortController().signal,
    );
    await expect(checked).rejects.toMatchObject({
      hint: expect.stringContaining('@jsxImportSource react') as string,
    });
  });

  // It sent the author for the types of Node, with which the check would have passed and every mail been parked.
  it('says of what is Node’s what there is in its place', async () => {
    const message = await check({
      'tools/index.ts': 'export const echo = () => process.env.KEY + Buffer.name;',
    });
    expect(message).toContain(
      "Cannot find name 'process'. Tools have nothing of Node (docs/tools.md says what there is): in place of process.env, context.secret('NAME').",
    );
    expect(message).toContain("Cannot find name 'Buffer'. Tools have nothing of Node");
    expect(message).not.toContain('npm i');
  });

  it('takes the types of files that are text or bytes', async () => {
    const tools = `import page from './page.html'; import logo from './logo.png';
      export const echo = () => ({ html: page.trim(), attachments: [{ filename: 'a', content: logo }] });`;
    expect(
      await check({ 'tools/index.ts': typed(tools), 'tools/page.html': '', 'tools/logo.png': '' }),
    ).toBeNull();
  });

  it('says file, line and column, as far as the repository reaches', async () => {
    const message = await check({
      'tools/index.ts': typed(`import { count } from '../lib/count.ts';
export const echo = (email: Email) => email.txt + count;
export const settings: Settings = { echo: { hosts: [1] } };`),
      'lib/count.ts': `export const count: number = 'three';`,
    });
    expect(message?.split('\n').filter((line) => !line.startsWith(' '))).toEqual([
      `lib/count.ts:1:14: error TS2322: Type 'string' is not assignable to type 'number'.`,
      expect.stringMatching(
        /^tools\/index\.ts:3:45: error TS\d+: Property 'txt' does not exist on type 'Email'/,
      ),
      `tools/index.ts:4:53: error TS2322: Type 'number' is not assignable to type 'string'.`,
    ]);
  });

  it('is as strict as the author asks, in comments or not, and not strict where nobody asks', async () => {
    const loose = { 'tools/index.ts': typed('export const echo = (email) => email.text;') };
    expect(await check(loose)).toBeNull();
    const strict = '{ // as strict as can be\n "compilerOptions": { "strict": true, }, }';
    const implicit = expect.stringContaining('TS7006') as string;
    expect(await check({ ...loose, 'tsconfig.json': strict })).toEqual(implicit);
    expect(await check({ ...loose, 'tools/tsconfig.json': '{}', 'tsconfig.json': strict })).toBeNull();
    const inherited = { 'tools/tsconfig.json': '{ "extends": "../base.json" }', 'base.json': strict };
    expect(await check({ ...loose, ...inherited })).toEqual(implicit);
  });

  it('takes nothing else of the author’s settings, which may be of another age or broken', async () => {
    const right = { 'tools/index.ts': typed('export const echo = (email: Email) => email.text;') };
    const old = `{ "compilerOptions": { "target": "es5", "moduleResolution": "node10", "baseUrl": ".",
      "types": ["node"], "lib": ["es5"], "outDir": "${outside}/out", "incremental": true, "noEmit": false } }`;
    expect(await check({ ...right, 'tsconfig.json': old })).toBeNull();
    expect(await check({ ...right, 'tsconfig.json': '{ broken' })).toBeNull();
  });

  it.each([
    ['an import', (path: string) => `import { x } from '${path}'; export const echo = () => x.y;`],
    ['a type', (path: string) => `export const echo = (e: import('${path}').Missing) => 'x';`],
    ['a reference', (path: string) => `/// <reference path="${path}" />\nexport const echo = () => 'x';`],
  ])('shows nothing of a file of this machine that %s reaches', async (_, source) => {
    const path = join(outside, 'secret.ts');
    await writeFile(path, `export const x = 1; ${SECRET} is no code`);
    const message = await check({ 'tools/index.ts': source(path) });
    expect(message).toBe('a file outside of the repository is imported for its types');
    expect(message).not.toContain(SECRET);
  });

  it('shows nothing of a file of this machine that tsconfig.json extends', async () => {
    const path = join(outside, 'base.json');
    await writeFile(path, `{ "compilerOptions": { "${SECRET}": true } } ${SECRET}`);
    const message = await check({
      'tools/index.ts': `export const echo = (): number => 'x';`,
      'tsconfig.json': `{ "extends": "${path}" }`,
    });
    expect(message).toContain('TS2322');
    expect(message).not.toContain(SECRET);
  });

  it('has no environment to show', async () => {
    const message = await check({
      'tools/index.ts': `/// <reference path="/proc/self/environ" />\nexport const echo = () => 'x';`,
    });
    expect(message).not.toContain('PATH=');
  });

  it('ends types that take for ever, in time or in memory', async () => {
    const endless = {
      'tools/index.ts': `type Grow<T extends unknown[], N extends number> = T['length'] extends N ? T : Grow<[...T, 1], N>;
        type Pairs<A extends string> = \`\${A}\${A}\`; type Bits = '0' | '1' | '2' | '3' | '4' | '5' | '6' | '7';
        type Many = \`\${Bits}\${Bits}\${Bits}\${Bits}\${Bits}\`;
        const many: { [K in Many]: { [L in Many]: K } } = {} as never;
        export const echo = (x: keyof typeof many) => JSON.stringify(many[x][x]) + ({} as Pairs<Many>);`,
    };
    expect(await check(endless, { timeoutMs: 60 })).toBe('the type check needs more than 60 ms');
    expect(await check(endless, { maxBytes: 30_000_000 })).toBe(
      'the type check needs more than 30000000 bytes of memory',
    );
  });

  it('has nothing to say about tools in JavaScript', async () => {
    const root = folderWith({ 'tools.js': 'export const echo = (email) => email.textt;' });
    const checkTypes = createTypeCheck({ clock });
    await expect(
      checkTypes({ root, directory: join(root, 'tools.js') }, new AbortController().signal),
    ).resolves.toBeUndefined();
  });
});
