/**
 * The npm packages of a tools repository: `npm ci` where there is a lockfile, before anything is built.
 *
 * No script of any package runs, and none of the repository's npm settings is read: only package.json and
 * package-lock.json reach npm, in a folder of their own, with an environment that holds no secret. What is
 * installed ends in `node_modules` beside the lockfile; the bundle takes of it what the tools import.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { copyFile, lstat, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { z } from 'zod';
import type { Clock } from '../../platform/clock.ts';
import { createDeadline } from '../../platform/deadline.ts';
import { errorMessage, MillraceError, hasCode } from '../../platform/errors.ts';

export interface InstallOptions {
  /** What npm is given of our environment. */
  environment: Readonly<Record<string, string>>;
  /** npm's cache and its home: a folder of ours. */
  cacheDirectory: string;
  /** Default 3 min. */
  timeoutMs?: number;
  /** Of all that is installed, unpacked. Default 1 GB. */
  maxBytes?: number;
}

const WORK_PREFIX = 'install-';
const DEFAULT_TIMEOUT_MS = 180_000;
const DEFAULT_MAX_BYTES = 1_000_000_000;
/** Between two looks at how much it is: each goes through all files. */
const SIZE_CHECK_MS = 1000;
const MAX_MANIFEST_BYTES = 10_000_000;
/** Of npm's cache, which npm itself never empties. */
const MAX_CACHE_BYTES = 2_000_000_000;
const MAX_OUTPUT_CHARS = 20_000;
const MANIFEST = 'package.json';
const LOCKFILE = 'package-lock.json';
const MANIFESTS = [MANIFEST, LOCKFILE];
const ARGUMENTS = [
  'ci',
  '--ignore-scripts',
  '--omit=dev',
  '--no-audit',
  '--no-fund',
  '--no-update-notifier',
  '--loglevel=error',
  '--logs-max=0',
  // What fails is tried again from outside, and finds the cache filled so far.
  '--fetch-retries=0',
  // What a lockfile could otherwise have npm read on this machine or in its network, or run. The registry stays.
  '--allow-git=none',
  '--allow-file=none',
  '--allow-directory=none',
  '--allow-remote=none',
];
/** By npm's name for what is wrong: the commit is at fault, and stays so however often it is tried. */
const FAULTS_OF_COMMIT =
  /^(?:EUSAGE|E404|ETARGET|EINTEGRITY|ERESOLVE|EJSONPARSE|EBADPLATFORM|EINVALIDPACKAGENAME|EINVALIDTAGNAME|EUNSUPPORTEDPROTOCOL|EALLOW[A-Z]+)$/;

/** From here on npm tells how it is used, whatever was wrong. */
const USAGE = /^Clean install a project$/m;
const IN_STEP = 'Mend package.json or package-lock.json (`npm install` brings them in step) and push both.';
const CONFLICT = /^(?:<{7}|={7}|>{7})(?: |\r?$)/;

/**
 * Installs what the lockfile nearest to the tools names; nothing where there is none.
 * @returns a function (root of the repository, path of the tools in it, signal) that throws MillraceError
 *   `tools.install_failed` (transient: the registry may be away), `tools.lockfile_invalid` (invalid: so is what
 *   package.json and the lockfile say, with npm's own words), `tools.packages_too_large` (invalid)
 */
