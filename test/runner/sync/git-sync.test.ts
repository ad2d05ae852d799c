/** Tools from a real bare repository: built beside the live ones, swapped when good, kept when not. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../../src/platform/clock.ts';
import { createLog } from '../../../src/platform/log.ts';
import { bundleTools } from '../../../src/runner/bundle.ts';
import { createGitRepository } from '../../../src/runner/sync/git-checkout.ts';
import type { GitRepositoryOptions } from '../../../src/runner/sync/git-checkout.ts';
import { createPublishedTools } from '../../../src/runner/published-tools.ts';
import { createSandboxPool } from '../../../src/runner/sandbox/pool.ts';
import type { SandboxPool } from '../../../src/runner/sandbox/sandbox.ts';
import { createToolRecords } from '../../../src/runner/tool-records.ts';
import type { ToolFiles } from '../../../src/runner/tool-set.ts';
import type { CommitStatuses } from '../../../src/runner/sync/commit-statuses.ts';
import { createGitSync } from '../../../src/runner/sync/git-sync.ts';
import { createPublisher } from '../../../src/runner/sync/publisher.ts';
import { openLocalStore } from '../../../src/streams/local-store.ts';
import { jsonRecord, parseJsonRecord, streamNames, toolsStreamSchema } from '../../../src/streams/records.ts';
import type { ToolsRecord, ToolsRequest } from '../../../src/streams/records.ts';
import type { StreamStore } from '../../../src/streams/stream-store.ts';
import { createBareRepository } from './bare-repository.ts';
import type { BareRepository } from './bare-repository.ts';

const log = createLog('silent');
const environment = { PATH: process.env['PATH']! };
let pool: SandboxPool;
let root: string;
let repository: BareRepository;
let store: StreamStore;

beforeAll(() => {
  pool = createSandboxPool({ clock, log }, { minChildren: 1, maxChildren: 2 });
});
afterAll(() => pool.close());

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'millrace-git-source-'));
  repository = await createBareRepository();
  store = await openLocalStore(
    { clock, log },
    { directory: join(root, 'data'), retentionFor: () => 'forever' },
  );
});
afterEach(async () => {
  await store.close();
  await repository[Symbol.asyncDispose]();
  await rm(root, { recursive: true });
});

const tool = (answer: string) => ({ 'tools/index.ts': `export const echo = () => '${answer}';` });
const checkouts = () => join(root, 'checkouts');

const statuses: CommitStatuses = { report: () => {}, settled: () => Promise.resolve() };

interface SyncOptions extends Partial<GitRepositoryOptions> {
  /** Sees the files of a commit before they are built. */
  look?: (files: ToolFiles) => void;
  builder?: string;
}

function sync({ look, builder = 'test', ...options }: SyncOptions = {}) {
  const records = createToolRecords({ store, clock, log });
  const build = (files: ToolFiles) => {
    look?.(files);
    return bundleTools({ ...files, pool });
  };
  const git = { url: repository.path, branch: null, token: null, environment, ...options };
  return createGitSync(
    {
      store,
      clock,
      log,
      repository: createGitRepository({ clock }, git),
      install: () => Promise.resolve(),
      publisher: createPublisher({ store, records, log, build, builder }),
      statuses,
    },
    { directory: checkouts(), path: 'tools', intervalMs: 3_600_000 },
  );
}

/** A daemon's part: looks once at the start, and from then on when it is asked; and a runner beside it. */
function start(options: SyncOptions = {}) {
  const abort = new AbortController();
  const tools = createPublishedTools({ store, clock, log });
  const running = [tools.run(abort.signal), sync(options).run(abort.signal)];
  for (const service of running) service.catch(() => {});
  return {
    tools,
    live: () => tools.live(abort.signal),
    async [Symbol.asyncDispose]() {
      abort.abort();
      await Promise.all(running);
    },
  };
}

async function ask(action: ToolsRequest['action'], commit: string | null = null): Promise<void> {
  const request: ToolsRequest = { kind: 'tools-request', version: 1, action, commit, at: '' };
  await store.stream(streamNames.tools).append([jsonRecord(request)]);
}

async function onRecord(): Promise<ToolsRecord[]> {
  const { records } = await store.stream(streamNames.tools).read({ fromSeqNum: 0 });
  return records
    .map((stored) => parseJsonRecord(toolsStreamSchema, stored))
    .filter((stored) => stored.kind === 'tools');
}

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

