/** The sandbox process's program is kept, and used only as long as it is whole and nothing of it has changed. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, beforeEach, expect, it } from 'vitest';
import { childProgram, programSources } from '../../src/runner/sandbox/kept-program.ts';
import { buildChildProgram, isolatedVmByPath } from '../../src/runner/sandbox/programs.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-kept-'));
const path = join(folder, 'sandbox-child.cjs');
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(() => rmSync(path, { force: true }));

it('is what is made, whether it is kept already or not', async () => {
  const made = await buildChildProgram();
  expect(await childProgram(folder)).toBe(made);
  expect(readFileSync(path, 'utf8')).toContain(made);
  expect(await childProgram(folder)).toBe(made);
});

const damages: [what: string, damage: (file: string) => string][] = [
  ['nothing', () => ''],
  ['its first half', (file) => file.slice(0, file.length / 2)],
  ['another letter', (file) => file.replace('SIGKILL', 'SIGTERM')],
  [
    'what another version of the sources made',
    (file) => `${createHash('sha256').update(file).digest('hex')}${file.slice(64)}`,
  ],
];
it.each(damages)('is made again where the file holds %s', async (_what, damage) => {
  const made = await childProgram(folder);
  const whole = readFileSync(path, 'utf8');
  writeFileSync(path, damage(whole));
  expect(await childProgram(folder)).toBe(made);
  expect(readFileSync(path, 'utf8')).toBe(whole);
});

it('is made where it cannot be kept', async () => {
  expect(await childProgram(join(folder, 'missing'))).toBe(await buildChildProgram());
});

it.each(['sandbox-child.ts', 'guest/prelude.ts', 'guest/web-classes.ts', 'guest/web-streams.ts'])(
  'counts every file that goes into %s',
  async (file) => {
    const { metafile } = await build({
      entryPoints: [fileURLToPath(new URL(`../../src/runner/sandbox/${file}`, import.meta.url))],
      bundle: true,
      write: false,
      metafile: true,
      platform: 'node',
      plugins: [isolatedVmByPath],
    });
    const inputs = Object.keys(metafile.inputs)
      .filter((input) => !input.startsWith('isolated-vm:'))
      .map((input) => resolve(input.replace(/^node_modules\/.*/, 'package-lock.json')));
    expect(inputs.length).toBeGreaterThan(1);
    expect(programSources()).toEqual(expect.arrayContaining(inputs));
  },
);
