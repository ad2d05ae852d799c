/**
 * What an upgrade does at each of its steps, with real releases from a real Git repository and nothing that runs:
 * which release is in order is what a test says. Real daemons under load are in test/e2e/upgrade.test.ts.
 */
import { execFile } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { createRunProgram } from '../../src/admin/run-program.ts';
import { createReleases } from '../../src/admin/upgrade/releases.ts';
import type { Releases } from '../../src/admin/upgrade/releases.ts';
import { createSystemdUnits } from '../../src/admin/upgrade/units.ts';
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
/** Where it was looked whether all is well. */
let watched: string[];
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

const releasesWith = (environment: Record<string, string>): Releases =>
  createReleases(
    { run: createRunProgram(clock), newId: () => clock.uuid() },
    { home, environment: { PATH: process.env['PATH']!, ...environment } },
  );

const deps = (): UpgradeDeps => ({
  releases,
  units: {
    async install() {},
    async watch(urls) {
      watched.push(...urls);
    },
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
    return { release: id, format: { reads: writes, writes }, healthUrls: [`http://${id}`] };
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
  [restarts, watched, printed, writes] = [[], [], [], 1];
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
  releases = releasesWith({});
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

// Nobody looked at its health then, and whatever came up at all was taken as well.
it('watches the new release where the old one finds fault and does not say where it answers', async () => {
  const second = await release('second');
  sick.preflight.add(first);
  await upgradeTo('main');
  expect(watched).toEqual([`http://${second}`]);
  sick.preflight.delete(first);
  sick.preflight.add(second);
  await goBack();
  expect(watched.slice(1)).toEqual([`http://${first}`]);
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

// It settled the rollback, which goes back, and then went back once more.
it('goes back once where a rollback was broken off and is given again', async () => {
  const second = await release('second');
  await upgradeTo('main');
  const third = await release('third');
  await upgradeTo('main');
  restarts = [];
  await releases.begin({ from: third, to: second, previous: second, direction: 'back' });
  await goBack();
  expect(links()).toEqual([second, third, null]);
  expect(restarts).toEqual([`back ${second}`]);
  expect(printed.at(-1)).toContain(`Rolled back from ${third} to ${second}`);
  // As after any rollback: further back, not to what was gone back from.
  await goBack();
  expect(links()).toEqual([first, second, null]);
});

it('notes which way a switch goes, for who finds it broken off', async () => {
  const noted: unknown[] = [];
  const begin = releases.begin.bind(releases);
  releases.begin = async (switching) => {
    noted.push(switching.direction);
    await begin(switching);
  };
  await release('second');
  await upgradeTo('main');
  await goBack();
  expect(noted).toEqual(['forward', 'back']);
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

// Removed in its place, half of a release stood under its name when that was broken off.
it('takes the name from a release before it removes it', async () => {
  const seen: (string | null)[] = [];
  using watcher = disposableWatch(join(home, 'releases'), (name) => seen.push(name));
  void watcher;
  await release('second');
  await upgradeTo('main');
  await release('third');
  await upgradeTo('main', { keep: 2 });
  await vi.waitFor(() => expect(seen).toContain(`.staging-old-${first}`));
});

// setup.sh had taken it, from a clone that is not root's, and no upgrade could fetch from there afterwards.
it('fetches from a repository on this machine that belongs to somebody else', async () => {
  const second = await release('second');
  releases = releasesWith({ GIT_TEST_ASSUME_DIFFERENT_OWNER: '1' });
  await upgradeTo(null);
  expect(releases.current()).toBe(second);
});

it('replaces a unit file that is installed by one made beside it, and brings no other', async () => {
  const [from, unitFolder] = [join(home, 'work', 'deploy', 'systemd'), join(home, 'units')];
  mkdirSync(from, { recursive: true });
  mkdirSync(unitFolder);
  for (const name of ['millrace.service', 'new.service']) writeFileSync(join(from, name), 'after');
  writeFileSync(join(unitFolder, 'millrace.service'), 'before');
  const seen: (string | null)[] = [];
  using watcher = disposableWatch(unitFolder, (name) => seen.push(name));
  void watcher;
  const noProgram = async () => ({ exitCode: 0, stdout: '', said: '' });
  await createSystemdUnits({ run: noProgram, clock }, { unitFolder }).install(join(home, 'work'));
  expect(readdirSync(unitFolder)).toEqual(['millrace.service']);
  expect(readFileSync(join(unitFolder, 'millrace.service'), 'utf8')).toBe('after');
  await vi.waitFor(() => expect(seen).toContain('millrace.service.new'));
});

function disposableWatch(folder: string, seen: (name: string | null) => void): Disposable {
  const watcher = watch(folder, (_event, name) => seen(name));
  return { [Symbol.dispose]: () => watcher.close() };
}
