/**
 * One world of the crash matrix: the daemon, and `s2 lite` where that is the store, each a process of its own, and what
 * is never killed and so lives in this process: the stand-in for Resend and a loopback server that tools call. Whatever
 * is killed comes back over the same data and on the same port.
 */
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { openLocalStoreReadOnly } from '../../src/streams/local-store.ts';
import { openS2Store } from '../../src/streams/s2-store.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { temporaryDirectory } from '../e2e/daemon.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { startResendStandIn } from '../resend-stand-in/resend-stand-in.ts';
import { startS2Lite } from '../streams/s2-lite.ts';
import type { S2Lite } from '../streams/s2-lite.ts';
import type { CrashingDaemonOptions } from './crashing-daemon.ts';
import { sourceProgram } from './daemon-bundle.ts';
import type { DaemonProgram } from './daemon-bundle.ts';
import type { KillPlan } from './kill-plan.ts';
import { programEnvironment } from '../program-environment.ts';

export type Streams = 'local' | 's2';
export const DOMAIN = 'agents.example';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const API_KEY = 're_crash';
const BASIN = 'agents-example';
const root = fileURLToPath(new URL('../..', import.meta.url));
/** Of what a daemon prints, the end is kept for the report of a failure. */
const KEPT_OUTPUT_CHARS = 20_000;
/** Linux gives connections ports from 32,768 on. */
const KEPT_PORTS = [15_000, 32_000] as const;

export interface CrashingDaemon {
  readonly pid: number;
  /** Resolves when the process is gone, however it ended. */
  readonly gone: Promise<void>;
  isGone(): boolean;
  /** It ended by SIGKILL, its own or ours. */
  wasKilled(): boolean;
  output(): string;
  arm(plan: KillPlan): void;
  /** SIGKILL, and waits. */
  kill(): Promise<void>;
  /** SIGTERM, and waits; resolves to the exit code. */
  stop(): Promise<number | null>;
}

/** Where the tool `held` calls: requests are answered at once, or held until somebody lets go of them. */
export interface HeldCalls {
  /** From now on calls are held; resolves at the n-th. */
  hold(nth: number): Promise<void>;
  release(): void;
}

export interface CrashWorld {
  readonly streams: Streams;
  /** Where the daemon listens. */
  readonly url: string;
  readonly resend: ResendStandIn;
  readonly calls: HeldCalls;
  /** Starts a daemon; the one before must be gone. It listens a moment later. */
  start(options?: CrashingDaemonOptions): CrashingDaemon;
  /** Kills the stream store (`s2` only); resolves to the port that is free now. */
  killStore(): Promise<number>;
  /** Starts it again over its data, on the same port. */
  startStore(): Promise<void>;
  /** The streams as they are now; the daemon must be gone, where the store is `local`. */
  openStreams(): Promise<StreamStore>;
  /** The `index.ts` of the tools, which a test may replace. */
  readonly toolsFile: string;
  /** Runs a command of ours, as an operator does. */
  millrace(...args: string[]): Promise<void>;
  /** Copies the streams beside the daemon; one copy, the newest. */
  backup(): Promise<void>;
  /** The disk dies; the daemon must be gone. For `local`. */
  loseStreams(): Promise<void>;
  /** Puts the copy back onto new streams. */
  restore(): Promise<void>;
  stop(): Promise<void>;
}

