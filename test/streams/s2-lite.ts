/**
 * A real `s2 lite` on a free port of this machine. The binary is looked for in `S2_BIN`, on the PATH, and where
 * `cargo install --root ~/.cache/millrace/s2-cli-VERSION s2-cli` puts it. It listens on all interfaces and asks
 * for no token: nothing but test data goes into it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export interface S2Lite {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Sends a signal and resolves when the process is gone. */
  kill(signal: NodeJS.Signals): Promise<void>;
  stop(): Promise<void>;
}

const START_TIMEOUT_MS = 30_000;

/** Where the binary is, or null; then says loudly what is not tested. With `REQUIRE_S2=1` that is a failure. */
export function s2Binary(): string | null {
  const named = process.env['S2_BIN'];
  const onPath = (process.env['PATH'] ?? '').split(delimiter).map((directory) => join(directory, 's2'));
  const built = globSync(join(homedir(), '.cache/millrace/s2-cli-*/bin/s2')).toSorted().toReversed();
  const binary = (named ? [named] : [...onPath, ...built]).find((path) => existsSync(path)) ?? null;
  if (binary) return binary;
  const message = 'no s2 binary found (S2_BIN, PATH, ~/.cache/millrace): tests against s2 lite do not run';
  if (process.env['REQUIRE_S2'] === '1') throw new Error(message);
  process.stderr.write(`\n*** ${message} ***\n\n`);
  return null;
}

/** Starts it over a directory, which outlives it; resolves when it is healthy. */
export async function startS2Lite(options: { directory: string; port?: number }): Promise<S2Lite> {
  const binary = s2Binary();
  if (!binary) throw new Error('no s2 binary');
  const port = options.port ?? (await freePort());
  const child = spawn(
    binary,
    ['lite', '--port', String(port), '--local-root', options.directory, '--no-dashboard'],
    { stdio: 'ignore' },
  );
  const exited = once(child, 'exit');
  // A test process that ends early must not leave a server behind.
  const end = (): void => void child.kill('SIGKILL');
  process.once('exit', end);
  child.once('exit', () => process.off('exit', end));
  const url = `http://127.0.0.1:${port}`;
  const isHealthy = async (): Promise<boolean> =>
    fetch(`${url}/health`).then(
      (response) => response.ok,
      () => false,
    );
  for (const startedMs = performance.now(); !(await isHealthy());) {
    if (child.exitCode !== null) throw new Error(`s2 lite ended with ${child.exitCode}`);
    if (performance.now() - startedMs > START_TIMEOUT_MS) throw new Error('s2 lite does not get healthy');
    await delay(50);
  }
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal);
    await exited;
  };
  return { url, port, pid: child.pid!, kill, stop: () => kill('SIGKILL') };
}

/** A loopback port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
