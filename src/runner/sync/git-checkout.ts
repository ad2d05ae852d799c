/**
 * One Git repository, as the tools need it: which commit a branch stands at, and the files of a commit.
 *
 * Each commit is fetched alone, shallow, into a folder of its own, so that no push, however forced, meets what
 * an earlier one left. Nothing of the repository runs: no hooks, no filters, no submodules, no configuration
 * of this machine. Sizes are limited twice: what comes over the network while it comes, and what it would
 * unpack to before it is; what Git prints is limited, too, because a small tree can name itself a billion times.
 * A symbolic link out of the tree refuses the commit. Where the process is busy, each wait costs a turn of its loop, and
 * a push is to be live soon: what is small is written and removed without one, and commands run at once where they can. The token reaches Git in an environment variable:
 * neither the command line nor a message holds it.
 */
import { mkdirSync, readdirSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { simpleGit } from 'simple-git';
import type { SimpleGit } from 'simple-git';
import type { Clock } from '../../platform/clock.ts';
import { createDeadline } from '../../platform/deadline.ts';
import { errorMessage, MillraceError } from '../../platform/errors.ts';
import type { Commit } from '../tool-set.ts';
import { sshAccess } from './ssh-access.ts';
import type { SshOptions } from './ssh-access.ts';

export interface GitRepository {
  /**
   * The id of the commit that the branch stands at.
   * @throws MillraceError `tools.git_failed` (transient), `tools.branch_missing` (invalid)
   */
  head(signal: AbortSignal): Promise<string>;
  /**
   * Puts the files of a commit into a folder that is not there yet; what fails leaves none.
   * @throws MillraceError `tools.git_failed` (transient), `tools.repository_refused` (invalid)
   */
  checkout(id: string, directory: string, signal: AbortSignal): Promise<Commit>;
}

export interface GitRepositoryOptions {
  url: string;
  /** Null: the one that the repository itself calls its default. */
  branch: string | null;
  token: string | null;
  ssh?: SshOptions;
  /** What Git is given of our environment. */
  environment: Readonly<Record<string, string>>;
  /** Of what is fetched, and of the files that it unpacks to. Default 200 MB. */
  maxBytes?: number;
  /** Of one command. Default 2 min. */
  timeoutMs?: number;
}

const DEFAULT_MAX_BYTES = 200_000_000;
const DEFAULT_TIMEOUT_MS = 120_000;
const MAX_FILES = 20_000;
/** Its message, and who wrote it: all of it may be the subject. */
const MAX_COMMIT_BYTES = 1_000_000;
const MAX_SUBJECT_CHARS = 200;
const SIZE_CHECK_MS = 50;
/** Of one command: room for the longest list of files that is taken. */
const MAX_OUTPUT_BYTES = 20_000_000;
const COMMIT_ID = /^[0-9a-f]{40,64}$/;

/** Fixed for every command; all of them are named to simple-git, which refuses what it is not told of. */
const GIT_ENVIRONMENT = {
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: fileURLToPath(new URL('tools.gitconfig', import.meta.url)),
  GIT_TERMINAL_PROMPT: '0',
  GIT_ALLOW_PROTOCOL: 'https:http:ssh:git:file',
};

const GIT_SETTINGS: [string, string][] = [
  // What comes is written to a file as it comes, where its size is seen; and not held in memory.
  ['fetch.unpackLimit', '1'],
  // A repository that lives for a second needs no upkeep and need not survive a power failure.
  ['maintenance.auto', 'false'],
  ['core.fsync', 'none'],
];

export function createGitRepository(deps: { clock: Clock }, options: GitRepositoryOptions): GitRepository {
  const { clock } = deps;
  const { url, maxBytes = DEFAULT_MAX_BYTES, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  const ref = options.branch === null ? 'HEAD' : `refs/heads/${options.branch}`;

  /** Git in a folder, for as long as the work lasts; what Git says went wrong may pass. */
  async function withGit<T>(signal: AbortSignal, work: (git: LimitedGit) => Promise<T>): Promise<T> {
    const exceeded = new AbortController();
    using deadline = createDeadline(clock, timeoutMs, signal, exceeded.signal);
    try {
      using access = sshAccess(options.ssh);
      const environment = {
        ...options.environment,
        ...GIT_ENVIRONMENT,
        GIT_SSH_COMMAND: access.command,
        ...configuration(options),
      };
      const gitAt = (directory: string): SimpleGit => gitIn(directory, environment, deadline.signal);
      return await work({ gitAt, exceeded });
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof MillraceError) throw error;
      const isLate = deadline.signal.aborted && !exceeded.signal.aborted;
      const what = isLate ? `no end within ${timeoutMs} ms` : errorMessage(error).trim();
      throw new MillraceError('transient', 'tools.git_failed', `git: ${what}`, {
        cause: error,
        hint: 'What was live stays live, and it is tried again. If it lasts: TOOLS_REPO, GITHUB_PAT or TOOLS_SSH_KEY, the Git host.',
      });
    }
  }

  /** Fetches into a fresh repository; ends it as soon as it has become too large. */
  async function fetchWithin({ gitAt, exceeded }: LimitedGit, directory: string, id: string): Promise<void> {
    const git = gitAt(directory);
    const ended = new AbortController();
    const exceed = (): void => exceeded.abort();
    const watching = watchSize(clock, { directory, maxBytes, exceeded: exceed }, ended.signal);
    try {
      makeRepository(directory);
      await git.raw(['fetch', '--quiet', '--depth=1', '--no-tags', '--no-recurse-submodules', url, id]);
    } catch (error) {
      if (!exceeded.signal.aborted) throw error;
    } finally {
      ended.abort();
      await watching;
    }
    if (sizeOf(directory) <= maxBytes && !exceeded.signal.aborted) return;
    throw refused(`the repository has more than ${maxBytes} bytes`, 'Keep only the tools in it.');
  }

  async function fetchCommit(limited: LimitedGit, directory: string, id: string): Promise<Commit> {
    await fetchWithin(limited, directory, id);
    const git = limited.gitAt(directory);
    const [listed, commitBytes] = await Promise.all([
      listing(limited, directory, id),
      git.raw(['cat-file', '-s', id]),
    ]);
    const links = linksOf(listed, { maxBytes });
    if (Number(commitBytes) > MAX_COMMIT_BYTES)
      throw refused(
        `the commit has a message of more than ${MAX_COMMIT_BYTES} bytes`,
        'Shorten the message.',
      );
    const [subject] = await Promise.all([
      git.raw(['log', '-1', '--format=%s', id]),
      git.raw(['checkout', '--quiet', '--detach', '--no-recurse-submodules', id]),
    ]);
    rmTree(join(directory, '.git'));
    assertLinksInside(directory, links);
    return { id, subject: subject.trim().slice(0, MAX_SUBJECT_CHARS) };
  }

  return {
    head: (signal) =>
      withGit(signal, async ({ gitAt, exceeded }) => {
        const refs = await withLimit(gitAt('/'), exceeded).raw(['ls-remote', url, ref]);
        const id = commitOf(ref, refs);
        if (id !== null) return id;
        const what = options.branch === null ? 'the repository is empty' : `there is no ${options.branch}`;
        throw new MillraceError('invalid', 'tools.branch_missing', `${what} at ${url}`, {
          hint: 'Push the branch, or set TOOLS_BRANCH to one that is there. What was live stays live.',
        });
      }),
    async checkout(id, directory, signal) {
      mkdirSync(directory);
      try {
        return await withGit(signal, (limited) => fetchCommit(limited, directory, id));
      } catch (error) {
        rmTree(directory);
        throw error;
      }
    },
  };
}

interface LimitedGit {
  readonly gitAt: (directory: string) => SimpleGit;
  /** To be aborted where a limit is passed: ends all commands. */
  readonly exceeded: AbortController;
}

function gitIn(directory: string, environment: Record<string, string>, abort: AbortSignal): SimpleGit {
  return simpleGit({
    baseDir: directory,
    abort,
    // Its own guard is for arguments that others choose; these are all ours.
    allowEnvironment: Object.keys(environment),
    unsafe: {
      allowUnsafeConfigPaths: true,
      allowUnsafeConfigEnvCount: true,
      allowUnsafeTemplateDir: true,
      allowUnsafeSshCommand: true,
    },
  }).env(environment);
}

/**
 * Over what `.gitattributes` of the repository says: files are what the commit holds, byte for byte. Another encoding
 * or line end makes them several times as large as the tree says, and others than those that were reviewed.
 */
const ATTRIBUTES = '* -text !working-tree-encoding -ident -filter\n';

/** As `git init` would, without a process for it. */
function makeRepository(directory: string): void {
  const git = join(directory, '.git');
  for (const folder of ['info', 'objects', 'refs']) mkdirSync(join(git, folder), { recursive: true });
  writeFileSync(join(git, 'HEAD'), 'ref: refs/heads/main\n');
  writeFileSync(join(git, 'config'), '[core]\n\trepositoryformatversion = 0\n\tbare = false\n');
  writeFileSync(join(git, 'info', 'attributes'), ATTRIBUTES);
}

/** Ends a command that prints more than any list that is taken. */
function withLimit(git: SimpleGit, exceeded: AbortController): SimpleGit {
  return git.outputHandler((_command, stdout) => {
    let bytes = 0;
    stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_OUTPUT_BYTES) exceeded.abort();
    });
  });
}