export async function createCrashWorld(
  streams: Streams,
  program: DaemonProgram = sourceProgram,
): Promise<CrashWorld> {
  const stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const port = await portToKeep();
  const url = `http://127.0.0.1:${port}`;
  const webhook = { url: `${url}/webhooks/resend`, secret: SECRET };
  const resend = await startResendStandIn({ apiKey: API_KEY, webhook });
  stack.defer(() => resend.stop());
  const { calls, url: callsUrl, close } = await startHeldCalls();
  stack.defer(close);
  await writeTools(join(directory.path, 'tools'), callsUrl);
  const storeDirectory = join(directory.path, 's2');
  let lite: S2Lite | null =
    streams === 's2' ? await startS2Lite({ directory: storeDirectory, port: await portToKeep() }) : null;
  stack.defer(async () => {
    await lite?.stop();
  });
  const dataDir = join(directory.path, 'data');
  const variables: Record<string, string> = {
    MAIL_DOMAIN: DOMAIN,
    RESEND_API_KEY: API_KEY,
    RESEND_BASE_URL: resend.url,
    RESEND_WEBHOOK_SECRET: SECRET,
    STREAMS: streams,
    DATA_DIR: dataDir,
    TOOLS_PATH: join(directory.path, 'tools'),
    PORT: String(port),
    LOG_LEVEL: 'warn',
    ...program.variables,
    ...(lite && { S2_ACCESS_TOKEN: 'ignored', S2_ACCOUNT_ENDPOINT: lite.url, S2_BASIN_ENDPOINT: lite.url }),
  };
  let daemon: CrashingDaemon | undefined;
  stack.defer(async () => {
    await daemon?.kill();
  });
  return {
    streams,
    url,
    resend,
    calls,
    start(options = {}) {
      daemon = spawnDaemon([...program.args, JSON.stringify(options)], variables);
      return daemon;
    },
    async killStore() {
      await lite?.kill('SIGKILL');
      return lite?.port ?? 0;
    },
    async startStore() {
      if (lite) lite = await startS2Lite({ directory: storeDirectory, port: lite.port });
    },
    openStreams: () => openStreams(dataDir, lite?.url ?? null),
    toolsFile: join(directory.path, 'tools', 'index.ts'),
    millrace: (...args) => millrace(variables, ...args),
    backup: () => millrace(variables, 'backup', join(directory.path, 'backup.gz')),
    loseStreams: () => rm(dataDir, { recursive: true }),
    restore: () => millrace(variables, 'restore', join(directory.path, 'backup.gz')),
    stop: () => stack.disposeAsync(),
  };
}

async function millrace(variables: Record<string, string>, ...args: string[]): Promise<void> {
  const env = programEnvironment(variables);
  const command = ['src/main.ts', ...args];
  await promisify(execFile)(process.execPath, command, { cwd: root, env });
}

function spawnDaemon(args: readonly string[], variables: Record<string, string>): CrashingDaemon {
  const child: ChildProcess = spawn(process.execPath, args, {
    cwd: root,
    env: programEnvironment(variables),
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout!, child.stderr!])
    stream
      .setEncoding('utf8')
      .on('data', (text: string) => (output = (output + text).slice(-KEPT_OUTPUT_CHARS)));
  // A plan that is written to a process that has just died is of no use to anybody.
  child.stdin!.on('error', () => {});
  const { promise: gone, resolve } = Promise.withResolvers<void>();
  child.once('exit', () => resolve());
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal);
    await gone;
  };
  return {
    pid: child.pid!,
    gone,
    isGone: () => child.exitCode !== null || child.signalCode !== null,
    wasKilled: () => child.signalCode === 'SIGKILL',
    output: () => output,
    arm: (plan) => void child.stdin!.write(`${JSON.stringify(plan)}\n`),
    kill: () => end('SIGKILL'),
    async stop() {
      await end('SIGTERM');
      return child.exitCode;
    },
  };
}

/** A free port below those that connections are given: while its owner is dead, none of them takes it. */
async function portToKeep(): Promise<number> {
  for (;;) {
    const port = randomInt(...KEPT_PORTS);
    const server = createServer().listen(port, '127.0.0.1');
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    if (!isFree) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}

async function openStreams(dataDir: string, s2Url: string | null): Promise<StreamStore> {
  if (s2Url === null) return openLocalStoreReadOnly({ clock: systemClock }, { directory: dataDir });
  return openS2Store(
    { clock: systemClock, log: createLog('silent') },
    {
      basin: BASIN,
      accessToken: 'ignored',
      accountEndpoint: s2Url,
      basinEndpoint: s2Url,
      retentionFor: () => 'forever',
    },
  );
}

async function startHeldCalls(): Promise<{ calls: HeldCalls; url: string; close(): Promise<void> }> {
  let held: ServerResponse[] | null = null;
  let onCall = (): void => {};
  const server = createServer((_request, response) => {
    if (held) {
      held.push(response);
      onCall();
    } else response.end('go on');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const calls: HeldCalls = {
    hold(nth) {
      held = [];
      return new Promise((resolve) => {
        onCall = () => held && held.length >= nth && resolve();
      });
    },
    release() {
      for (const response of held ?? []) response.end('go on');
      held = null;
    },
  };
  return {
    calls,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

async function writeTools(directory: string, callsUrl: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  await writeFile(
    join(directory, 'index.ts'),
    `export const echo = (email) => email.text.trim();
export const held = async (email, { fetch }) => {
  await fetch('${callsUrl}/');
  return email.text.trim();
};
export const count = async (email, { state }) => {
  const last = (await state.get('last')) ?? 0;
  await state.set('last', last + 1);
  return String(last + 1);
};
export const settings = { held: { hosts: ['${callsUrl}'] } };
`,
  );
}
