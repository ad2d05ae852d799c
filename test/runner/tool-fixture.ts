/** Tools written in a test, bundled from a folder of their own, and run in a real sandbox. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { bundleTools } from '../../src/runner/bundle.ts';
import type { ToolBundle } from '../../src/runner/bundle.ts';
import { createSandboxPool } from '../../src/runner/sandbox/pool.ts';
import type { PoolOptions } from '../../src/runner/sandbox/pool.ts';
import type { PlainContent, RunRequest, RunResult, SandboxPool } from '../../src/runner/sandbox/sandbox.ts';
import { email, limits } from './example-email.ts';

const folders: string[] = [];
// Registered here: one that a test registers while it runs is never called.
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A folder that holds these files, until the end of the test file. */
export function folderWith(files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-tools-'));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  folders.push(folder);
  return folder;
}

export { email, limits };

export interface Sandbox {
  readonly pool: SandboxPool;
  bundle(source: string | Record<string, string>): Promise<ToolBundle>;
  run(bundle: ToolBundle, request: Partial<RunRequest> & { exportName: string }): Promise<RunResult>;
  /** Runs the body of a tool, which sees `email` and `context`. */
  runBody(body: string, request?: Partial<RunRequest>): Promise<RunResult>;
}

/** A pool for the tests of a file. */
export function useSandbox(options: PoolOptions = { minChildren: 2, maxChildren: 2 }): Sandbox {
  const pool = createSandboxPool({ clock: systemClock, log: createLog('silent') }, options);
  beforeAll(() => pool.start());
  afterAll(() => pool.close());

  const sandbox: Sandbox = {
    pool,
    bundle: (source) => {
      const files = typeof source === 'string' ? { 'index.ts': source } : source;
      return bundleTools({ directory: folderWith(files), clock: systemClock, pool });
    },
    run: (bundle, request) =>
      pool.run({
        bundle,
        email,
        limits,
        capabilities: {},
        secrets: {},
        fairnessKey: 'test',
        signal: new AbortController().signal,
        ...request,
      }),
    runBody: async (body, request) => {
      const bundle = await sandbox.bundle(`export async function test(email, context) {\n${body}\n}`);
      return sandbox.run(bundle, { exportName: 'test', ...request });
    },
  };
  return sandbox;
}

/** The replies that it stated; null for no effect at all. Says what went wrong otherwise. */
export function repliesOf(result: RunResult): PlainContent[] | null {
  if (result.status !== 'returned') throw new Error(`${result.reason}: ${result.message}`);
  const replies = result.effects.filter(({ kind }) => kind === 'reply');
  return result.effects.length === 0
    ? null
    : replies.map(({ kind: _kind, place: _place, ...content }) => content);
}

/** The sandbox processes of this test file, or of another process that it started. */
export function sandboxPids(parent = process.pid): number[] {
  const children = readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').trim().split(' ');
  return children.map(Number).filter((pid) => textOf(`/proc/${pid}/cmdline`).includes('--permission'));
}

/** False for a process that has ended, also where nobody has asked for its end yet. */
export function isRunning(pid: number): boolean {
  return /^State:\s+[^ZX]/m.test(textOf(`/proc/${pid}/status`));
}

/** Empty where there is no such file (any more). */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
