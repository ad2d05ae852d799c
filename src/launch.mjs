#!/usr/bin/env node
/**
 * The launcher: brings what Millrace needs to a machine that has only some Node, then becomes Millrace.
 *
 *   node src/launch.mjs COMMAND…          src/main.ts with this command, on a fit Node
 *   node src/launch.mjs --tool NAME ARG…  a development tool of node_modules/.bin, or a script (.ts) of this
 *                                         repository, on the same Node
 *
 * It stands before everything else, so it is plain JavaScript, needs nothing installed and says in words
 * what is missing. What it brings lies inside the project's folder: nothing global, nothing as root. It
 * never leaves half an install behind: each is made in a folder of its own and put in place by renaming,
 * so that a run that breaks off, or two at once, leave the old state or the new one.
 */
import { spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The release lines that isolated-vm, our one native dependency, ships a compiled module for, each with the first release
 * that will do: before 24.5 a proxy (`NODE_USE_ENV_PROXY`) holds for `fetch` alone.
 * @type {Readonly<Record<number, number>>}
 */
export const fitNodes = { 24: 5, 26: 0 };

/** Of a failing npm, this much output is shown. */
const SHOWN_OUTPUT_BYTES = 4_000;
const FORWARDED_SIGNALS = /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']);

/**
 * A daemon's memory is mostly Node's own. Short-lived objects get 8 MiB a half-space in place of 16; the heap is
 * collected when it has grown by a third, where V8 would let it double; and what the TypeScript is compiled to
 * is kept, so that the compiler itself need not be loaded: docs/benchmarks.md.
 */
export const programFlags = ['--max-semi-space-size=8', '--heap-growing-percent=30'];

/** @param {string} root */
export function programVariables(root) {
  return {
    NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] ?? join(root, 'node_modules', '.cache', 'millrace'),
  };
}

const nodePackage = `node-${process.platform}-${process.arch}`;

/** What stops the launcher: shown to the person as it is, without a stack. */
class LaunchError extends Error {}

/** @param {string} version such as `24.21.0` */
export function isFitNode(version) {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return minor >= (fitNodes[major] ?? Infinity);
}

/**
 * True where `node_modules` in `folder` is what its package-lock.json says, by the record that npm itself
 * writes at the end of an install. So a person's own `npm install` counts as well as ours, and an optional
 * package that could not be fetched is noticed where this machine needs it.
 * @param {string} folder
 */
export function isInstalled(folder) {
  const recordPath = join(folder, 'node_modules', '.package-lock.json');
  if (!existsSync(recordPath)) return false;
  const wanted = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8')).packages;
  const present = JSON.parse(readFileSync(recordPath, 'utf8')).packages;
  return Object.entries(wanted).every(
    ([path, entry]) => path === '' || !isForThisMachine(entry) || present[path]?.version === entry.version,
  );
}

/**
 * npm leaves out optional packages of other platforms. Which C library this machine has is not worth the
 * time that it takes to find out, so those that name one are not asked for.
 * @param {{ optional?: boolean, os?: string | string[], cpu?: string | string[], libc?: string[] }} entry
 */
function isForThisMachine({ optional, os, cpu, libc }) {
  if (!optional) return true;
  return [os].flat().includes(process.platform) && [cpu].flat().includes(process.arch) && !libc;
}

/**
 * Runs `npm ci` for the manifests in `from` and puts the result in place as `target`/node_modules.
 * @param {{ from: string, target: string, npm: Npm, cacheFolder: string }} options
 */
