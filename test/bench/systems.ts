/**
 * The systems that the benchmark compares, each started over an empty folder and ended with all it needs:
 * Millrace on its two stores, the peers in `peers/`, and the floor. All take the same webhook.
 */
import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { programFlags, programVariables } from '../../src/launch.mjs';
import { freePort, startDaemon } from '../e2e/daemon.ts';
import { startS2Lite } from '../streams/s2-lite.ts';
import { BENCH_API_KEY, BENCH_DOMAIN, BENCH_SECRET } from './load.ts';

export interface SystemOptions {
  readonly name: SystemName;
  readonly directory: string;
  readonly resendUrl: string;
  readonly inboxes: number;
  /** Write a CPU profile of the daemon into this folder. */
  readonly profileInto?: string;
}

export interface RunningSystem {
  readonly webhookUrl: string;
  /** The processes to be counted, with their children; the first is the daemon or program itself. */
  readonly pids: readonly number[];
  stop(): Promise<void>;
}

/** A peer's name ends with its job (`peers/mail-work.mjs`); Millrace's is the whole. */
export const systemNames = [
  'millrace-local',
  'millrace-s2',
  'bullmq-whole',
  'restate-whole',
  'dbos-whole',
  'floor-whole',
  'bullmq-text',
  'restate-text',
  'dbos-text',
  'bento-text',
  'floor-text',
] as const;
export type SystemName = (typeof systemNames)[number];

const START_TIMEOUT_MS = 60_000;
const root = fileURLToPath(new URL('../..', import.meta.url));
const peersFolder = fileURLToPath(new URL('peers', import.meta.url));
const bentoBinary = join(root, 'node_modules/.cache/millrace/bento-1.10.0');