export function createInstallPackages(
  deps: { clock: Clock },
  options: InstallOptions,
): (root: string, path: string, signal: AbortSignal) => Promise<void> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, maxBytes = DEFAULT_MAX_BYTES } = options;
  return async (root, path, signal) => {
    const folder = await lockfileFolder(root, path);
    if (folder === null) return;
    const work = join(options.cacheDirectory, `${WORK_PREFIX}${deps.clock.uuid()}`);
    await mkdir(work, { recursive: true });
    try {
      const manifest = await readFile(join(folder, MANIFEST), 'utf8');
      await copyFile(join(folder, LOCKFILE), join(work, LOCKFILE), constants.COPYFILE_EXCL);
      await withinBytes(deps.clock, { directory: work, maxBytes }, async (exceeded) => {
        using deadline = createDeadline(deps.clock, timeoutMs, signal, exceeded);
        const installAs = async (wanted: string): Promise<void> => {
          await writeFile(join(work, MANIFEST), wanted);
          await npm(work, options, deadline.signal);
        };
        const typed = withTypes(manifest);
        await installAs(typed)
          .catch((error: unknown) => {
            // Types from where packages may not come from are no reason to refuse: without them nothing is checked of these.
            if (!hasCode(error, 'tools.lockfile_invalid') || typed === manifest) throw error;
            return installAs(manifest);
          })
          .catch(async (error: unknown) => {
            if (hasCode(error, 'tools.lockfile_invalid')) await assertJson(root, folder);
            throw error;
          });
      });
      await rm(join(folder, 'node_modules'), { recursive: true, force: true });
      await rename(join(work, 'node_modules'), join(folder, 'node_modules')).catch(ignoreMissing);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  };
}

/**
 * Has a folder filled, and ends that as soon as there is too much in it.
 * @throws MillraceError `tools.packages_too_large` (invalid)
 */
async function withinBytes(
  clock: Clock,
  { directory, maxBytes }: { directory: string; maxBytes: number },
  fill: (exceeded: AbortSignal) => Promise<void>,
): Promise<void> {
  const exceeded = new AbortController();
  const ended = new AbortController();
  const watch = async (): Promise<void> => {
    while (!ended.signal.aborted && !exceeded.signal.aborted) {
      await clock.sleep(SIZE_CHECK_MS, ended.signal).catch(() => {});
      if (!ended.signal.aborted && (await bytesIn(directory)) > maxBytes) exceeded.abort();
    }
  };
  const watching = watch();
  try {
    await fill(exceeded.signal);
  } catch (error) {
    if (!exceeded.signal.aborted) throw error;
  } finally {
    ended.abort();
    await watching;
  }
  if (!exceeded.signal.aborted && (await bytesIn(directory)) <= maxBytes) return;
  const message = `the packages of the tools unpack to more than ${maxBytes} bytes`;
  const hint = 'Take what the tools do not need at run time out of `dependencies`, and push both files.';
  throw new MillraceError('invalid', 'tools.packages_too_large', message, { hint });
}

/** What installations left that were killed goes, and so does a cache that has become too large. */
export async function sweepInstalls(cacheDirectory: string, maxCacheBytes = MAX_CACHE_BYTES): Promise<void> {
  const names = await readdir(cacheDirectory).catch(() => []);
  const left = names.filter((name) => name.startsWith(WORK_PREFIX));
  if ((await bytesIn(join(cacheDirectory, 'cache'))) > maxCacheBytes) left.push('cache');
  for (const name of left) await rm(join(cacheDirectory, name), { recursive: true, force: true });
}

async function bytesIn(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  let bytes = 0;
  for (const entry of entries)
    if (entry.isFile())
      bytes += (await stat(join(entry.parentPath, entry.name)).catch(() => null))?.size ?? 0;
  return bytes;
}

/** The folder of the tools or the nearest one around it, as far as the root, that has a lockfile. */
async function lockfileFolder(root: string, path: string): Promise<string | null> {
  for (let folder = join(root, path); ; folder = dirname(folder)) {
    const [manifest, lockfile] = await Promise.all(
      MANIFESTS.map((name) => hasManifest(root, join(folder, name))),
    );
    if (manifest && lockfile) return folder;
    if (folder === root || !folder.startsWith(root)) return null;
  }
}

async function hasManifest(root: string, path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => null);
  if (!found) return false;
  if (found.isFile() && found.size <= MAX_MANIFEST_BYTES) return true;
  const hint = 'Commit package.json and package-lock.json themselves, not links to them.';
  throw lockfileInvalid(`${relative(root, path)} is no plain file of modest size`, hint);
}