async function install({ from, target, npm, cacheFolder }) {
  mkdirSync(cacheFolder, { recursive: true });
  const staging = mkdtempSync(join(cacheFolder, 'install-'));
  try {
    for (const name of ['package.json', 'package-lock.json', '.npmrc']) {
      if (existsSync(join(from, name))) cpSync(join(from, name), join(staging, name));
    }
    // No install scripts: what is native comes compiled, and no dependency runs code while it is fetched.
    // The rest undoes settings of the person's own that would leave out something we need.
    const settings = ['--ignore-scripts', '--include=dev', '--include=optional', '--no-audit', '--no-fund'];
    await runNpm(npm, ['ci', '--prefix', staging, ...settings], staging);
    if (!isInstalled(staging)) {
      throw new LaunchError(`npm could not fetch every package for ${process.platform} ${process.arch}.`);
    }
    if (from !== target) {
      mkdirSync(target, { recursive: true });
      renameSync(join(staging, 'package-lock.json'), join(target, 'package-lock.json'));
    }
    replaceFolder(join(staging, 'node_modules'), join(target, 'node_modules'), join(staging, 'old'));
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

/**
 * Puts `fresh` in the place of `target`. Where somebody else is quicker, theirs stays: it is the same.
 * @param {string} fresh @param {string} target @param {string} aside where the old one goes
 */
function replaceFolder(fresh, target, aside) {
  try {
    if (existsSync(target)) renameSync(target, aside);
    renameSync(fresh, target);
  } catch (error) {
    const code = errorCode(error);
    if (code !== 'ENOENT' && code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
  }
}

/** @typedef {{ file: string, args: string[], env: NodeJS.ProcessEnv }} Npm how to start an npm */

/**
 * Any npm that works with the running Node: the one that started us, or the one on the PATH.
 * @returns {Npm}
 */
function npmOfTheMachine() {
  const { npm_execpath: cli, npm_node_execpath: itsNode } = process.env;
  if (cli && itsNode && /\bnpm-cli\.c?js$/.test(cli)) return { file: itsNode, args: [cli], env: process.env };
  return { file: 'npm', args: [], env: process.env };
}

/**
 * The npm that came with this Node. Another one may not work with it: Debian's looks for its parts where
 * only Debian's own Node does.
 * @param {string} node @returns {Npm | undefined}
 */
function npmBeside(node) {
  const { npm_execpath: cli, npm_node_execpath: itsNode } = process.env;
  if (cli && itsNode && realpathSync(itsNode) === node) return npmOfTheMachine();
  const beside = join(dirname(node), 'npm');
  if (!existsSync(beside)) return undefined;
  return { file: node, args: [realpathSync(beside)], env: withPath(node) };
}

/** @param {Npm} npm @param {string[]} args @param {string} cwd */
async function runNpm(npm, args, cwd) {
  let output = '';
  const keep = (/** @type {Buffer} */ chunk) => {
    output = (output + chunk.toString()).slice(-SHOWN_OUTPUT_BYTES);
  };
  const child = spawn(npm.file, [...npm.args, ...args], {
    cwd,
    env: npm.env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const { code } = await ended(child);
  if (code !== 0) throw new LaunchError(`${output}\nnpm failed. ${adviceFor(output)}`);
}

/** @param {string} output */
function adviceFor(output) {
  if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT|network/i.test(output)) {
    return 'The npm registry cannot be reached: check the connection (behind a proxy, set https_proxy) and run this again.';
  }
  if (/ENOSPC/.test(output)) return 'The disk is full: free 500 MB and run this again.';
  return 'What it said stands above; running this again is safe.';
}

/**
 * Resolves when the child has ended; forwards signals to it until then.
 * @param {import('node:child_process').ChildProcess} child
 * @returns {Promise<{ code: number | null, signal: NodeJS.Signals | null }>}
 */
function ended(child) {
  const forward = (/** @type {NodeJS.Signals} */ signal) => void child.kill(signal);
  for (const signal of FORWARDED_SIGNALS) process.on(signal, forward);
  return new Promise((resolve, reject) => {
    child.once('error', (error) => {
      if (errorCode(error) !== 'ENOENT') return reject(error);
      reject(
        new LaunchError(
          `${child.spawnfile} cannot be run here. Install Node 24 with its npm: https://nodejs.org/en/download`,
        ),
      );
    });
    child.once('exit', (code, signal) => {
      for (const name of FORWARDED_SIGNALS) process.off(name, forward);
      resolve({ code, signal });
    });
  });
}

/**
 * The pinned Node and npm of deploy/toolchain, fetched with whatever npm the machine has.
 * @param {string} root @param {string} why
 */
async function ensureToolchain(root, why) {
  const cacheFolder = join(root, '.cache');
  const from = join(root, 'deploy', 'toolchain');
  const target = join(cacheFolder, 'toolchain');
  if (!isCurrent(from, target)) {
    tell(`${why}: fetching one from npm (once, about 60 MB)…`);
    await install({ from, target, npm: npmOfTheMachine(), cacheFolder });
  }
  const modules = join(target, 'node_modules');
  return {
    bundledNode: join(modules, nodePackage, 'bin', 'node'),
    npmCli: join(modules, 'npm', 'bin', 'npm-cli.js'),
  };
}

/** The running Node if it is fit, otherwise the pinned one. @param {string} root */
async function ensureNode(root) {
  const have = process.versions.node;
  if (isFitNode(have)) return process.execPath;
  const { packages } = JSON.parse(
    readFileSync(join(root, 'deploy', 'toolchain', 'package-lock.json'), 'utf8'),
  );
  if (!(`node_modules/${nodePackage}` in packages)) {
    throw new LaunchError(
      `Millrace needs Node 24 (24.5 or newer) and this is ${have}; npm has none for ${process.platform} ${process.arch}. ` +
        'Install it from https://nodejs.org/en/download (on a Mac: brew install node@24).',
    );
  }
  return (await ensureToolchain(root, `Millrace needs Node 24 (24.5 or newer) and this is ${have}`))
    .bundledNode;
}

/** @param {string} root @param {string} node */
async function ensureModules(root, node) {
  if (isInstalled(root)) return;
  let npm = npmBeside(node);
  if (!npm) {
    const { npmCli } = await ensureToolchain(root, 'This Node has no npm beside it');
    npm = { file: node, args: [npmCli], env: withPath(node) };
  }
  tell('Fetching the packages that Millrace is made of (once a version, about 50 MB)…');
  await install({ from: root, target: root, npm, cacheFolder: join(root, '.cache') });
}

/** True where `target` was installed from the lockfile that stands in `from` now. @param {string} from @param {string} target */
function isCurrent(from, target) {
  const copy = join(target, 'package-lock.json');
  if (!existsSync(copy)) return false;
  return readFileSync(copy).equals(readFileSync(join(from, 'package-lock.json'))) && isInstalled(target);
}

/** The environment in which `node` is this Node, for us and our children. @param {string} node */
function withPath(node) {
  return { ...process.env, PATH: `${dirname(node)}:${process.env['PATH'] ?? ''}` };
}

/**
 * Becomes the program where Node can do that, so that nothing stands between it and its signals; an older
 * Node starts it as a child, forwards signals, and ends as it ended.
 * @param {string} node @param {string[]} args @param {Record<string, string>} [variables] besides its own
 */
async function become(node, args, variables) {
  const env = { ...withPath(node), ...variables };
  if (process.execve && isFitNode(process.versions.node)) process.execve(node, [node, ...args], env);
  const { code, signal } = await ended(spawn(node, args, { env, stdio: 'inherit' }));
  process.exitCode = code ?? 128 + constants.signals[signal ?? 'SIGKILL'];
}

/** @param {string[]} argv what stands behind `launch.mjs` @param {string} [root] the project's folder */
export async function launch(argv, root = dirname(dirname(fileURLToPath(import.meta.url)))) {
  const node = await ensureNode(root);
  await ensureModules(root, node);
  const [first, second = '', ...rest] = argv;
  if (first !== '--tool') {
    const main = join(root, 'src', 'main.ts');
    return become(node, [...programFlags, main, ...argv], programVariables(root));
  }
  const tool = join(root, second.endsWith('.ts') ? '.' : 'node_modules/.bin', second);
  if (!existsSync(tool)) throw new LaunchError(`There is no tool ${second} in node_modules/.bin.`);
  return become(node, [realpathSync(tool), ...rest]);
}

/** @param {string} line */
function tell(line) {
  process.stderr.write(`${line}\n`);
}

/** @param {unknown} error @returns {string | undefined} */
function errorCode(error) {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}

const isMain =
  process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url);
if (isMain) {
  launch(process.argv.slice(2)).catch((error) => {
    const code = errorCode(error);
    const isOurs = error instanceof LaunchError;
    if (code === 'EACCES' || code === 'EROFS' || code === 'ENOSPC') {
      tell(
        `${error.message}\nMillrace installs into its own folder: run it as the owner of that folder, with 500 MB free.`,
      );
    } else tell(isOurs ? error.message : String(error?.stack ?? error));
    process.exitCode = 1;
  });
}