export async function startSystem(options: SystemOptions): Promise<RunningSystem> {
  const stack = new AsyncDisposableStack();
  try {
    writeTools(toolsOf(options), options.inboxes);
    const started = await starters[options.name](options, stack);
    return { ...started, stop: () => stack.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

type Started = Omit<RunningSystem, 'stop'>;
type Starter = (options: SystemOptions, stack: AsyncDisposableStack) => Promise<Started>;

const starters: Record<SystemName, Starter> = {
  'millrace-local': (options, stack) => startMillrace(options, stack, {}),
  'millrace-s2': startMillraceOnS2,
  'bullmq-whole': startBullmq,
  'restate-whole': startRestate,
  'dbos-whole': startDbos,
  'floor-whole': startFloor,
  'bullmq-text': startBullmq,
  'restate-text': startRestate,
  'dbos-text': startDbos,
  'bento-text': startBento,
  'floor-text': startFloor,
};

async function startMillraceOnS2(options: SystemOptions, stack: AsyncDisposableStack): Promise<Started> {
  const lite = await startS2Lite({ directory: join(options.directory, 's2') });
  stack.defer(() => lite.stop());
  const endpoints = { S2_ACCOUNT_ENDPOINT: lite.url, S2_BASIN_ENDPOINT: lite.url };
  const millrace = await startMillrace(options, stack, { S2_ACCESS_TOKEN: 'ignored', ...endpoints });
  return { ...millrace, pids: [...millrace.pids, lite.pid] };
}

async function startBullmq(options: SystemOptions, stack: AsyncDisposableStack): Promise<Started> {
  const redis = await startRedis(options, stack);
  return startPeer(
    'bullmq',
    { ...options, env: { REDIS_PORT: String(redis.port) }, pids: [redis.pid] },
    stack,
  );
}

/**
 * Bento in its streams mode: two pipelines in one program, and a Redis stream between them, because a buffer of its own
 * that is on disk before the answer it does not have (its SQLite buffer sets `synchronous = 0`). It runs no JavaScript:
 * of the two jobs it has the one that needs none.
 */
async function startBento(options: SystemOptions, stack: AsyncDisposableStack): Promise<Started> {
  const redis = await startRedis(options, stack);
  const port = await freePort();
  const file = (name: string): string => join(peersFolder, 'bento', `${name}.yaml`);
  const streams = ['streams', '--no-api', '--prefix-stream-endpoints=false', file('receive'), file('answer')];
  const program = startServer(bentoBinary, ['--config', file('service'), ...streams], stack, {
    PORT: String(port),
    REDIS_PORT: String(redis.port),
    RESEND_BASE_URL: options.resendUrl,
    RESEND_API_KEY: BENCH_API_KEY,
    RESEND_WEBHOOK_SECRET: BENCH_SECRET,
  });
  await listening(port, program);
  return { webhookUrl: `http://127.0.0.1:${port}/webhooks/resend`, pids: [program.pid!, redis.pid] };
}

/** Redis as BullMQ's guide for production has it, but durable at each write. */
async function startRedis(
  options: SystemOptions,
  stack: AsyncDisposableStack,
): Promise<{ port: number; pid: number }> {
  const port = await freePort();
  const directory = makeDirectory(options, 'redis');
  const settings = ['--dir', directory, '--appendonly', 'yes', '--appendfsync', 'always', '--save', ''];
  const eviction = ['--maxmemory-policy', 'noeviction', '--bind', '127.0.0.1'];
  const redis = startServer('redis-server', ['--port', String(port), ...settings, ...eviction], stack);
  await listening(port, redis);
  return { port, pid: redis.pid! };
}

async function startRestate(options: SystemOptions, stack: AsyncDisposableStack): Promise<Started> {
  const [ingress, admin, node, service] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const env = {
    RESTATE_BASE_DIR: makeDirectory(options, 'restate'),
    RESTATE_INGRESS__BIND_ADDRESS: `127.0.0.1:${ingress}`,
    RESTATE_ADMIN__BIND_ADDRESS: `127.0.0.1:${admin}`,
    RESTATE_BIND_ADDRESS: `127.0.0.1:${node}`,
    RESTATE_ADVERTISED_ADDRESS: `http://127.0.0.1:${node}`,
    RESTATE_LOG_FILTER: 'warn',
    DO_NOT_TRACK: '1',
  };
  const binary = join(peersFolder, 'node_modules/.bin/restate-server');
  const server = startServer(binary, ['--node-name', 'bench'], stack, env);
  await Promise.all([listening(ingress, server), listening(admin, server)]);
  const ports = { INGRESS_PORT: String(ingress), SERVICE_PORT: String(service) };
  const peer = await startPeer('restate', { ...options, env: ports, pids: [server.pid!] }, stack);
  await registered(admin, service);
  return peer;
}

/** PostgreSQL as it comes: `fsync` and `synchronous_commit` on. It refuses to run as root. */
async function startDbos(options: SystemOptions, stack: AsyncDisposableStack): Promise<Started> {
  const port = await freePort();
  const directory = makeDirectory(options, 'postgres');
  const bin = execFileSync('pg_config', ['--bindir'], { encoding: 'utf8' }).trim();
  const user = process.getuid?.() === 0 ? postgresUser(directory) : {};
  execFileSync(join(bin, 'initdb'), ['-D', directory, '-U', 'bench', '-A', 'trust'], {
    ...user,
    stdio: 'ignore',
    cwd: '/',
  });
  const settings = ['-p', String(port), '-c', 'listen_addresses=127.0.0.1', '-c', `unix_socket_directories=`];
  const postgres = startServer(join(bin, 'postgres'), ['-D', directory, ...settings], stack, {}, user);
  await listening(port, postgres);
  const url = `postgresql://bench@127.0.0.1:${port}/bench`;
  return startPeer(
    'dbos',
    { ...options, env: { DBOS_SYSTEM_DATABASE_URL: url }, pids: [postgres.pid!] },
    stack,
  );
}

function startFloor(options: SystemOptions, stack: AsyncDisposableStack): Promise<Started> {
  return startPeer('floor', { ...options, env: {}, pids: [] }, stack);
}

async function startMillrace(
  options: SystemOptions,
  stack: AsyncDisposableStack,
  s2: Record<string, string>,
): Promise<Started> {
  const { directory, resendUrl, profileInto } = options;
  const port = await freePort();
  const variables = {
    MAIL_DOMAIN: BENCH_DOMAIN,
    RESEND_API_KEY: BENCH_API_KEY,
    RESEND_BASE_URL: resendUrl,
    RESEND_WEBHOOK_SECRET: BENCH_SECRET,
    STREAMS: Object.keys(s2).length > 0 ? 's2' : 'local',
    DATA_DIR: join(directory, 'data'),
    TOOLS_PATH: toolsOf(options),
    PORT: String(port),
    ...programVariables(root),
    ...s2,
  };
  const profiling = profileInto === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profileInto}`];
  // As the launcher starts it.
  const daemon = await startDaemon(variables, [], [...programFlags, ...profiling]);
  stack.defer(async () => void (await daemon.stop()));
  return { webhookUrl: `http://127.0.0.1:${port}/webhooks/resend`, pids: [daemon.pid] };
}

function toolsOf({ directory }: SystemOptions): string {
  return join(directory, 'tools');
}

/** The reverser of the examples, under as many names as there are inboxes. */
function writeTools(directory: string, inboxes: number): void {
  mkdirSync(directory, { recursive: true });
  copyFileSync(
    fileURLToPath(new URL('../../tools/reverser.ts', import.meta.url)),
    join(directory, 'reverser.ts'),
  );
  const names = Array.from({ length: inboxes }, (_, index) => `reverser as box${index}`);
  writeFileSync(join(directory, 'index.ts'), `export { ${names.join(', ')} } from './reverser.ts';\n`);
}

interface PeerOptions extends SystemOptions {
  readonly env: Record<string, string>;
  readonly pids: readonly number[];
}

async function startPeer(peer: string, options: PeerOptions, stack: AsyncDisposableStack): Promise<Started> {
  const port = await freePort();
  const env = {
    PORT: String(port),
    RESEND_BASE_URL: options.resendUrl,
    RESEND_API_KEY: BENCH_API_KEY,
    RESEND_WEBHOOK_SECRET: BENCH_SECRET,
    MAIL_DOMAIN: BENCH_DOMAIN,
    DATA_DIR: makeDirectory(options, peer),
    TOOLS_PATH: toolsOf(options),
    PEER_JOB: options.name.endsWith('-whole') ? 'whole' : 'text',
    NODE_ENV: 'production',
    // What is Millrace's is compiled once for all runs, as the launcher has it.
    ...programVariables(root),
    ...options.env,
  };
  const program = startServer(process.execPath, [join(peersFolder, peer, 'main.mjs')], stack, env);
  await listening(port, program);
  return { webhookUrl: `http://127.0.0.1:${port}/webhooks/resend`, pids: [program.pid!, ...options.pids] };
}

function startServer(
  command: string,
  args: readonly string[],
  stack: AsyncDisposableStack,
  env: Record<string, string> = {},
  user: { uid?: number; gid?: number } = {},
): ChildProcess {
  const paths = { PATH: process.env['PATH'], HOME: process.env['HOME'] };
  const stdio = process.env['BENCH_VERBOSE'] ? 'inherit' : 'ignore';
  const child = spawn(command, args, { stdio, env: { ...paths, ...env }, cwd: '/', ...user });
  const exited = once(child, 'exit');
  stack.defer(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGINT');
    await Promise.race([exited, delay(5_000, undefined, { ref: false })]);
    child.kill('SIGKILL');
    await exited;
  });
  return child;
}

async function listening(port: number, child: ChildProcess): Promise<void> {
  for (
    const startedMs = performance.now();
    performance.now() - startedMs < START_TIMEOUT_MS;
    await delay(50)
  ) {
    if (child.exitCode !== null)
      throw new Error(`${child.spawnfile} ended with ${child.exitCode}; BENCH_VERBOSE=1 shows why`);
    const socket = connect(port, '127.0.0.1');
    const isOpen = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (isOpen) return;
  }
  throw new Error(`${child.spawnfile} does not listen on ${port}`);
}

/** Restate finds its services by being told where they listen. */
async function registered(admin: number, service: number): Promise<void> {
  const body = JSON.stringify({ uri: `http://127.0.0.1:${service}` });
  for (let attempts = 0; attempts < 100; attempts++, await delay(200)) {
    const request = { method: 'POST', headers: { 'content-type': 'application/json' }, body };
    const response = await fetch(`http://127.0.0.1:${admin}/deployments`, request).catch(() => null);
    if (response?.ok) return;
  }
  throw new Error('Restate does not take the service');
}

function makeDirectory({ directory }: SystemOptions, name: string): string {
  const path = join(directory, `${name}-${Math.random().toString(36).slice(2)}`);
  mkdirSync(path, { recursive: true });
  return path;
}

function postgresUser(directory: string): { uid: number; gid: number } {
  const [uid, gid] = ['-u', '-g'].map((flag) =>
    Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' })),
  );
  chownSync(directory, uid!, gid!);
  // The folder around it is for its maker alone.
  chmodSync(dirname(directory), 0o755);
  return { uid: uid!, gid: gid! };
}

/** Installs the peers' packages, and builds Bento, which are none of the project's, where one of them is measured. */
export function installPeers(systems: readonly SystemName[]): void {
  const peers = systems.filter((name) => !name.startsWith('millrace'));
  if (peers.includes('bento-text') && !existsSync(bentoBinary)) {
    process.stderr.write('building Bento, which takes some minutes\n');
    const goFolder = join(peersFolder, 'bento');
    execFileSync('go', ['build', '-o', bentoBinary, '.'], { cwd: goFolder, stdio: 'inherit' });
  }
  if (peers.length === 0 || existsSync(join(peersFolder, 'node_modules'))) return;
  execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--ignore-scripts'], {
    cwd: peersFolder,
    stdio: 'inherit',
  });
}
