/**
 * `crashing-daemon.ts` and all that it imports as one file, with a compile cache beside it. Of a short life under the
 * load of the matrix, loading six hundred modules was half; what runs is the same code.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import type { Plugin } from 'esbuild';
import { programFlags } from '../../src/launch.mjs';

/** How to start a crashing daemon. */
export interface DaemonProgram {
  /** For Node: flags and the script. */
  readonly args: readonly string[];
  readonly variables: Readonly<Record<string, string>>;
}

const entry = fileURLToPath(new URL('crashing-daemon.ts', import.meta.url));
/** Below the packages, so that what is not bundled is found. */
const cache = fileURLToPath(new URL('../../node_modules/.cache/', import.meta.url));

/** The sources as they lie there. */
export const sourceProgram: DaemonProgram = { args: [...programFlags, entry], variables: {} };

export async function bundleDaemon(): Promise<DaemonProgram & AsyncDisposable> {
  await mkdir(cache, { recursive: true });
  const directory = await mkdtemp(join(cache, 'crash-matrix-'));
  const outfile = join(directory, 'crashing-daemon.mjs');
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    // One is native, one starts a program that lies beside it.
    external: ['isolated-vm', 'esbuild'],
    // For the CommonJS among the packages.
    banner: {
      js: `import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);`,
    },
    plugins: [knowingWhereTheyLay],
    logLevel: 'error',
  });
  const program = {
    args: [...programFlags, outfile],
    variables: { NODE_COMPILE_CACHE: join(directory, 'compiled') },
  };
  await fillCompileCache(program);
  return {
    ...program,
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

/** No package brings TypeScript. */
const OURS = /\.ts$/;

/** Our files read others beside them, by `import.meta.url`: each keeps its own. */
const knowingWhereTheyLay: Plugin = {
  name: 'import.meta.url',
  setup(setup) {
    setup.onLoad({ filter: OURS }, async ({ path }) => ({
      contents: (await readFile(path, 'utf8')).replaceAll(
        'import.meta.url',
        JSON.stringify(pathToFileURL(path).href),
      ),
      loader: 'ts',
    }));
  },
};

/** Node writes the cache when a process ends by itself, which those of the matrix do not: one that has no configuration does. */
async function fillCompileCache({ args, variables }: DaemonProgram): Promise<void> {
  const child = spawn(process.execPath, args, { env: { ...variables }, stdio: 'ignore' });
  await once(child, 'exit');
}
