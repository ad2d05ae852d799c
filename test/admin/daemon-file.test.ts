/** `daemon.json`: only for its owner, replaced as a whole, taken away by who wrote it. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readDaemonFile, removeDaemonFile, writeDaemonFile } from '../../src/admin/daemon-file.ts';

const daemon = { url: 'http://127.0.0.1:8080', token: 'secret', pid: 4711 };
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'millrace-daemon-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

it('is read as it was written, also into a folder that was not there', () => {
  const dataDir = join(directory, 'new', 'data');
  writeDaemonFile(dataDir, daemon);
  writeDaemonFile(dataDir, { ...daemon, pid: 4712 });
  expect(readDaemonFile(dataDir)).toEqual({ ...daemon, pid: 4712 });
});

it('is for its owner alone, whatever lay there before', () => {
  writeFileSync(join(directory, 'daemon.json'), '{}', { mode: 0o644 });
  writeFileSync(join(directory, 'daemon.json.4711'), '{}', { mode: 0o666 });
  writeDaemonFile(directory, daemon);
  expect(statSync(join(directory, 'daemon.json')).mode & 0o777).toBe(0o600);
});

it.each([
  ['missing', null],
  ['cut short', '{"url":'],
  ['something else', '{"url":"http://127.0.0.1:1"}'],
])('says what to do where it is %s', (_, content) => {
  if (content !== null) writeFileSync(join(directory, 'daemon.json'), content);
  expect(() => readDaemonFile(directory)).toThrow(
    expect.objectContaining({
      kind: 'invalid',
      code: 'admin.daemon_not_running',
      hint: expect.stringContaining('npm start') as string,
    }),
  );
});

it('stays where another daemon has written its own', () => {
  writeDaemonFile(directory, daemon);
  removeDaemonFile(directory, 1);
  expect(readDaemonFile(directory)).toEqual(daemon);
  removeDaemonFile(directory, daemon.pid);
  expect(() => readDaemonFile(directory)).toThrow('there is no');
});
