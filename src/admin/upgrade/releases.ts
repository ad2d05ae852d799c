/**
 * The releases of this machine, side by side below one folder (`/opt/millrace`):
 *
 *   repository.git    a bare mirror of where they come from
 *   releases/ID/      a whole checkout with its packages; ID is the first 12 digits of the commit
 *   current           → releases/ID, the one that runs; replaced by renaming, so there always is one
 *   previous          → releases/ID, the one before, for `millrace rollback`
 *   left              → releases/ID, what a rollback went back from; what runs, where the last switch was none
 *   switching.json    from where to where, while a switch is not confirmed
 *   upgrade.lock      held by whoever changes any of it
 *
 * A release is made in `releases/.staging-…` and put in its place by renaming: one that has its name is complete.
 */
import { lstatSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { MillraceError } from '../../platform/errors.ts';
import { takeFileLock } from '../../platform/file-lock.ts';
import type { FileLock } from '../../platform/file-lock.ts';
import type { Program, RunProgram } from '../run-program.ts';

const switchingSchema = z.object({
  from: z.string(),
  to: z.string(),
  previous: z.string().nullable(),
  /** Earlier releases did not note it. */
  direction: z.enum(['forward', 'back']).optional(),
});
/** A switch that is not confirmed: after it, `previous` is what it was before. */
export type Switching = z.infer<typeof switchingSchema>;

type Link = 'current' | 'previous' | 'left';

export interface Releases {
  readonly home: string;
  folder(id: string): string;
  /** Null where the link is missing, or leads elsewhere. */
  current(): string | null;
  previous(): string | null;
  left(): string | null;
  complete(): string[];
  switching(): Switching | null;
  /** @throws MillraceError `upgrade.locked`, `upgrade.not_installed` (invalid) */
  lock(): FileLock;
  /** The commit of a tag, branch or commit, freshly fetched; null for the newest version. */
  resolve(version: string | null, signal: AbortSignal): Promise<{ commit: string; id: string; name: string }>;
  /** Whether a release has all of another's history in it, so that going there is going back. */
  isAncestor(commit: string, of: string, signal: AbortSignal): Promise<boolean>;
  /** Checks it out and installs its packages, unless it is there. */
  prepare(release: { commit: string; id: string }, signal: AbortSignal): Promise<void>;
  /** Notes where the switch goes, then makes it. */
  begin(switching: Switching): Promise<void>;
  point(link: Link, id: string): Promise<void>;
  /** Forgets the note: `current` is what it is to be. */
  confirm(): Promise<void>;
  /** Removes the oldest, and what broken runs left; never those that are linked. */
  prune(keep: number): Promise<string[]>;
}

const ID_DIGITS = 12;
const NPM_TIMEOUT_MS = 600_000;
const FETCH_TIMEOUT_MS = 300_000;
/** Named here, because how the mirror was made does not matter then. */
const EVERY_REF = ['+refs/heads/*:refs/heads/*', '+refs/tags/*:refs/tags/*'];
const VERSION_TAG = /^v?\d+\.\d+\.\d+$/;

export function createReleases(
  { run, newId }: { run: RunProgram; newId: () => string },
  { home, environment }: { home: string; environment: Readonly<Record<string, string>> },
): Releases {
  const repository = join(home, 'repository.git');
  const releasesFolder = join(home, 'releases');
  const path = {
    ...environment,
    PATH: `${join(home, 'bin')}:${environment['PATH'] ?? '/usr/bin:/bin'}`,
    // With the releases, so that it goes with them: nothing is left in root's home.
    npm_config_cache: join(home, 'npm-cache'),
  };
  const folder = (id: string): string => join(releasesFolder, id);
  const remove = (name: string): Promise<void> => rm(folder(name), { recursive: true, force: true });

  async function must(program: Program, code: 'fetch_failed' | 'install_failed', signal: AbortSignal) {
    const end = await run({ environment: path, ...program }, signal);
    if (end.exitCode === 0) return end.stdout.trim();
    const command = [program.file, ...program.args.slice(0, 3)].join(' ');
    throw new MillraceError('transient', `upgrade.${code}`, `${command} failed:\n${end.said}`, {
      hint: 'Nothing was changed: what ran goes on running. Mend what it says, then give the command again.',
    });
  }

  const git = (args: readonly string[], signal: AbortSignal): Promise<string> =>
    must(
      { file: 'git', args: [`--git-dir=${repository}`, ...args], timeoutMs: FETCH_TIMEOUT_MS },
      'fetch_failed',
      signal,
    );

  function linked(link: Link): string | null {
    try {
      const id = basename(readlinkSync(join(home, link)));
      return lstatSync(folder(id)).isDirectory() ? id : null;
    } catch {
      return null;
    }
  }

  /**
   * Git asks of a repository on this machine that it belongs to who reads it, and an owner gives setup.sh the path of
   * a clone of their own. The one that serves it is told so, because it takes no variables of ours.
   */
  async function trustingOwnPath(signal: AbortSignal): Promise<string[]> {
    const origin = await git(['config', 'remote.origin.url'], signal);
    if (!origin.startsWith('/') && !origin.startsWith('file:')) return [];
    return ['-c', "remote.origin.uploadpack=git -c 'safe.directory=*' upload-pack"];
  }

  async function newestVersion(signal: AbortSignal): Promise<string> {
    const tags = await git(['tag', '--list', '--sort=-version:refname'], signal);
    const newest = tags.split('\n').find((tag) => VERSION_TAG.test(tag));
    if (newest !== undefined) return newest;
    // The mirror's own HEAD may name a branch that is not there: what counts is the repository's default branch.
    const trusting = await trustingOwnPath(signal);
    const [head = ''] = (await git([...trusting, 'ls-remote', 'origin', 'HEAD'], signal)).split(/\s/);
    return head === '' ? 'HEAD' : head;
  }

  async function makeIn(staging: string, commit: string, signal: AbortSignal): Promise<void> {
    const archive = `${staging}.tar`;
    try {
      await git(['archive', '--format=tar', `--output=${archive}`, commit], signal);
      const unpack = ['--extract', '--no-same-owner', `--file=${archive}`, `--directory=${staging}`];
      await must({ file: 'tar', args: unpack }, 'install_failed', signal);
    } finally {
      await rm(archive, { force: true });
    }
    const options = ['--omit=dev', '--include=optional', '--ignore-scripts', '--no-audit', '--no-fund'];
    const install = {
      file: 'npm',
      args: ['ci', ...options],
      cwd: staging,
      timeoutMs: NPM_TIMEOUT_MS,
      detached: true,
    };
    await must(install, 'install_failed', signal);
    // The daemon's own user reads it, whatever the mask of who gives the command.
    await must({ file: 'chmod', args: ['-R', 'go+rX,go-w', staging] }, 'install_failed', signal);
    await chmod(staging, 0o755);
  }

  return {
    home,
    folder,
    current: () => linked('current'),
    previous: () => linked('previous'),
    left: () => linked('left'),
    complete: () => readdirSync(releasesFolder).filter((name) => !name.startsWith('.')),
    switching() {
      try {
        return switchingSchema.parse(JSON.parse(readFileSync(join(home, 'switching.json'), 'utf8')));
      } catch {
        return null;
      }
    },
    lock() {
      const lock = takeLockIn(home);
      if (lock) return lock;
      throw new MillraceError('invalid', 'upgrade.locked', `another upgrade is at work in ${home}`, {
        hint: 'Wait for it to end.',
      });
    },
    async resolve(version, signal) {
      const fetch = ['fetch', '--prune', '--force', '--quiet', 'origin', ...EVERY_REF];
      await git([...(await trustingOwnPath(signal)), ...fetch], signal);
      const name = version ?? (await newestVersion(signal));
      const commit = await git(['rev-parse', '--verify', '--end-of-options', `${name}^{commit}`], signal);
      return { commit, id: commit.slice(0, ID_DIGITS), name };
    },
    async isAncestor(commit, of, signal) {
      const args = [`--git-dir=${repository}`, 'merge-base', '--is-ancestor', commit, of];
      return (await run({ file: 'git', args, environment: path }, signal)).exitCode === 0;
    },
    async prepare({ commit, id }, signal) {
      await mkdir(releasesFolder, { recursive: true });
      if (readdirSync(releasesFolder).includes(id)) return;
      const staging = await mkdtemp(join(releasesFolder, '.staging-'));
      try {
        await makeIn(staging, commit, signal);
        // Its name says that it is complete, also after a power cut.
        await must({ file: 'sync', args: ['-f', staging] }, 'install_failed', signal);
        await rename(staging, folder(id));
      } finally {
        await rm(staging, { recursive: true, force: true });
      }
    },
    async begin(switching) {
      await replaceFile(join(home, 'switching.json'), JSON.stringify(switching));
      await this.point('current', switching.to);
    },
    async point(link, id) {
      const fresh = join(home, `.${link}-${newId()}`);
      await symlink(join('releases', id), fresh);
      await rename(fresh, join(home, link));
    },
    confirm: () => rm(join(home, 'switching.json'), { force: true }),
    async prune(keep) {
      const kept = [linked('current'), linked('previous')];
      const names = readdirSync(releasesFolder);
      const oldest = names
        .filter((name) => !name.startsWith('.') && !kept.includes(name))
        .toSorted((a, b) => lstatSync(folder(b)).ctimeMs - lstatSync(folder(a)).ctimeMs)
        .slice(Math.max(0, keep - kept.filter((id) => id !== null).length));
      for (const name of names.filter((one) => one.startsWith('.staging-'))) await remove(name);
      for (const name of oldest) {
        // Broken off, half of a release is not to have its name.
        const going = `.staging-old-${name}`;
        await rename(folder(name), folder(going));
        await remove(going);
      }
      return oldest;
    },
  };
}

async function replaceFile(path: string, content: string): Promise<void> {
  await writeFile(`${path}.new`, `${content}\n`, { flush: true });
  await rename(`${path}.new`, path);
}

function takeLockIn(home: string): FileLock | null {
  try {
    return takeFileLock(join(home, 'upgrade.lock'));
  } catch (cause) {
    throw new MillraceError(
      'invalid',
      'upgrade.not_installed',
      `${home} is not there, or not yours to change`,
      {
        hint: 'Give the command as root, run setup.sh first, or name another folder with --home.',
        cause,
      },
    );
  }
}
