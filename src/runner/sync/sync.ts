/**
 * The role `sync`: from a branch of the tools' repository to a published revision. It holds the Git token, and
 * what a stranger's repository may do ends here: Git, npm, the bundler and the compiler run on its files, its
 * code in a sandbox alone. Runners see the result on the streams.
 */
import { createHash } from 'node:crypto';
import { join, resolve } from 'node:path';
import type { Clock } from '../../platform/clock.ts';
import { programEnvironment } from '../../platform/config.ts';
import type { Config, Secrets } from '../../platform/config.ts';
import type { Log } from '../../platform/log.ts';
import type { StreamStore } from '../../streams/stream-store.ts';
import { builder } from '../bundle.ts';
import type { SandboxPool } from '../sandbox/sandbox.ts';
import { createToolRecords } from '../tool-records.ts';
import { createCheckedBuild } from './checked-build.ts';
import { createCommitStatuses } from './commit-statuses.ts';
import type { CommitStatusOptions } from './commit-statuses.ts';
import { createGitRepository } from './git-checkout.ts';
import type { GitRepositoryOptions } from './git-checkout.ts';
import { createGitSync } from './git-sync.ts';
import type { GitSync } from './git-sync.ts';
import { createInstallPackages, sweepInstalls } from './install-packages.ts';
import { createPublisher } from './publisher.ts';

interface SyncDeps {
  clock: Clock;
  log: Log;
  pool: Pick<SandboxPool, 'inspect' | 'run' | 'start'>;
}

interface SyncOptions {
  repository: GitRepositoryOptions;
  statuses: CommitStatusOptions;
  /** Where checkouts lie while they are built. */
  directory: string;
  /** npm's cache and home. */
  npmDirectory: string;
  /** The folder of the tools inside of the repository, or the file. */
  path: string;
}

/** As the owner set it. Checkouts lie apart for each repository. */
export function syncOptions(config: Config, secrets: Secrets): SyncOptions {
  const { tools, dataDir, publicUrl, supervisor } = config;
  const { branch, path, sshKnownHosts, githubApiUrl } = tools;
  const url = tools.repo!;
  const token = secrets.githubPat?.reveal() ?? null;
  const own = (...names: string[]): string => join(resolve(dataDir), ...names);
  const ssh = {
    key: secrets.toolsSshKey?.reveal() ?? null,
    knownHosts: sshKnownHosts,
    directory: own('ssh'),
    memoryDirectory: supervisor.runtimeDir,
  };
  return {
    repository: { url, branch, token, ssh, environment: programEnvironment() },
    statuses: { repo: url, token, apiUrl: githubApiUrl, targetUrl: publicUrl },
    directory: own('tools', createHash('sha256').update(url).digest('hex').slice(0, 12)),
    npmDirectory: own('npm'),
    path,
  };
}

/** Works on a store of its turn: see `ownership.ts`. */
export function createSync(deps: SyncDeps, options: SyncOptions): (store: StreamStore) => GitSync {
  const { clock, log } = deps;
  const { repository, npmDirectory, directory, path } = options;
  const statuses = createCommitStatuses({ clock, log }, options.statuses);
  const install = createInstallPackages(
    { clock },
    { environment: repository.environment, cacheDirectory: npmDirectory },
  );
  const build = createCheckedBuild(deps);
  return (store) => {
    const records = createToolRecords({ store, clock, log });
    const publisher = createPublisher({ store, records, log, build, builder });
    const git = createGitRepository({ clock }, repository);
    return createGitSync(
      {
        store,
        clock,
        log,
        repository: git,
        install,
        sweepInstalls: () => sweepInstalls(npmDirectory),
        publisher,
        statuses,
      },
      { directory, path },
    );
  };
}
