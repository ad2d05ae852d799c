/**
 * A bare repository, a store, and the two that meet on it: a sync that publishes what the repository has, and a
 * runner's tools that take what is published.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { systemClock as clock } from '../../../src/platform/clock.ts';
import { createLog } from '../../../src/platform/log.ts';
import { bundleTools } from '../../../src/runner/bundle.ts';
import { createPublishedTools } from '../../../src/runner/published-tools.ts';
import { createSandboxPool } from '../../../src/runner/sandbox/pool.ts';
import type { SandboxPool } from '../../../src/runner/sandbox/sandbox.ts';
import type { CommitStatuses } from '../../../src/runner/sync/commit-statuses.ts';
import { createGitRepository } from '../../../src/runner/sync/git-checkout.ts';
import type { GitRepositoryOptions } from '../../../src/runner/sync/git-checkout.ts';
import { createGitSync } from '../../../src/runner/sync/git-sync.ts';
import type { GitSync } from '../../../src/runner/sync/git-sync.ts';
import { sweepInstalls } from '../../../src/runner/sync/install-packages.ts';
import { createPublisher } from '../../../src/runner/sync/publisher.ts';
import { createToolRecords } from '../../../src/runner/tool-records.ts';
import type { ToolRevision } from '../../../src/runner/tool-revision.ts';
import type { ToolFiles, ToolSet } from '../../../src/runner/tool-set.ts';
import { openLocalStore } from '../../../src/streams/local-store.ts';
import { jsonRecord, parseJsonRecord, streamNames, toolsStreamSchema } from '../../../src/streams/records.ts';
import type { ToolsRecord, ToolsRequest } from '../../../src/streams/records.ts';
import type { StreamStore } from '../../../src/streams/stream-store.ts';
import { createBareRepository } from './bare-repository.ts';
import type { BareRepository } from './bare-repository.ts';

const log = createLog('silent');
const environment = { PATH: process.env['PATH']! };

export interface SyncOptions extends Partial<GitRepositoryOptions> {
  /** Sees the files of a commit before they are built. */
  look?: (files: ToolFiles) => void;
  builder?: string;
  /** Puts packages beside the tools; default: there are none. */
  install?: (root: string, path: string, signal: AbortSignal) => Promise<void>;
  /** What is reported of a commit. */
  report?: CommitStatuses['report'];
}

export interface RunningSync extends AsyncDisposable {
  readonly tools: ToolSet;
  live(): Promise<ToolRevision>;
}

/** The files of tools that answer with one word. */
export const tool = (answer: string) => ({ 'tools/index.ts': `export const echo = () => '${answer}';` });

export interface SyncWorld {
  /** A folder of this test. */
  readonly root: string;
  readonly repository: BareRepository;
  readonly store: StreamStore;
  readonly checkouts: string;
  sync(options?: SyncOptions): GitSync;
  /** A runner's part alone. */
  published(): ToolSet;
  /** A daemon's part: looks once at the start, and from then on when it is asked; and a runner beside it. */
  start(options?: SyncOptions): RunningSync;
  ask(action: ToolsRequest['action'], commit?: string | null): Promise<void>;
  onRecord(): Promise<ToolsRecord[]>;
  /** The newest record, once there are so many. */
  record(count: number): Promise<ToolsRecord>;
}

/** A fresh world for each test of the file. */
export function useSyncWorld(): SyncWorld {
  let pool: SandboxPool;
  let root: string;
  let repository: BareRepository;
  let store: StreamStore;

  beforeAll(() => {
    pool = createSandboxPool({ clock, log }, { minChildren: 1, maxChildren: 2 });
  });
  afterAll(() => pool.close());

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'millrace-git-sync-'));
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

  function sync({ look, builder = 'test', install, report, ...options }: SyncOptions = {}): GitSync {
    const records = createToolRecords({ store, clock, log });
    const build = (files: ToolFiles, signal: AbortSignal) => {
      look?.(files);
      return bundleTools({ ...files, clock, pool, signal });
    };
    const git = { url: repository.path, branch: null, token: null, environment, ...options };
    return createGitSync(
      {
        store,
        clock,
        log,
        repository: createGitRepository({ clock }, git),
        install: install ?? (() => Promise.resolve()),
        sweepInstalls: () => sweepInstalls(join(root, 'npm'), 1_000),
        publisher: createPublisher({ store, records, log, build, builder }),
        statuses: { report: report ?? (() => {}), settled: () => Promise.resolve() },
      },
      { directory: join(root, 'checkouts'), path: 'tools', intervalMs: 3_600_000 },
    );
  }

  async function onRecord(): Promise<ToolsRecord[]> {
    const { records } = await store.stream(streamNames.tools).read({ fromSeqNum: 0 });
    return records
      .map((stored) => parseJsonRecord(toolsStreamSchema, stored))
      .filter((stored) => stored.kind === 'tools');
  }

  return {
    get root() {
      return root;
    },
    get repository() {
      return repository;
    },
    get store() {
      return store;
    },
    get checkouts() {
      return join(root, 'checkouts');
    },
    sync,
    onRecord,
    published: () => createPublishedTools({ store, clock, log }),
    start(options = {}) {
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
    },
    async ask(action, commit = null) {
      const request: ToolsRequest = { kind: 'tools-request', version: 1, action, commit, at: '' };
      await store.stream(streamNames.tools).append([jsonRecord(request)]);
    },
    async record(count) {
      await expect
        .poll(async () => (await onRecord()).length, { timeout: 15_000 })
        .toBeGreaterThanOrEqual(count);
      const records = await onRecord();
      expect(records).toHaveLength(count);
      return records.at(-1)!;
    },
  };
}
