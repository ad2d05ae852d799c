/**
 * The launcher, run as a person runs it, in a small project of its own and with a stand-in for npm
 * that needs no network.
 */
import { spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, readdir, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fitNodes, isFitNode, isInstalled } from '../../src/launch.mjs';

const nodePackage = `node-${process.platform}-${process.arch}`;
/** Node as it looks to the launcher on a machine whose own is too old, and without `process.execve`. */
const oldNode =
  "data:text/javascript,process.execve=undefined;Object.defineProperty(process,'versions',{value:{...process.versions,node:'20.20.2'}})";

let folder: string;
let root: string;

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'millrace launch ')));
  root = join(folder, 'project');
  await mkdir(join(root, 'src'), { recursive: true });
  await cp(join(import.meta.dirname, '../../src/launch.mjs'), join(root, 'src', 'launch.mjs'));
  await writeFile(join(root, 'src', 'main.ts'), mainProgram);
  await writeLockfile(root, { left: { version: '1.0.0' } });
  await writeLockfile(join(root, 'deploy', 'toolchain'), {
    npm: { version: '11.0.0' },
    [nodePackage]: { version: '24.0.0', optional: true, os: process.platform, cpu: process.arch },
  });
  await writeFile(join(folder, 'npm-cli.js'), fakeNpm);
  await mkdir(join(folder, 'bin'));
  await writeFile(join(folder, 'bin', 'node'), '#!/bin/sh\necho another node\n', { mode: 0o755 });
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const mainProgram = `
import { execFileSync } from 'node:child_process';
const [command, ...rest] = process.argv.slice(2);
const say = (value: unknown) => process.stdout.write(JSON.stringify(value) + '\\n');
if (command === 'exit') process.exitCode = Number(rest[0]);
else if (command === 'wait') {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => { say({ signal }); process.exit(5); });
  setInterval(() => {}, 1000);
  say({ ready: true });
} else say({ args: process.argv.slice(2), cwd: process.cwd(), execPath: process.execPath,
  nodeOnPath: execFileSync('node', ['-p', 'process.execPath']).toString().trim() });
`;

/** Does what \`npm ci --prefix DIR\` does with a lockfile, without fetching; counts its runs, fails when told to. */
const fakeNpm = `
const { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const at = process.argv[process.argv.indexOf('--prefix') + 1];
appendFileSync(join(__dirname, 'npm-runs'), 'run\\n');
if (existsSync(join(__dirname, 'together')))
  while (readFileSync(join(__dirname, 'npm-runs'), 'utf8').length < 4 * 'run\\n'.length);
const { packages } = JSON.parse(readFileSync(join(at, 'package-lock.json'), 'utf8'));
for (const name of Object.keys(packages)) {
  if (!name) continue;
  mkdirSync(join(at, name, 'bin'), { recursive: true });
  if (existsSync(join(__dirname, 'break-off'))) { rmSync(join(__dirname, 'break-off')); process.kill(process.pid, 'SIGKILL'); }
  if (existsSync(join(__dirname, 'offline'))) { console.error('npm error code EAI_AGAIN'); process.exit(1); }
  if (name.includes('/node-')) symlinkSync(process.execPath, join(at, name, 'bin', 'node'));
  if (name.endsWith('/npm')) symlinkSync(__filename, join(at, name, 'bin', 'npm-cli.js'));
}
writeFileSync(join(at, 'node_modules', '.package-lock.json'), JSON.stringify({ packages }));
`;

async function writeLockfile(at: string, packages: Record<string, object>): Promise<void> {
  const entries = Object.entries(packages).map(([name, entry]) => [`node_modules/${name}`, entry]);
  await mkdir(at, { recursive: true });
  await writeFile(join(at, 'package.json'), '{"type":"module"}');
  await writeFile(join(at, 'package-lock.json'), JSON.stringify({ packages: Object.fromEntries(entries) }));
}

interface Run {
  args: string[];
  cwd?: string;
  imports?: string;
  script?: string;
  onReady?: (pid: number) => void;
}

/** Runs the launcher to its end. */
function launch({ args, cwd = root, imports, script, onReady }: Run) {
  const nodeArgs = [...(imports ? ['--import', imports] : []), script ?? join(root, 'src', 'launch.mjs')];
  const env = {
    PATH: `${join(folder, 'bin')}:${process.env['PATH']}`,
    npm_execpath: join(folder, 'npm-cli.js'),
    npm_node_execpath: process.execPath,
  };
  const child = spawn(process.execPath, [...nodeArgs, ...args], {
    cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => {
    output.stdout += chunk.toString();
    if (child.pid !== undefined && chunk.includes('ready')) onReady?.(child.pid);
  });
  child.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk.toString()));
  return new Promise<{ code: number | null; signal: string | null; stdout: string; stderr: string }>(
    (resolve) => {
      child.once('close', (code, signal) => resolve({ code, signal, ...output }));
    },
  );
}

async function npmRuns(): Promise<number> {
  const log = await readFile(join(folder, 'npm-runs'), 'utf8').catch(() => '');
  return log.split('\n').length - 1;
}