async function listing({ gitAt, exceeded }: LimitedGit, directory: string, id: string): Promise<string> {
  const git = withLimit(gitAt(directory), exceeded);
  try {
    return await git.raw(['ls-tree', '-r', '-l', '-z', '--full-tree', id]);
  } catch (error) {
    if (exceeded.signal.aborted) throw tooManyFiles();
    throw error;
  }
}

/** `ls-remote` takes a name for the end of one: `refs/heads/main` finds `refs/heads/x/refs/heads/main`, too. */
function commitOf(ref: string, refs: string): string | null {
  const named = refs.split('\n').map((line) => line.split('\t'));
  const id = named.find(([, name]) => name === ref)?.[0] ?? '';
  return COMMIT_ID.test(id) ? id : null;
}

/** What Git is told beyond its defaults. It stands in the environment, where no command line shows it. */
function configuration(options: GitRepositoryOptions): Record<string, string> {
  const settings = [...GIT_SETTINGS, ...authorization(options)];
  return Object.fromEntries([
    ['GIT_CONFIG_COUNT', String(settings.length)],
    ...settings.flatMap(([key, value], index) => [
      [`GIT_CONFIG_KEY_${index}`, key],
      [`GIT_CONFIG_VALUE_${index}`, value],
    ]),
  ]) as Record<string, string>;
}

