/**
 * What an upgrade does at each of its steps, with real releases from a real Git repository and nothing that runs:
 * which release is in order is what a test says. Real daemons under load are in test/e2e/upgrade.test.ts.
 */
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createRunProgram } from '../../src/admin/run-program.ts';
import { createReleases } from '../../src/admin/upgrade/releases.ts';
import type { Releases } from '../../src/admin/upgrade/releases.ts';
import { rollback, upgrade } from '../../src/admin/upgrade/upgrade.ts';
import type { UpgradeDeps } from '../../src/admin/upgrade/upgrade.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';

const run = promisify(execFile);
const { signal } = new AbortController();
const timing = { upWithinMs: 0, stableMs: 0, lookMs: 1 };

let home: string;
let releases: Releases;
/** The releases that do not come up, do not get healthy, refuse the configuration. */
let sick: { start: Set<string>; health: Set<string>; preflight: Set<string> };
/** What was restarted, and as which release. */
let restarts: string[];
let printed: string[];
let writes: number;
let first: string;

const git = (...args: string[]) =>
  run('git', ['-C', join(home, 'work'), '-c', 'user.name=t', '-c', 'user.email=t@t', ...args]);

async function release(content: string): Promise<string> {
  writeFileSync(join(home, 'work', 'file'), content);
  await git('add', '--all');
  await git('commit', '--quiet', '--message', content);
  return (await git('rev-parse', 'HEAD')).stdout.slice(0, 12);
}

const deps = (): UpgradeDeps => ({
  releases,
  units: {
    async install() {},
    async watch() {},
    async restart(direction) {
      const current = releases.current()!;
      restarts.push(`${direction} ${current}`);
      if (sick.start.has(current)) throw new MillraceError('permanent', 'upgrade.unit_failed', 'crashed');
    },
    faults: async () => (sick.health.has(releases.current()!) ? ['it answers 503'] : []),
  },
  async preflight(folder) {
    const id = folder.slice(-12);
    if (sick.preflight.has(id)) throw new MillraceError('permanent', 'upgrade.preflight_failed', 'refused');
    return { release: id, format: { reads: writes, writes }, healthUrls: [] };
  },
  readsFormat: 1,
  clock,
  print: (line) => void printed.push(line),
});

const upgradeTo = (version: string | null, options: { noWayBack?: boolean; keep?: number } = {}) =>
  upgrade(deps(), { version, keep: 3, noWayBack: false, timing, ...options }, signal);
const goBack = (to: string | null = null) => rollback(deps(), { to, timing }, signal);
const links = () => [releases.current(), releases.previous(), releases.switching()];

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'millrace-upgrade-'));
  sick = { start: new Set(), health: new Set(), preflight: new Set() };
  [restarts, printed, writes] = [[], [], 1];
  for (const folder of ['work', 'bin', 'releases']) mkdirSync(join(home, folder));
  writeFileSync(
    join(home, 'bin', 'npm'),
    '#!/bin/sh\n[ -z "$(cat file | grep uninstallable)" ] && mkdir node_modules\n',
  );
  chmodSync(join(home, 'bin', 'npm'), 0o755);
  await git('init', '--quiet', '--initial-branch=main');
  first = await release('first');
  // As setup.sh makes it: no refs that are fetched by themselves, and a HEAD of its own.
  const mirror = join(home, 'repository.git');
  await run('git', ['init', '--quiet', '--bare', '--initial-branch=nowhere', mirror]);
  await run('git', ['--git-dir', mirror, 'config', 'remote.origin.url', join(home, 'work')]);
  releases = createReleases(
    { run: createRunProgram(clock), newId: () => clock.uuid() },
    { home, environment: { PATH: process.env['PATH']! } },
  );
  await releases.prepare(await releases.resolve(first, signal), signal);
  await releases.point('current', first);
});
afterEach(() => rmSync(home, { recursive: true }));

it('checks the release out beside, installs it, switches, and remembers the one before', async () => {
  const second = await release('second');
  await upgradeTo('main');
  expect(links()).toEqual([second, first, null]);
  expect(restarts).toEqual([`forward ${second}`]);
  expect(readFileSync(join(home, 'current', 'file'), 'utf8')).toBe('second');
  expect(readdirSync(join(home, 'current'))).toContain('node_modules');
});

it('takes the newest version tag where none is named, the default branch where there is none', async () => {
  const untagged = await release('untagged');
  await upgradeTo(null);
  expect(releases.current()).toBe(untagged);
  await git('tag', 'v1.10.0');
  const tagged = (await git('rev-parse', 'v1.10.0')).stdout.slice(0, 12);
  const older = await release('on the branch');
  await git('tag', 'v1.9.0');
  await upgradeTo(null);
  expect(releases.current()).toBe(tagged);
  await upgradeTo('v1.9.0');
  expect(releases.current()).toBe(older);
  await upgradeTo(null);
  expect(printed.at(-1)).toContain('no version newer');
});

it('does nothing where that release runs', async () => {
  await upgradeTo(first);
  expect(restarts).toEqual([]);
  expect(links()).toEqual([first, null, null]);
});