describe('a fit Node', () => {
  it('is a release that isolated-vm is compiled for', async () => {
    const abiOfMajor: Record<string, string> = { 24: '137', 26: '147' };
    const prebuilds = join(import.meta.dirname, '../../node_modules/isolated-vm/prebuilds/linux-x64');
    const names = await readdir(prebuilds);
    for (const [major, minor] of Object.entries(fitNodes)) {
      expect(names).toContain(`isolated-vm.abi${abiOfMajor[major]}.glibc.node`);
      expect(isFitNode(`${major}.${minor}.0`)).toBe(true);
    }
    for (const version of ['18.19.1', '20.20.2', '22.22.0', '24.4.1', '25.1.0', '2.4.0'])
      expect(isFitNode(version)).toBe(false);
  });

  it('runs the program itself, from any folder and through a link', async () => {
    const link = join(folder, 'millrace');
    await symlink(join(root, 'src', 'launch.mjs'), link);
    const { stdout, code } = await launch({ args: ['send', 'a b.eml'], cwd: folder, script: link });
    expect(JSON.parse(stdout)).toEqual({
      args: ['send', 'a b.eml'],
      cwd: folder,
      execPath: process.execPath,
      nodeOnPath: process.execPath,
    });
    expect(code).toBe(0);
  });
});

describe('an old Node', () => {
  it('fetches the pinned one, once, and runs the program on it', async () => {
    const first = await launch({ args: ['serve'], imports: oldNode });
    expect(first.stderr).toContain('Millrace needs Node 24 (24.5 or newer) and this is 20.20.2');
    // The stand-in's Node is a link to this one, and Node reports where a link leads.
    expect(JSON.parse(first.stdout)).toMatchObject({ args: ['serve'], execPath: process.execPath });
    expect(await npmRuns()).toBe(2);
    const second = await launch({ args: ['serve'], imports: oldNode });
    expect(second.stderr).toBe('');
    expect(await npmRuns()).toBe(2);
  });

  it('is told what to install where npm has no Node for the machine', async () => {
    await writeLockfile(join(root, 'deploy', 'toolchain'), { npm: { version: '11.0.0' } });
    const { code, stderr } = await launch({ args: ['serve'], imports: oldNode });
    expect(code).toBe(1);
    expect(stderr).toMatch(/npm has none for .* Install it from https:\/\/nodejs\.org/);
  });
});

describe('packages', () => {
  it('are fetched again only when the lockfile asks for other ones', async () => {
    await launch({ args: ['serve'] });
    await launch({ args: ['serve'] });
    expect(await npmRuns()).toBe(1);
    await writeLockfile(root, { left: { version: '1.0.1' } });
    await launch({ args: ['serve'] });
    expect(await npmRuns()).toBe(2);
    expect(isInstalled(root)).toBe(true);
  });

  it('count as missing when an optional one for this machine is missing, and only then', async () => {
    const entry = { version: '1.0.0', optional: true };
    await launch({ args: ['serve'] });
    await writeLockfile(root, {
      left: { version: '1.0.0' },
      foreign: { ...entry, os: ['aix'], cpu: ['ppc64'] },
      musl: { ...entry, os: [process.platform], cpu: [process.arch], libc: ['musl'] },
    });
    expect(isInstalled(root)).toBe(true);
    await writeLockfile(root, {
      left: { version: '1.0.0' },
      ours: { ...entry, os: [process.platform], cpu: [process.arch] },
    });
    expect(isInstalled(root)).toBe(false);
  });

  it('stay as they were when an install breaks off; the next run completes it', async () => {
    await launch({ args: ['serve'] });
    await writeLockfile(root, { left: { version: '2.0.0' }, right: { version: '1.0.0' } });
    await writeFile(join(folder, 'break-off'), '');
    const broken = await launch({ args: ['serve'] });
    expect(broken.code).toBe(1);
    expect(await readdir(join(root, 'node_modules'))).not.toContain('right');
    const next = await launch({ args: ['serve'] });
    expect(next.code).toBe(0);
    expect(isInstalled(root)).toBe(true);
    expect(await readdir(join(root, '.cache'))).toEqual([]);
  });

  it('survive launches at once, all of which fetch and finish together', async () => {
    await writeFile(join(folder, 'together'), '');
    const runs = await Promise.all(Array.from({ length: 4 }, () => launch({ args: ['exit', '0'] })));
    expect(runs.map(({ code, stderr }) => ({ code, failed: stderr.includes('rror') }))).toEqual(
      runs.map(() => ({ code: 0, failed: false })),
    );
    expect(isInstalled(root)).toBe(true);
  });

  it('that cannot be fetched end in advice', async () => {
    await writeFile(join(folder, 'offline'), '');
    const { code, stderr } = await launch({ args: ['serve'] });
    expect(code).toBe(1);
    expect(stderr).toContain('The npm registry cannot be reached');
    expect(stderr).not.toMatch(/^ +at /m);
  });
});

describe.each([
  ['in its place', undefined],
  ['as a child', oldNode],
])('the program run %s', (_name, imports) => {
  const options = imports === undefined ? {} : { imports };

  it('ends with its exit code', async () => {
    expect((await launch({ args: ['exit', '42'], ...options })).code).toBe(42);
  });

  it.each(['SIGTERM', 'SIGINT'] as const)('gets %s and may end in its own time', async (signal) => {
    const run = await launch({ args: ['wait'], ...options, onReady: (pid) => process.kill(pid, signal) });
    expect(run.stdout).toContain(`{"signal":"${signal}"}`);
    expect(run.code).toBe(5);
  });
});

it('a tool that is not there is named', async () => {
  const { code, stderr } = await launch({ args: ['--tool', 'nothing'] });
  expect(code).toBe(1);
  expect(stderr).toMatch(/^There is no tool nothing in node_modules\/\.bin\.$/m);
});
