/**
 * A server in miniature for upgrades: a folder laid out as /opt/millrace, a Git repository with releases that are
 * copies of this checkout and differ as a test wants, and three real daemons (one a role) in the place of systemd's
 * units, which run whatever `current` leads to.
 */
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';
import { preflightSchema } from '../../src/admin/upgrade/preflight.ts';
import { createReleases } from '../../src/admin/upgrade/releases.ts';
import type { Releases } from '../../src/admin/upgrade/releases.ts';
import type { Units } from '../../src/admin/upgrade/units.ts';
import type { UpgradeDeps } from '../../src/admin/upgrade/upgrade.ts';
import { createRunProgram } from '../../src/admin/run-program.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { streamFormat } from '../../src/streams/record-versions.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);
const ROLES = ['outbox', 'runner', 'ingest'] as const;

export interface UpgradeWorld {
  readonly releases: Releases;
  readonly deps: UpgradeDeps;
  /** What upgrades have printed. */
  readonly printed: string[];
  /** Commits a change of this file's text on top of what there is; resolves to the release's name. */
  release(path: string, change: (text: string) => string): Promise<string>;
  /** Which release each of the three processes is of. */
  running(): Promise<string[]>;
  stop(): Promise<void>;
}

/** Makes the first release of this checkout and starts it. */
export async function createUpgradeWorld(
  home: string,
  variables: Record<string, string>,
): Promise<UpgradeWorld> {
  const work = join(home, 'work');
  await mkdir(join(home, 'bin'), { recursive: true });
  await symlink(process.execPath, join(home, 'bin', 'node'));
  // Every release has the same packages here; that npm itself installs them is shown on a real system.
  await writeFile(join(home, 'bin', 'npm'), `#!/bin/sh\nln -s ${root}node_modules node_modules\n`);
  await chmod(join(home, 'bin', 'npm'), 0o755);
  const git = (...args: string[]) =>
    run('git', ['-C', work, '-c', 'user.name=t', '-c', 'user.email=t@t', ...args]);
  await mkdir(work);
  await git('init', '--quiet', '--initial-branch=main');
  const { stdout: files } = await run('git', [
    '-C',
    root,
    'ls-files',
    '-z',
    '--cached',
    '--others',
    '--exclude-standard',
    'src',
    'tools',
    'package.json',
    'package-lock.json',
  ]);
  for (const file of files.split('\0').filter(Boolean)) {
    await mkdir(join(work, file, '..'), { recursive: true });
    await writeFile(join(work, file), await readFile(join(root, file)));
  }
  const commit = async (): Promise<string> => {
    await git('add', '--all');
    await git('commit', '--quiet', '--message=release');
    return (await git('rev-parse', 'HEAD')).stdout.slice(0, 12);
  };
  const first = await commit();
  await run('git', ['clone', '--quiet', '--mirror', work, join(home, 'repository.git')]);

  const releases = createReleases(
    { run: createRunProgram(clock), newId: () => clock.uuid() },
    { home, environment: { PATH: process.env['PATH']!, HOME: home } },
  );
  const signal = new AbortController().signal;
  await releases.prepare(await releases.resolve(first, signal), signal);
  await releases.point('current', first);
  const units = createProcessUnits(home, variables);
  await units.restart('forward');
  const printed: string[] = [];
  return {
    releases,
    printed,
    deps: {
      releases,
      units,
      async preflight(folder) {
        const main = join(folder, 'src/main.ts');
        const { stdout } = await run(process.execPath, [main, 'preflight', '--json'], {
          env: environmentOf({ ...variables, NODE_COMPILE_CACHE: join(home, 'cache') }),
        });
        return preflightSchema.parse(JSON.parse(stdout));
      },
      readsFormat: streamFormat.reads,
      clock,
      print: (line) => void printed.push(line),
    },
    async release(path, change) {
      const text = await readFile(join(work, path), 'utf8');
      const changed = change(text);
      if (changed === text) throw new Error(`nothing changed in ${path}`);
      await writeFile(join(work, path), changed);
      return commit();
    },
    running: () => units.running(),
    stop: () => units.stop(),
  };
}

const environmentOf = (variables: Record<string, string>) => ({
  PATH: process.env['PATH'],
  HOME: process.env['HOME'],
  ...variables,
});

/** Restarted as units are: told to end, waited for, started again, one after another. */
function createProcessUnits(
  home: string,
  variables: Record<string, string>,
): Units & { running(): Promise<string[]>; stop(): Promise<void> } {
  const children = new Map<string, { process: ChildProcess; output: string; folder: string }>();
  let urls: readonly string[] = [`http://127.0.0.1:${variables['PORT']}`];

  async function stopRole(role: string): Promise<void> {
    const child = children.get(role)?.process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }

  async function startRole(role: string): Promise<void> {
    const folder = await run('readlink', ['-f', join(home, 'current')]).then(({ stdout }) => stdout.trim());
    const args = [join(folder, 'src/main.ts'), 'serve', '--only', role];
    const process_ = spawn(process.execPath, args, {
      cwd: home,
      env: environmentOf({
        ...variables,
        NODE_COMPILE_CACHE: join(home, 'cache'),
        DATA_DIR: join(home, 'data', role),
      }),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const child = { process: process_, output: '', folder };
    children.set(role, child);
    for (const stream of [process_.stdout, process_.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (child.output += text));
    const started = new Promise<void>((resolve, reject) => {
      process_.stdout.on('data', () => child.output.includes('"daemon.started"') && resolve());
      process_.once('exit', () => reject(new Error(`${role} ended: ${child.output.slice(-500)}`)));
    });
    await started;
  }

  return {
    async install() {},
    async restart(direction) {
      for (const role of direction === 'forward' ? ROLES : ROLES.toReversed()) {
        await stopRole(role);
        await startRole(role);
      }
    },
    async watch(watched) {
      urls = watched;
    },
    async faults() {
      const dead = [...children].filter(([, { process: child }]) => child.exitCode !== null);
      const answers = urls.map((url) =>
        fetch(`${url}/healthz`).then(
          ({ status }) => (status === 200 ? [] : [`${url} answers ${status}`]),
          () => [`${url} does not answer`],
        ),
      );
      return [...dead.map(([role]) => `${role} has ended`), ...(await Promise.all(answers)).flat()];
    },
    running: async () => [...children.values()].map(({ folder }) => folder.slice(-12)),
    async stop() {
      await Promise.all(ROLES.map(stopRole));
    },
  };
}