/** The token as a header, for this host alone, over https or on this machine. */
function authorization({ url, token }: GitRepositoryOptions): [string, string][] {
  const origin = URL.canParse(url) ? new URL(url) : null;
  const isProtected =
    origin?.protocol === 'https:' || /^http:\/\/(?:127\.|localhost)/.test(origin?.href ?? '');
  if (token === null || !origin || !isProtected) return [];
  const credentials = Buffer.from(`x-access-token:${token}`).toString('base64');
  return [[`http.${origin.origin}/.extraHeader`, `Authorization: Basic ${credentials}`]];
}

/** Looks at the size of a folder until the signal is aborted, or once it was exceeded. */
async function watchSize(
  clock: Clock,
  options: { directory: string; maxBytes: number; exceeded: () => void },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    if (sizeOf(options.directory) > options.maxBytes) return options.exceeded();
    await clock.sleep(SIZE_CHECK_MS, signal).catch(() => {});
  }
}

function sizeOf(directory: string): number {
  let bytes = 0;
  try {
    for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
      if (entry.isFile())
        bytes += statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false })?.size ?? 0;
    }
  } catch {
    // A folder that Git removed meanwhile: the next look sees what is there.
  }
  return bytes;
}

/**
 * The symbolic links of a tree, as `git ls-tree -r -l -z` lists it.
 * @throws MillraceError `tools.repository_refused` if its files are too many or too large
 */
function linksOf(listed: string, limits: { maxBytes: number }): string[] {
  const entries = listed.split('\0').filter((line) => line !== '');
  if (entries.length > MAX_FILES) throw tooManyFiles();
  let bytes = 0;
  const links: string[] = [];
  for (const entry of entries) {
    const [, mode = '', size = '', path = ''] = /^(\d+) \S+ \S+ +(\S+)\t([^]*)$/.exec(entry) ?? [];
    bytes += Number.parseInt(size, 10) || 0;
    if (mode === '120000') links.push(path);
  }
  if (bytes > limits.maxBytes) {
    throw refused(
      `the repository unpacks to ${bytes} bytes; at most ${limits.maxBytes} are taken`,
      'Keep only the tools in it.',
    );
  }
  return links;
}

/** A link that leads nowhere is harmless; one that leads out would let tools read this machine. */
function assertLinksInside(directory: string, links: readonly string[]): void {
  const root = realpathSync(directory);
  for (const link of links) {
    let target: string;
    try {
      target = realpathSync(join(root, link));
    } catch {
      continue;
    }
    if (target !== root && !target.startsWith(root + sep))
      throw refused(`${link} is a symbolic link out of the repository`, 'Remove the link.');
  }
}

function tooManyFiles(): MillraceError {
  return refused(`the repository has more than ${MAX_FILES} files`, 'Keep only the tools in it.');
}

/** Git, just ended, may have written there meanwhile. */
function rmTree(directory: string): void {
  rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
}

function refused(message: string, hint: string): MillraceError {
  return new MillraceError('invalid', 'tools.repository_refused', message, { hint });
}