it.each(['start', 'health'] as const)('switches back from a release that is sick by its %s', async (how) => {
  const second = await release('second');
  sick[how].add(second);
  await expect(upgradeTo('main')).rejects.toMatchObject({ code: 'upgrade.switched_back' });
  expect(links()).toEqual([first, null, null]);
  expect(restarts).toEqual([`forward ${second}`, `back ${first}`]);
});

it('says so where the old release is not well after the switch back either', async () => {
  const second = await release('second');
  sick.start.add(second).add(first);
  await expect(upgradeTo('main')).rejects.toMatchObject({ code: 'upgrade.switch_back_failed' });
  expect(releases.current()).toBe(first);
});

it('leaves everything as it is where the new release refuses, cannot be installed or cannot be fetched', async () => {
  const second = await release('second');
  sick.preflight.add(second);
  await expect(upgradeTo('main')).rejects.toMatchObject({ code: 'upgrade.preflight_failed' });
  await release('uninstallable');
  await expect(upgradeTo('main')).rejects.toMatchObject({ code: 'upgrade.install_failed' });
  await expect(upgradeTo('no-such-branch')).rejects.toMatchObject({ code: 'upgrade.fetch_failed' });
  expect(links()).toEqual([first, null, null]);
  expect(restarts).toEqual([]);
  expect(readdirSync(join(home, 'releases')).toSorted()).toEqual([first, second].toSorted());
});

it('gives up the way back only when told to', async () => {
  const second = await release('second');
  writes = 2;
  await expect(upgradeTo('main')).rejects.toMatchObject({ code: 'upgrade.no_way_back' });
  expect(releases.current()).toBe(first);
  await upgradeTo('main', { noWayBack: true });
  expect(releases.current()).toBe(second);
});

// The second time it went to what had just been gone back from, which was called going back.
it('goes back, further back the second time, and forward only to a release that is named', async () => {
  const second = await release('second');
  await upgradeTo('main');
  const third = await release('third');
  await upgradeTo('main');
  await goBack();
  expect(links()).toEqual([second, third, null]);
  expect(printed.at(-1)).toContain(`Rolled back from ${third} to ${second}`);
  await goBack();
  expect(links()).toEqual([first, second, null]);
  await expect(goBack()).rejects.toMatchObject({ code: 'upgrade.no_release' });
  await goBack(third.slice(0, 8));
  expect(links()).toEqual([third, first, null]);
  expect(restarts.slice(2)).toEqual([`back ${second}`, `back ${first}`, `forward ${third}`]);
  await expect(goBack('ffffffff')).rejects.toMatchObject({ code: 'upgrade.no_release' });
});

it('goes back to a newer release from an older one that was upgraded to on purpose', async () => {
  const second = await release('second');
  await upgradeTo('main');
  await upgradeTo(first);
  await goBack();
  expect(links()).toEqual([second, first, null]);
});

it('does not go back to a release that would refuse what stands on the streams now', async () => {
  const second = await release('second');
  await upgradeTo('main');
  sick.preflight.add(first);
  await expect(goBack()).rejects.toMatchObject({ code: 'upgrade.preflight_failed' });
  expect(links()).toEqual([second, first, null]);
});

it('has nothing to go back to after the first install', async () => {
  await expect(goBack()).rejects.toMatchObject({ code: 'upgrade.no_release' });
});

it('lets one at a time', async () => {
  const lock = releases.lock();
  await expect(upgradeTo('main')).rejects.toMatchObject({ code: 'upgrade.locked' });
  lock.release();
  await upgradeTo('main');
});

it('confirms a switch that was broken off where all is well, before it goes on', async () => {
  const second = await release('second');
  await releases.prepare(await releases.resolve('main', signal), signal);
  await releases.begin({ from: first, to: second, previous: null });
  await upgradeTo('main');
  expect(links()).toEqual([second, first, null]);
  expect(restarts).toEqual([`forward ${second}`]);
});

it('undoes a switch that was broken off where the new release is sick', async () => {
  const second = await release('second');
  sick.health.add(second);
  await releases.prepare(await releases.resolve('main', signal), signal);
  await releases.begin({ from: first, to: second, previous: null });
  await upgradeTo(first);
  expect(links()).toEqual([first, null, null]);
  expect(restarts).toEqual([`forward ${second}`, `back ${first}`]);
});

it('leaves a third release alone that was brought after a switch was broken off', async () => {
  const second = await release('second');
  await releases.prepare(await releases.resolve('main', signal), signal);
  await releases.begin({ from: first, to: second, previous: null });
  const third = await release('third');
  await releases.prepare(await releases.resolve('main', signal), signal);
  await releases.point('current', third);
  await upgradeTo('main');
  expect(links()).toEqual([third, null, null]);
  expect(restarts).toEqual([]);
});

it('keeps what is linked and the newest others, and removes what broken runs left', async () => {
  const ids: string[] = [first];
  mkdirSync(join(home, 'releases', '.staging-killed'));
  for (const name of ['a', 'b', 'c']) {
    ids.push(await release(name));
    await upgradeTo('main', { keep: 3 });
  }
  expect(readdirSync(join(home, 'releases')).toSorted()).toEqual(ids.slice(1).toSorted());
});
