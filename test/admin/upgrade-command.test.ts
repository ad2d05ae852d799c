/**
 * `millrace upgrade` as a process, whose terminal goes away or is interrupted in the middle of the switch. Releases
 * and Git are real; systemctl is a script that waits until it is let go, and says that nothing comes up.
 */
import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { createRunProgram } from '../../src/admin/run-program.ts';
import { createReleases } from '../../src/admin/upgrade/releases.ts';
import type { Releases } from '../../src/admin/upgrade/releases.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const { signal } = new AbortController();

let home: string;
let releases: Releases;
let first: string;
let command: ChildProcess;

const git = (...args: string[]): string =>
  execFileSync('git', ['-C', join(home, 'work'), '-c', 'user.name=t', '-c', 'user.email=t@t', ...args], {
    encoding: 'utf8',
  });

function release(content: string): string {
  writeFileSync(join(home, 'work', 'file'), content);
  git('add', '--all');
  git('commit', '--quiet', '--message', content);
  return git('rev-parse', 'HEAD').slice(0, 12);
}

function script(name: string, lines: readonly string[]): void {
  writeFileSync(join(home, 'bin', name), `#!/bin/sh\n${lines.join('\n')}\n`);
  chmodSync(join(home, 'bin', name), 0o755);
}

/** What systemctl has begun and finished. */
const restarts = (): string[] =>
  existsSync(join(home, 'restarts')) ? readFileSync(join(home, 'restarts'), 'utf8').trim().split('\n') : [];
const letGo = (): void => writeFileSync(join(home, 'go'), '');

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'millrace-upgrade-'));
  for (const folder of ['work', 'bin', 'releases']) mkdirSync(join(home, folder));
  script('npm', ['mkdir node_modules']);
  script('node', [`echo '{"release":"any","format":{"reads":1,"writes":1},"healthUrls":[]}'`]);
  script('journalctl', []);
  script('systemctl', [
    'case $1 in',
    '  list-units) echo "millrace.service loaded active running Millrace" ;;',
    '  show) echo active ;;',
    '  restart)',
    `    echo begun >>'${home}/restarts'`,
    `    until [ -e '${home}/go' ]; do sleep 0.05; done`,
    `    echo finished >>'${home}/restarts'`,
    '    exit 1 ;;',
    'esac',
  ]);
  git('init', '--quiet', '--initial-branch=main');
  first = release('first');
  execFileSync('git', ['clone', '--quiet', '--bare', join(home, 'work'), join(home, 'repository.git')]);
  releases = createReleases(
    { run: createRunProgram(clock), newId: () => clock.uuid() },
    { home, environment: { PATH: process.env['PATH']! } },
  );
  await releases.prepare(await releases.resolve(first, signal), signal);
  await releases.point('current', first);
  const second = release('second');
  // In a process group of its own, as a shell at a terminal starts it.
  command = spawn(process.execPath, [main, 'upgrade', 'main', '--home', home], {
    detached: true,
    env: { PATH: `${join(home, 'bin')}:${dirname(process.execPath)}:/usr/bin:/bin` },
  });
  await vi.waitFor(() => expect(restarts()).toEqual(['begun']), { timeout: 30_000, interval: 50 });
  expect(releases.current()).toBe(second);
});
afterEach(() => {
  letGo();
  command.kill('SIGKILL');
  rmSync(home, { recursive: true });
});

// What it had to say killed it (EPIPE), and the release that did not come up stayed.
it('ends the switch although nobody reads what it says any more', { timeout: 60_000 }, async () => {
  const exit = once(command, 'exit');
  command.stdout!.destroy();
  command.stderr!.destroy();
  letGo();
  expect(await exit).toEqual([1, null]);
  expect(releases.current()).toBe(first);
});

// Ctrl-C goes to all processes of the terminal: it ended systemctl, and with it a switch that was going well.
it('lets a restart that is under way finish when it is interrupted', { timeout: 60_000 }, async () => {
  const exit = once(command, 'exit');
  process.kill(-command.pid!, 'SIGINT');
  letGo();
  await exit;
  expect(restarts().slice(0, 3)).toEqual(['begun', 'finished', 'begun']);
});
