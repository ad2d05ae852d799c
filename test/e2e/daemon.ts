/**
 * The real daemon as a process of its own, for end-to-end tests: started, watched, killed.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { programEnvironment } from '../program-environment.ts';

export { freePort } from '../streams/s2-lite.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const START_TIMEOUT_MS = 30_000;

export interface Daemon {
  readonly url: string;
  readonly pid: number;
  readonly adminToken: string;
  readonly dataDir: string;
  /** What it printed on both outputs so far. */
  output(): string;
  /** SIGTERM, and waits; resolves to the exit code. */
  stop(): Promise<number | null>;
  /** SIGKILL, and waits. */
  kill(): Promise<void>;
}

/** A folder that is gone after the test. */
export async function temporaryDirectory(): Promise<{
  path: string;
  [Symbol.asyncDispose](): Promise<void>;
}> {
  const path = await mkdtemp(join(tmpdir(), 'millrace-e2e-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Starts `serve` with exactly these variables (and PATH), and Node with these flags, and waits until it is healthy. */
export async function startDaemon(
  variables: Record<string, string>,
  args: readonly string[] = [],
  nodeFlags: readonly string[] = [],
): Promise<Daemon> {
  const child = spawn(process.execPath, [...nodeFlags, 'src/main.ts', 'serve', ...args], {
    cwd: root,
    env: programEnvironment(variables),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  const exited = once(child, 'exit');
  const dataDir = variables['DATA_DIR']!;
  const { url, token } = await waitForDaemonFile(dataDir, {
    pid: child.pid!,
    isDead: () => child.exitCode !== null,
    output: () => output,
  });
  return {
    url,
    adminToken: token,
    dataDir,
    pid: child.pid!,
    output: () => output,
    async stop() {
      child.kill('SIGTERM');
      await exited;
      return child.exitCode;
    },
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

interface Starting {
  pid: number;
  isDead(): boolean;
  output(): string;
}

async function waitForDaemonFile(dataDir: string, daemon: Starting): Promise<{ url: string; token: string }> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (performance.now() < deadline && !daemon.isDead()) {
    try {
      const file = JSON.parse(await readFile(join(dataDir, 'daemon.json'), 'utf8')) as {
        url: string;
        token: string;
        pid: number;
      };
      if (file.pid === daemon.pid && (await fetch(`${file.url}/healthz`)).ok) return file;
    } catch {
      // Not written or not listening yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`the daemon did not start:\n${daemon.output()}`);
}
