/** Tools from a real bare repository: built, published, live when good; what was live stays when not. */
import { once } from 'node:events';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { aborted } from '../../../src/platform/abort.ts';
import { MillraceError } from '../../../src/platform/errors.ts';
import type { CommitStatuses } from '../../../src/runner/sync/commit-statuses.ts';
import type { ToolFiles } from '../../../src/runner/tool-set.ts';
import { tool, useSyncWorld } from './sync-world.ts';

const world = useSyncWorld();

describe('tools from Git', () => {
  it('go live with their commit on record, and again after a push', async () => {
    const id = await world.repository.push(tool('one'), { message: 'first\n\nand more' });
    await using daemon = world.start();
    const { revision } = await daemon.live();
    expect(await world.record(1)).toMatchObject({
      status: 'live',
      revision,
      inboxes: ['echo'],
      commit: { id, subject: 'first' },
    });
    const next = await world.repository.push(tool('two'));
    await world.ask('sync');
    expect(await world.record(2)).toMatchObject({ status: 'live', commit: { id: next } });
    await expect.poll(() => daemon.tools.current()?.revision).not.toBe(revision);
  });

  it('keep the live revision when a push is broken, and say why, once', async () => {
    await world.repository.push(tool('one'));
    await using daemon = world.start();
    const live = await daemon.live();
    const id = await world.repository.push({ 'tools/index.ts': 'export const echo = () => (' });
    await world.ask('sync');
    const refusal = await world.record(2);
    expect(refusal).toMatchObject({ status: 'refused', commit: { id } });
    expect(refusal.error).toMatch(/index\.ts:1:28: Unexpected end of file/);
    await world.ask('sync');
    await world.repository.push(tool('three'));
    await world.ask('sync');
    expect(await world.record(3)).toMatchObject({ status: 'live' });
    expect(live.bundle.code).toContain('one');
  });

  it('follow a branch that was overwritten, and one of another name', async () => {
    await world.repository.push(tool('one'));
    await world.repository.push(tool('two'));
    await using daemon = world.start();
    await daemon.live();
    const forced = await world.repository.push(tool('three'), { force: true });
    await world.ask('sync');
    expect(await world.record(2)).toMatchObject({ status: 'live', commit: { id: forced } });
    const renamed = await world.repository.push(tool('four'), { branch: 'trunk' });
    await world.repository.git('symbolic-ref', 'HEAD', 'refs/heads/trunk');
    await world.repository.git('branch', '-D', 'main');
    await world.ask('sync');
    expect(await world.record(3)).toMatchObject({ status: 'live', commit: { id: renamed } });
  });

  it('stay when their branch is deleted, and say so', async () => {
    await world.repository.push(tool('one'), { branch: 'live' });
    await using daemon = world.start({ branch: 'live' });
    const live = await daemon.live();
    await world.repository.git('branch', '-D', 'live');
    await world.ask('sync');
    const refusal = await world.record(2);
    expect(refusal).toMatchObject({ status: 'refused' });
    expect(refusal.error).toContain('there is no live');
    expect(daemon.tools.current()).toBe(live);
  });

  it('stay when the Git host is away, and at a start too', async () => {
    const id = await world.repository.push(tool('one'));
    {
      await using daemon = world.start();
      await daemon.live();
      await rename(world.repository.path, `${world.repository.path}.away`);
      await world.ask('sync');
      expect((await world.record(2)).error).toContain('git: ');
    }
    await using daemon = world.start();
    expect((await daemon.live()).bundle.code).toContain('one');
    expect((await world.onRecord()).filter(({ status }) => status === 'live').at(-1)?.commit?.id).toBe(id);
  });

  it('are live at a start before a Git host that hangs is given up', async () => {
    await world.repository.push(tool('one'));
    {
      await using daemon = world.start();
      await daemon.live();
    }
    const silent = createServer(() => {}).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    try {
      const { port } = silent.address() as AddressInfo;
      await using daemon = world.start({ url: `http://127.0.0.1:${port}/tools.git` });
      expect((await daemon.live()).bundle.code).toContain('one');
    } finally {
      silent.closeAllConnections();
      silent.close();
    }
  });

  it('come back from what was live where this disk is new and the branch is broken', async () => {
    await world.repository.push(tool('one'));
    {
      await using daemon = world.start();
      await daemon.live();
    }
    await rm(world.checkouts, { recursive: true });
    await world.repository.push({ 'tools/index.ts': 'broken(' });
    await using daemon = world.start();
    expect((await daemon.live()).bundle.code).toContain('one');
  });

  it('stay with a pinned commit, on disk or not, until it is unpinned', async () => {
    const first = await world.repository.push(tool('one'));
    const second = await world.repository.push(tool('two'));
    await using daemon = world.start();
    await daemon.live();
    await world.ask('pin', first);
    expect(await world.record(2)).toMatchObject({ status: 'live', commit: { id: first } });
    await world.repository.push(tool('three'));
    await rename(world.repository.path, `${world.repository.path}.away`);
    await world.ask('pin', second);
    expect(await world.record(3)).toMatchObject({ status: 'live', commit: { id: second } });
    await rename(`${world.repository.path}.away`, world.repository.path);
    await world.ask('unpin');
    expect(await world.record(4)).toMatchObject({ status: 'live' });
    expect(daemon.tools.current()?.bundle.code).toContain('three');
  });

  // What was being built went live after the pin that was to keep it away.
  it('are not those of a build that a pin came after', async () => {
    const first = await world.repository.push(tool('one'));
    const states: string[] = [];
    const report: CommitStatuses['report'] = (_commit, { state }) => void states.push(state);
    let isSlow = false;
    const install = async (_root: string, _path: string, signal: AbortSignal): Promise<void> => {
      if (!isSlow) return;
      await world.ask('pin', first);
      await aborted(signal);
    };
    await using daemon = world.start({ install, report });
    const live = await daemon.live();
    isSlow = true;
    await world.repository.push(tool('two'));
    await world.ask('sync');
    await expect.poll(() => states).toEqual(['pending', 'success', 'pending', 'error']);
    expect(daemon.tools.current()).toBe(live);
    isSlow = false;
    await world.ask('unpin');
    expect(await world.record(2)).toMatchObject({ status: 'live' });
    await expect.poll(() => daemon.tools.current()?.bundle.code).toContain('two');
  });

  // A process that was killed while it built left 200 MB and more each time, and npm's cache only grew.
  it('leave nothing of a build that was killed, and no cache above its limit', async () => {
    const npm = join(world.root, 'npm');
    for (const folder of [join(world.checkouts, 'incoming-1'), join(npm, 'install-1'), join(npm, 'cache/a')])
      mkdirSync(folder, { recursive: true });
    await world.repository.push(tool('one'));
    writeFileSync(join(npm, 'cache/a/b'), 'x'.repeat(1_000));
    {
      await using daemon = world.start();
      await daemon.live();
    }
    expect(readdirSync(world.checkouts)).toEqual([]);
    expect(readdirSync(npm)).toEqual(['cache']);
    writeFileSync(join(npm, 'cache/a/c'), 'x');
    await using daemon = world.start();
    await daemon.live();
    await expect.poll(() => readdirSync(npm)).toEqual([]);
  });

  // Each made the other forgotten, so that both were built again at every look.
  it('are built once each where the branch is refused and so is what was live', async () => {
    await world.repository.push(tool('one'));
    await world.sync().once(new AbortController().signal);
    const bad = await world.repository.push({ 'tools/index.ts': 'broken(' });
    const builds: string[] = [];
    const look = ({ commit, directory }: ToolFiles): void => {
      builds.push(commit!.id);
      writeFileSync(join(directory, 'index.ts'), 'broken(');
    };
    const looks = { look, builder: 'of another release' };
    for (const _ of [1, 2, 3]) await world.sync(looks).once(new AbortController().signal);
    expect(builds).toHaveLength(2);
    expect((await world.onRecord()).at(-1)).toMatchObject({ status: 'refused', commit: { id: bad } });
  });

  it('may be looked at once, and the verdict says what became of the head of the branch', async () => {
    const { signal } = new AbortController();
    const good = await world.repository.push(tool('one'));
    expect(await world.sync().once(signal)).toBe('live');
    expect(await world.sync().once(signal)).toBe('live');
    const builds: string[] = [];
    const look = ({ commit }: ToolFiles) => void builds.push(commit!.id);
    const bad = await world.repository.push({ 'tools/index.ts': 'broken(' });
    expect(await world.sync({ look }).once(signal)).toBe('refused');
    expect(await world.sync({ look }).once(signal)).toBe('refused');
    expect(builds).toEqual([bad]);
    await world.ask('pin', good);
    expect(await world.sync({ look }).once(signal)).toBe('live');
    await world.ask('unpin');
    await rename(world.repository.path, `${world.repository.path}.away`);
    await expect(world.sync().once(signal)).rejects.toMatchObject({ code: 'tools.git_failed' });
    await rename(`${world.repository.path}.away`, world.repository.path);
    expect(await world.sync({ branch: 'gone' }).once(signal)).toBe('refused');
    expect((await world.onRecord()).map(({ status }) => status)).toEqual([
      'live',
      'refused',
      'live',
      'refused',
      'refused',
    ]);
  });

  // It stayed the newest record until the next push, and `doctor` said for days that a revision was refused.
  it('have as their newest record what holds, once a hiccup of the Git host is over', async () => {
    const { signal } = new AbortController();
    const hiccup = async () => {
      await rename(world.repository.path, `${world.repository.path}.away`);
      await expect(world.sync().once(signal)).rejects.toMatchObject({ code: 'tools.git_failed' });
      await rename(`${world.repository.path}.away`, world.repository.path);
      expect((await world.onRecord()).at(-1)).toMatchObject({ status: 'refused', isTransient: true });
    };
    const good = await world.repository.push(tool('one'));
    await world.sync().once(signal);
    await hiccup();
    expect(await world.sync().once(signal)).toBe('live');
    expect((await world.onRecord()).at(-1)).toMatchObject({ status: 'live', commit: { id: good } });
    const bad = await world.repository.push({ 'tools/index.ts': 'broken(' });
    await world.sync().once(signal);
    await hiccup();
    expect(await world.sync().once(signal)).toBe('refused');
    expect((await world.onRecord()).at(-1)).toMatchObject({ status: 'refused', commit: { id: bad } });
    await world.sync().once(signal);
    expect(await world.onRecord()).toHaveLength(6);
  });

  it('are tried again when the npm registry was away, with the commit on record', async () => {
    const { signal } = new AbortController();
    const states: string[] = [];
    const report: CommitStatuses['report'] = (_commit, { state }) => void states.push(state);
    const id = await world.repository.push(tool('one'));
    const away = () => Promise.reject(new MillraceError('transient', 'tools.install_failed', 'npm ci: 503'));
    for (const _ of [1, 2])
      await expect(world.sync({ install: away, report }).once(signal)).rejects.toThrow('npm ci: 503');
    expect(await world.record(1)).toMatchObject({ status: 'refused', isTransient: true, commit: { id } });
    expect(await world.sync({ report }).once(signal)).toBe('live');
    expect(states).toEqual(['pending', 'error', 'pending', 'error', 'pending', 'success']);
  });

  it('are built again where their bundle is gone, or was made in another way', async () => {
    const { signal } = new AbortController();
    await world.repository.push(tool('one'));
    let builds = 0;
    const look = () => void builds++;
    await world.sync({ look }).once(signal);
    await world.sync({ look }).once(signal);
    expect(builds).toBe(1);
    const { bundle } = await world.record(1);
    const stream = world.store.stream(bundle!.stream);
    await stream.trim(await stream.tail());
    await world.sync({ look }).once(signal);
    expect(builds).toBe(2);
    await using daemon = world.start({ look, builder: 'of another release' });
    expect((await daemon.live()).bundle.code).toContain('one');
    await expect.poll(() => builds, { timeout: 15_000 }).toBe(3);
  });

  it('reach every runner on the stream, in the same order, with the latest first for one that begins', async () => {
    await using daemon = world.start();
    const abort = new AbortController();
    const other = world.published();
    const seen = new Map<unknown, string[]>([
      [daemon.tools, []],
      [other, []],
    ]);
    for (const [tools, revisions] of seen as Map<typeof other, string[]>)
      tools.onLive(({ revision }) => revisions.push(revision));
    const running = other.run(abort.signal);
    for (const answer of ['one', 'two', 'three']) {
      await world.repository.push(tool(answer));
      await world.ask('sync');
      await expect.poll(() => other.current()?.bundle.code ?? '', { timeout: 15_000 }).toContain(answer);
    }
    const [first, second] = [...seen.values()];
    expect(first).toHaveLength(3);
    await expect.poll(() => second).toEqual(first);
    const late = world.published();
    const swaps: string[] = [];
    late.onLive(({ revision }) => swaps.push(revision));
    const alsoRunning = late.run(abort.signal);
    expect((await late.upToDate(abort.signal)).bundle.code).toContain('three');
    expect(swaps).toHaveLength(1);
    abort.abort();
    await Promise.all([running, alsoRunning]);
  });
});
