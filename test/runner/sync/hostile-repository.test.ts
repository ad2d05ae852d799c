/** Repositories that would take this machine: its disk, its memory, its files, or the name of a branch. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createBareRepository } from './bare-repository.ts';
import { tool, useSyncWorld } from './sync-world.ts';

const world = useSyncWorld();

/** Of all files in a folder, as far as they are still there. */
async function bytesIn(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  const sizes = entries.map((entry) =>
    stat(join(entry.parentPath, entry.name)).then(
      ({ size }) => (entry.isFile() ? size : 0),
      () => 0,
    ),
  );
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

describe('tools of a repository that nobody knows', () => {
  it('refuse links out of the tree, and follow those inside of it', async () => {
    await writeFile(join(world.root, 'secret.ts'), 'export const secret = "of the host";');
    const inside = {
      'lib/answer.ts': 'export const answer = "linked";',
      'tools/answer.ts': { link: '../lib/answer.ts' },
      'tools/index.ts': `import { answer } from './answer.ts'; export const echo = () => answer;`,
      'tools/nowhere': { link: 'not-there' },
    };
    await world.repository.push(inside);
    await using daemon = world.start();
    expect((await daemon.live()).bundle.code).toContain('linked');
    await world.repository.push({ ...inside, 'tools/out.ts': { link: join(world.root, 'secret.ts') } });
    await world.ask('sync');
    expect((await world.record(2)).error).toContain('tools/out.ts is a symbolic link out of the repository');
    await world.repository.push({ tools: { link: world.root }, other: 'x' });
    await world.ask('sync');
    expect((await world.record(3)).error).toContain('tools is a symbolic link out of the repository');
    expect(readdirSync(world.checkouts)).toEqual([]);
  });

  it('bring no submodule along', async () => {
    await using other = await createBareRepository();
    await other.push(tool('of the submodule'));
    await world.repository.push(tool('one'));
    await world.repository.author(
      '-c',
      'protocol.file.allow=always',
      'submodule',
      '--quiet',
      'add',
      other.path,
      'sub',
    );
    await world.repository.author('commit', '--quiet', '--message=submodule');
    await world.repository.author('push', '--quiet', world.repository.path, 'HEAD:main');
    let submodule: string[] | undefined;
    await using daemon = world.start({
      look: ({ root: files }) => (submodule = readdirSync(join(files!, 'sub'))),
    });
    await daemon.live();
    expect(submodule).toEqual([]);
  });

  it.each([
    ['to fetch', { 'tools/noise.bin': randomBytes(3_000_000) }],
    ['to unpack', { 'tools/zeros.bin': Buffer.alloc(3_000_000) }],
  ])('refuse a repository that is too large %s, and leave nothing of it', async (_, files) => {
    await world.repository.push(tool('one'));
    await using daemon = world.start({ maxBytes: 1_000_000 });
    await daemon.live();
    await world.repository.push({ ...tool('two'), ...files });
    await world.ask('sync');
    expect((await world.record(2)).error).toMatch(/more than 1000000 bytes|unpacks to 30000\d\d bytes/);
    expect(readdirSync(world.checkouts)).toEqual([]);
  });

  it('end the fetch of a huge repository while it runs', async () => {
    const bytes = 16_000_000;
    await world.repository.push(tool('one'));
    await world.repository.author('config', 'core.compression', '0');
    await world.repository.push({ ...tool('two'), 'noise.bin': randomBytes(bytes) });
    await using daemon = world.start({ maxBytes: 1_000_000 });
    let peak = 0;
    const refused = async (): Promise<boolean> => {
      peak = Math.max(peak, await bytesIn(world.checkouts));
      return (await world.onRecord()).length > 0;
    };
    await expect.poll(refused, { timeout: 15_000, interval: 5 }).toBe(true);
    expect((await world.record(1)).error).toContain('more than 1000000 bytes');
    expect(peak).toBeLessThan(bytes);
    expect(daemon.tools.current()).toBeUndefined();
  });

  it('run no hook and no filter that came with the repository', async () => {
    await world.repository.push({
      ...tool('one'),
      '.gitattributes': '* filter=evil',
      '.gitconfig': `[filter "evil"]\n\tsmudge = touch ${join(world.root, 'ran')}`,
      'hooks/post-checkout': `#!/bin/sh\ntouch ${join(world.root, 'ran')}`,
    });
    await using daemon = world.start();
    await daemon.live();
    expect(existsSync(join(world.root, 'ran'))).toBe(false);
  });

  it('take the branch of the very name, whatever other branches are called', async () => {
    const id = await world.repository.push(tool('one'));
    await world.repository.push(tool('evil'), { branch: 'a/refs/heads/main' });
    await world.repository.git('update-ref', 'refs/heads/x/HEAD', 'refs/heads/a/refs/heads/main');
    for (const branch of [null, 'main']) {
      expect(await world.sync({ branch }).once(new AbortController().signal)).toBe('live');
      expect((await world.record(1)).commit?.id).toBe(id);
    }
  });

  it('refuse a small tree that names itself for ever, and one of too many files', async () => {
    await world.repository.push(tool('one'));
    await using daemon = world.start();
    const live = await daemon.live();
    await pushTree(await nestedTree(12));
    await world.ask('sync');
    expect((await world.record(2)).error).toBe('the repository has more than 20000 files');
    await pushTree(await wideTree(20_001));
    await world.ask('sync');
    expect((await world.record(3)).error).toBe('the repository has more than 20000 files');
    expect(daemon.tools.current()).toBe(live);
    expect(readdirSync(world.checkouts)).toEqual([]);
  });

  // All of it is the subject: 300 MB of one line came in a repository of 1.5 MB, and were held in memory.
  it('refuse a commit whose message is huge', async () => {
    await world.repository.push(tool('one'));
    const tree = await world.repository.git('rev-parse', 'main^{tree}');
    const commit = `tree ${tree}\nauthor a <a> 0 +0000\ncommitter a <a> 0 +0000\n\n${'x'.repeat(1_000_001)}\n`;
    await world.repository.git('update-ref', 'refs/heads/main', await gitObject('commit', commit));
    expect(await world.sync().once(new AbortController().signal)).toBe('refused');
    expect((await world.record(1)).error).toBe('the commit has a message of more than 1000000 bytes');
  });

  it('leave the pointers of large files as they are', async () => {
    const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 12345\n`;
    await world.repository.push({
      ...tool('one'),
      '.gitattributes': '*.bin filter=lfs diff=lfs merge=lfs -text',
      'tools/model.bin': pointer,
    });
    let seen: string | undefined;
    await using daemon = world.start({
      look: ({ directory }) => (seen = readFileSync(join(directory, 'model.bin'), 'utf8')),
    });
    await daemon.live();
    expect(seen).toBe(pointer);
  });
});

/** Ten entries a level, all of them the same tree: 10^levels files in a few hundred bytes. */
async function nestedTree(levels: number): Promise<string> {
  let entry = `100644 blob ${await gitObject('blob', 'x')}`;
  for (let level = 0; level < levels; level++) {
    const lines = Array.from({ length: 10 }, (_, index) => `${entry}\t${index}`);
    entry = `040000 tree ${await gitObject('tree', `${lines.join('\n')}\n`)}`;
  }
  return entry.split(' ').at(-1)!;
}

async function wideTree(files: number): Promise<string> {
  const blob = await gitObject('blob', 'x');
  const lines = Array.from({ length: files }, (_, index) => `100644 blob ${blob}\t${index}`);
  return gitObject('tree', `${lines.join('\n')}\n`);
}

/** Writes an object into the bare repository; its id. */
async function gitObject(type: 'blob' | 'commit' | 'tree', text: string): Promise<string> {
  const args = type === 'tree' ? ['mktree'] : ['hash-object', '-w', '-t', type, '--stdin'];
  const child = spawn('git', ['-C', world.repository.path, ...args]);
  child.stdin.end(text);
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(child, 'close');
  return Buffer.concat(chunks).toString().trim();
}

async function pushTree(tree: string): Promise<void> {
  await world.repository.git(
    'update-ref',
    'refs/heads/main',
    await world.repository.git('commit-tree', tree, '-m', 'tree'),
  );
}
