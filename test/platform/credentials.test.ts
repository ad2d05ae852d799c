/** Secrets in files, as systemd lays them out. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readCredentials } from '../../src/platform/credentials.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'credentials-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const put = (name: string, text: string): void => writeFileSync(join(directory, name), text);

it('are read by variable; what is not ours is left alone', () => {
  put('secret_S2_ACCESS_TOKEN', 'token\n');
  put('secret_TOOL_SECRET_DEEPL', 'key');
  put('secret_PATH', '/evil');
  put('S2_ACCESS_TOKEN', 'of another credential');
  expect(readCredentials(directory)).toEqual({ S2_ACCESS_TOKEN: 'token\n', TOOL_SECRET_DEEPL: 'key' });
});

it('are small', () => {
  put('secret_ADMIN_TOKEN', 'x'.repeat(70_000));
  expect(() => readCredentials(directory)).toThrow('secret_ADMIN_TOKEN has more than 65536 bytes');
});

it('are told when they cannot be read', () => {
  expect(() => readCredentials(join(directory, 'missing'))).toThrow(/ENOENT/);
});
