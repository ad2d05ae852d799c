/** A real bare repository, and pushes to it as an author makes them. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** What a path holds: text, bytes, or a symbolic link. */
export type Content = string | Uint8Array | { link: string };

export interface PushOptions {
  branch?: string;
  message?: string;
  /** Begins a history without a parent, and overwrites the branch. */
  force?: boolean;
}

export interface BareRepository {
  readonly path: string;
  /** Replaces all files by these and pushes; resolves to the id of the commit. */
  push(files: Record<string, Content>, options?: PushOptions): Promise<string>;
  /** A Git command in the bare repository. */
  git(...args: string[]): Promise<string>;
  /** A Git command in the author's clone. */
  author(...args: string[]): Promise<string>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function createBareRepository(): Promise<BareRepository> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-bare-'));
  const path = join(folder, 'tools.git');
  const clone = join(folder, 'author');
  const identity = ['-c', 'user.name=Ann', '-c', 'user.email=ann@sender.example'];
  const gitIn =
    (directory: string) =>
    async (...args: string[]): Promise<string> => {
      const { stdout } = await run('git', ['-C', directory, ...identity, ...args]);
      return stdout.trim();
    };
  const git = gitIn(path);
  const author = gitIn(clone);
  await run('git', ['init', '--quiet', '--bare', '--initial-branch=main', path]);
  await run('git', ['init', '--quiet', '--initial-branch=main', clone]);
  return {
    path,
    git,
    author,
    async push(files, { branch = 'main', message = 'change', force = false } = {}) {
      if (force)
        await author('checkout', '--quiet', '--orphan', `orphan-${Object.keys(files).length}-${message}`);
      await author('rm', '-r', '--quiet', '--force', '--ignore-unmatch', '.');
      for (const [name, content] of Object.entries(files)) {
        const file = join(clone, name);
        await mkdir(dirname(file), { recursive: true });
        if (typeof content === 'string' || content instanceof Uint8Array) await writeFile(file, content);
        else await symlink(content.link, file);
      }
      await author('add', '--all', '--force');
      await author('commit', '--quiet', '--allow-empty', `--message=${message}`);
      await author('push', '--quiet', ...(force ? ['--force'] : []), path, `HEAD:refs/heads/${branch}`);
      return author('rev-parse', 'HEAD');
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
