/** `daemon.json`: only for its owner, replaced as a whole, taken away by who wrote it. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import {
  findDaemonFile,
  readDaemonFile,
  removeDaemonFile,
  writeDaemonFile,
} from '../../src/admin/daemon-file.ts';
import { systemProcesses } from '../../src/platform/process-identity.ts';

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

it.runIf(process.getuid?.() === 0)('tells another user to be root, and not that no daemon runs', () => {
  writeDaemonFile(directory, daemon);
  const read = `import { readDaemonFile } from './src/admin/daemon-file.ts'; readDaemonFile('${directory}');`;
  const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath];
  const { stderr } = spawnSync('setpriv', [...nobody, '--input-type=module', '-e', read], {
    encoding: 'utf8',
  });
  expect(stderr).toContain("code: 'admin.needs_root'");
  expect(stderr).toContain('as root (sudo)');
});

it('stays where another daemon has written its own', () => {
  writeDaemonFile(directory, daemon);
  removeDaemonFile(directory, 1);
  expect(readDaemonFile(directory)).toEqual(daemon);
  removeDaemonFile(directory, daemon.pid);
  expect(() => readDaemonFile(directory)).toThrow('there is no');
});

it('is passed over where its process has ended, and the next folder is looked into', () => {
  const [stale, live] = [join(directory, 'data'), join(directory, 'run')];
  const ended = spawnSync(process.execPath, ['--version']).pid;
  writeDaemonFile(stale, { ...daemon, pid: ended });
  expect(() => findDaemonFile([stale, live])).toThrow('has ended');
  writeDaemonFile(live, { ...daemon, pid: process.pid });
  expect(findDaemonFile([stale, live]).pid).toBe(process.pid);
});

it.runIf(systemProcesses.own)('is passed over where another process has its pid by now', async () => {
  const other = spawn('sleep', ['60']);
  try {
    await once(other, 'spawn');
    writeDaemonFile(directory, { ...daemon, pid: other.pid!, identity: identityOf(other.pid!, '1') });
    expect(() => findDaemonFile([directory])).toThrow('has ended');
    writeDaemonFile(directory, { ...daemon, pid: process.pid, identity: systemProcesses.own });
    expect(findDaemonFile([directory]).pid).toBe(process.pid);
  } finally {
    other.kill();
  }
});

/** As a process of this machine would have it that began at this time. */
function identityOf(pid: number, startTime: string): string {
  const [boot, namespace] = systemProcesses.own!.split(' ');
  return [boot, namespace, pid, startTime].join(' ');
}