/** npm takes for missing what it cannot read. @throws MillraceError `tools.lockfile_invalid` (invalid) */
async function assertJson(root: string, folder: string): Promise<void> {
  for (const name of MANIFESTS) {
    const path = join(folder, name);
    const fault = await brokenJson(path);
    if (fault === null) continue;
    const again = 'Delete package-lock.json, run `npm install`, and push what that writes.';
    const hint = name === LOCKFILE ? again : `Mend ${name} and push it.`;
    throw lockfileInvalid(`${relative(root, path)} ${fault}`, hint);
  }
}

/**
 * The manifest with `@types/…` among what is installed, though they are development dependencies: the type check needs
 * them, or it would refuse what is right on the author's machine. Which versions, the lockfile says all the same.
 */
function withTypes(manifest: string): string {
  let parsed: Manifest;
  try {
    parsed = manifestSchema.parse(JSON.parse(manifest));
  } catch {
    // npm says what is wrong with it.
    return manifest;
  }
  const { dependencies, devDependencies } = parsed;
  const types = Object.entries(devDependencies).filter(([name]) => name.startsWith('@types/'));
  if (types.length === 0) return manifest;
  const rest = Object.entries(devDependencies).filter(([name]) => !name.startsWith('@types/'));
  return JSON.stringify({
    ...parsed,
    dependencies: { ...Object.fromEntries(types), ...dependencies },
    devDependencies: Object.fromEntries(rest),
  });
}

const named = z.record(z.string(), z.unknown()).default({});
const manifestSchema = z.looseObject({ dependencies: named, devDependencies: named });
type Manifest = z.infer<typeof manifestSchema>;

async function npm(directory: string, options: InstallOptions, signal: AbortSignal): Promise<void> {
  const own = (name: string): string => join(options.cacheDirectory, name);
  // Files that are not there: npm shall find no settings of this machine.
  const folders = [
    `--cache=${own('cache')}`,
    `--userconfig=${own('npmrc')}`,
    `--globalconfig=${own('global-npmrc')}`,
  ];
  const child = spawn('npm', [...ARGUMENTS, ...folders], {
    cwd: directory,
    env: { ...options.environment, HOME: options.cacheDirectory },
    stdio: ['ignore', 'pipe', 'pipe'],
    signal,
    killSignal: 'SIGKILL',
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-MAX_OUTPUT_CHARS);
    });
  }
  let exitCode: unknown;
  try {
    [exitCode] = (await once(child, 'close')) as [number | null];
  } catch (cause) {
    const reason: unknown = signal.aborted ? signal.reason : cause;
    throw installFailed(reason instanceof Error ? reason.message : String(reason), cause);
  }
  if (exitCode === 0) return;
  const [, code = ''] = /^npm (?:error|ERR!) code (\S+)$/m.exec(output) ?? [];
  throw FAULTS_OF_COMMIT.test(code)
    ? lockfileInvalid(`npm ci: ${said(output)}`)
    : installFailed(said(output));
}

/** What npm said, without what it says of itself. */
function said(output: string): string {
  const [reason = ''] = output.replaceAll(/^npm (?:error|ERR!) ?/gm, '').split(USAGE);
  return reason.replaceAll(/\n{2,}/g, '\n').trim();
}

/** Of a manifest that npm could not use: what is wrong with it where it is not even JSON; null where it is. */
async function brokenJson(path: string): Promise<string | null> {
  const text = (await readFile(path, 'utf8')).replace(/^\uFEFF/, '');
  const conflict = text.split('\n').findIndex((line) => CONFLICT.test(line));
  if (conflict >= 0) return `holds a merge conflict in line ${conflict + 1}`;
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === 'object' && parsed !== null ? null : 'holds no object';
  } catch (error) {
    return `is no JSON: ${errorMessage(error)}`;
  }
}

/** A lockfile without packages leaves no folder behind. */
function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}

function installFailed(message: string, cause?: unknown): MillraceError {
  return new MillraceError('transient', 'tools.install_failed', `npm ci: ${message}`, {
    cause,
    hint: 'What was live stays live, and it is tried again.',
  });
}

function lockfileInvalid(message: string, hint = IN_STEP): MillraceError {
  return new MillraceError('invalid', 'tools.lockfile_invalid', message, { hint });
}
