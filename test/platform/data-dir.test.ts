/** The folder that mail lies in: whose it is, and what is said where it cannot be. */
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { makeDataDir } from '../../src/platform/data-dir.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-data-dir-'));
afterAll(() => rmSync(folder, { recursive: true }));

const modeOf = (path: string): number => statSync(path).mode & 0o777;

it('is made for its owner alone, and is found the next time', () => {
  const path = join(folder, 'srv', 'data');
  expect(makeDataDir(path)).toEqual({ isOpenToAll: false });
  expect(modeOf(path)).toBe(0o700);
  expect(makeDataDir(path)).toEqual({ isOpenToAll: false });
});

// Node's own way of making a folder and those above it does not end there, and took a processor with it.
it.each(['/proc/data', '/proc/self/fd/srv/data'])(
  'that cannot be, at %s, is said and not tried for ever',
  (path) => {
    expect(() => makeDataDir(path)).toThrow(/^DATA_DIR=\/proc\S+ cannot be written: ENOENT/);
  },
);

it.each([
  [0o755, true],
  [0o750, false],
])('keeps a mode that somebody chose, %o, and says whether all may look', (mode, isOpenToAll) => {
  const path = mkdtempSync(join(folder, 'there-'));
  chmodSync(path, mode);
  expect(makeDataDir(path)).toEqual({ isOpenToAll });
  expect(modeOf(path)).toBe(mode);
});

// It was a stack of Node's.
it('that cannot be is a fault of the configuration', () => {
  writeFileSync(join(folder, 'file'), '');
  const path = join(folder, 'file', 'data');
  expect(() => makeDataDir(path)).toThrow(
    expect.objectContaining({
      kind: 'invalid',
      code: 'config.data_dir',
      message: expect.stringContaining(`DATA_DIR=${path}`),
      hint: expect.stringContaining('chown'),
    }),
  );
});