/** The newest record, once there are so many. */
async function record(count: number): Promise<ToolsRecord> {
  await expect.poll(async () => (await onRecord()).length, { timeout: 15_000 }).toBeGreaterThanOrEqual(count);
  const records = await onRecord();
  expect(records).toHaveLength(count);
  return records.at(-1)!;
}

describe('tools from Git', () => {
  it('go live with their commit on record, and again after a push', async () => {
    const id = await repository.push(tool('one'), { message: 'first\n\nand more' });
    await using daemon = start();
    const { revision } = await daemon.live();
    expect(await record(1)).toMatchObject({
      status: 'live',
      revision,
      inboxes: ['echo'],
      commit: { id, subject: 'first' },
    });
    const next = await repository.push(tool('two'));
    await ask('sync');
    expect(await record(2)).toMatchObject({ status: 'live', commit: { id: next } });
    await expect.poll(() => daemon.tools.current()?.revision).not.toBe(revision);
  });

  it('keep the live revision when a push is broken, and say why, once', async () => {
    await repository.push(tool('one'));
    await using daemon = start();
    const live = await daemon.live();
    const id = await repository.push({ 'tools/index.ts': 'export const echo = () => (' });
    await ask('sync');
    const refusal = await record(2);
    expect(refusal).toMatchObject({ status: 'refused', commit: { id } });
    expect(refusal.error).toMatch(/index\.ts:1:28: Unexpected end of file/);
    await ask('sync');
    await repository.push(tool('three'));
    await ask('sync');
    expect(await record(3)).toMatchObject({ status: 'live' });
    expect(live.bundle.code).toContain('one');
  });

  it('follow a branch that was overwritten, and one of another name', async () => {
    await repository.push(tool('one'));
    await repository.push(tool('two'));
    await using daemon = start();
    await daemon.live();
    const forced = await repository.push(tool('three'), { force: true });
    await ask('sync');
    expect(await record(2)).toMatchObject({ status: 'live', commit: { id: forced } });
    const renamed = await repository.push(tool('four'), { branch: 'trunk' });
    await repository.git('symbolic-ref', 'HEAD', 'refs/heads/trunk');
    await repository.git('branch', '-D', 'main');
    await ask('sync');
    expect(await record(3)).toMatchObject({ status: 'live', commit: { id: renamed } });
  });

  it('stay when their branch is deleted, and say so', async () => {
    await repository.push(tool('one'), { branch: 'live' });
    await using daemon = start({ branch: 'live' });
    const live = await daemon.live();
    await repository.git('branch', '-D', 'live');
    await ask('sync');
    const refusal = await record(2);
    expect(refusal).toMatchObject({ status: 'refused' });
    expect(refusal.error).toContain('there is no live');
    expect(daemon.tools.current()).toBe(live);
  });

  it('stay when the Git host is away, and at a start too', async () => {
    const id = await repository.push(tool('one'));
    {
      await using daemon = start();
      await daemon.live();
      await rename(repository.path, `${repository.path}.away`);
      await ask('sync');
      expect((await record(2)).error).toContain('git: ');
    }
    await using daemon = start();
    expect((await daemon.live()).bundle.code).toContain('one');
    expect((await onRecord()).filter(({ status }) => status === 'live').at(-1)?.commit?.id).toBe(id);
  });

  it('are live at a start before a Git host that hangs is given up', async () => {
    await repository.push(tool('one'));
    {
      await using daemon = start();
      await daemon.live();
    }
    const silent = createServer(() => {}).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    try {
      const { port } = silent.address() as AddressInfo;
      await using daemon = start({ url: `http://127.0.0.1:${port}/tools.git` });
      expect((await daemon.live()).bundle.code).toContain('one');
    } finally {
      silent.closeAllConnections();
      silent.close();
    }
  });

  it('come back from what was live where this disk is new and the branch is broken', async () => {
    await repository.push(tool('one'));
    {
      await using daemon = start();
      await daemon.live();
    }
    await rm(checkouts(), { recursive: true });
    await repository.push({ 'tools/index.ts': 'broken(' });
    await using daemon = start();
    expect((await daemon.live()).bundle.code).toContain('one');
  });

  it('stay with a pinned commit, on disk or not, until it is unpinned', async () => {
    const first = await repository.push(tool('one'));
    const second = await repository.push(tool('two'));
    await using daemon = start();
    await daemon.live();
    await ask('pin', first);
    expect(await record(2)).toMatchObject({ status: 'live', commit: { id: first } });
    await repository.push(tool('three'));
    await rename(repository.path, `${repository.path}.away`);
    await ask('pin', second);
    expect(await record(3)).toMatchObject({ status: 'live', commit: { id: second } });
    await rename(`${repository.path}.away`, repository.path);
    await ask('unpin');
    expect(await record(4)).toMatchObject({ status: 'live' });
    expect(daemon.tools.current()?.bundle.code).toContain('three');
  });

  it('refuse links out of the tree, and follow those inside of it', async () => {
    await writeFile(join(root, 'secret.ts'), 'export const secret = "of the host";');
    const inside = {
      'lib/answer.ts': 'export const answer = "linked";',
      'tools/answer.ts': { link: '../lib/answer.ts' },
      'tools/index.ts': `import { answer } from './answer.ts'; export const echo = () => answer;`,
      'tools/nowhere': { link: 'not-there' },
    };
    await repository.push(inside);
    await using daemon = start();
    expect((await daemon.live()).bundle.code).toContain('linked');
    await repository.push({ ...inside, 'tools/out.ts': { link: join(root, 'secret.ts') } });
    await ask('sync');
    expect((await record(2)).error).toContain('tools/out.ts is a symbolic link out of the repository');
    await repository.push({ tools: { link: root }, other: 'x' });
    await ask('sync');
    expect((await record(3)).error).toContain('tools is a symbolic link out of the repository');
    expect(readdirSync(checkouts())).toEqual([]);
  });

  it('bring no submodule along', async () => {
    await using other = await createBareRepository();
    await other.push(tool('of the submodule'));
    await repository.push(tool('one'));
    await repository.author(
      '-c',
      'protocol.file.allow=always',
      'submodule',
      '--quiet',
      'add',
      other.path,
      'sub',
    );
    await repository.author('commit', '--quiet', '--message=submodule');
    await repository.author('push', '--quiet', repository.path, 'HEAD:main');
    let submodule: string[] | undefined;
    await using daemon = start({ look: ({ root: files }) => (submodule = readdirSync(join(files!, 'sub'))) });
    await daemon.live();
    expect(submodule).toEqual([]);
  });

  it.each([
    ['to fetch', { 'tools/noise.bin': randomBytes(3_000_000) }],
    ['to unpack', { 'tools/zeros.bin': Buffer.alloc(3_000_000) }],
  ])('refuse a repository that is too large %s, and leave nothing of it', async (_, files) => {
    await repository.push(tool('one'));
    await using daemon = start({ maxBytes: 1_000_000 });
    await daemon.live();
    await repository.push({ ...tool('two'), ...files });
    await ask('sync');
    expect((await record(2)).error).toMatch(/more than 1000000 bytes|unpacks to 30000\d\d bytes/);
    expect(readdirSync(checkouts())).toEqual([]);
  });

  it('end the fetch of a huge repository while it runs', async () => {
    const bytes = 16_000_000;
    await repository.push(tool('one'));
    await repository.author('config', 'core.compression', '0');
    await repository.push({ ...tool('two'), 'noise.bin': randomBytes(bytes) });
    await using daemon = start({ maxBytes: 1_000_000 });
    let peak = 0;
    const refused = async (): Promise<boolean> => {
      peak = Math.max(peak, await bytesIn(checkouts()));
      return (await onRecord()).length > 0;
    };
    await expect.poll(refused, { timeout: 15_000, interval: 5 }).toBe(true);
    expect((await record(1)).error).toContain('more than 1000000 bytes');
    expect(peak).toBeLessThan(bytes);
    expect(daemon.tools.current()).toBeUndefined();
  });

  it('run no hook and no filter that came with the repository', async () => {
    await repository.push({
      ...tool('one'),
      '.gitattributes': '* filter=evil',
      '.gitconfig': `[filter "evil"]\n\tsmudge = touch ${join(root, 'ran')}`,
      'hooks/post-checkout': `#!/bin/sh\ntouch ${join(root, 'ran')}`,
    });
    await using daemon = start();
    await daemon.live();
    expect(existsSync(join(root, 'ran'))).toBe(false);
  });
});
