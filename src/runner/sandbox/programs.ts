/**
 * Makes the two programs of the sandbox from our own TypeScript: the guest's prelude, and around it the
 * child process's program. Both travel over the child's pipe, so that the child needs no file of ours.
 */
import { realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BuildOptions, Plugin } from 'esbuild';
import { buildAlone } from '../esbuild.ts';

/** The one file of isolated-vm that a child needs: found here, so that the child looks for nothing. */
export const isolatedVm = nativeFile(createRequire(import.meta.url).resolve('isolated-vm'));

/** Not bundled, and by its full path: what the child evaluates has no folder of its own to look from. */
export const isolatedVmByPath: Plugin = {
  name: 'isolated-vm',
  setup(setup) {
    setup.onResolve({ filter: /^isolated-vm$/ }, () => ({ path: isolatedVm, namespace: 'isolated-vm' }));
    setup.onResolve({ filter: /\.node$/ }, ({ path }) => ({ path, external: true }));
    setup.onLoad({ filter: /.*/, namespace: 'isolated-vm' }, () => ({
      contents: `module.exports=require(${JSON.stringify(isolatedVm)}).ivm`,
    }));
  },
};

/** The child's whole program, as CommonJS. */
export async function buildChildProgram(): Promise<string> {
  const prelude = await buildPrelude();
  return bundled('sandbox-child.ts', {
    format: 'cjs',
    define: { GUEST_PRELUDE: JSON.stringify(prelude) },
    plugins: [isolatedVmByPath],
  });
}

/**
 * A script whose value is a function: it takes the host's callback and returns `deliver`. As a script it is compiled
 * once for an isolate, whatever number of contexts it is evaluated in.
 */
async function buildPrelude(): Promise<string> {
  const [prelude, webClasses, webStreams] = await Promise.all([
    bundled('guest/prelude.ts', { format: 'iife', globalName: '__prelude' }),
    bundled('guest/web-classes.ts', { format: 'iife', globalName: '__webClasses' }),
    bundled('guest/web-streams.ts', { format: 'iife', globalName: '__webStreams' }),
  ]);
  const lazy = [
    madeOnce('$webClasses', `${webClasses};return __webClasses`),
    madeOnce('$webStreams', `${webStreams};return __webStreams`),
  ];
  return `(function($0){${lazy.join('')}${prelude};return __prelude.deliver})`;
}

/** A function whose body is evaluated, and before that compiled, when it is first called. */
function madeOnce(name: string, body: string): string {
  return `var ${name}$;function ${name}(){return ${name}$??=(function(){${body}})()}`;
}

async function bundled(file: string, options: BuildOptions): Promise<string> {
  const result = await buildAlone({
    ...options,
    entryPoints: [fileURLToPath(new URL(file, import.meta.url))],
    bundle: true,
    write: false,
    platform: options.format === 'cjs' ? 'node' : 'neutral',
    target: 'es2024',
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    tsconfigRaw: {},
    logLevel: 'silent',
  });
  return result.outputFiles[0]!.text;
}

/** Reads the program's frame from standard input and runs it: what stands on the child's command line. */
export const CHILD_LOADER = [
  `const {readSync}=require('fs')`,
  `const read=(n)=>{const b=Buffer.alloc(n);for(let o=0;o<n;){const r=readSync(0,b,o,n-o);if(!r)process.exit(1);o+=r}return b}`,
  `new Function('require',read(read(4).readUInt32BE()).toString())(require)`,
].join(';');

/** Does what a sandbox process does first, and ends: whether that works is what a protection is tried with. */
export const PROBE = `new(require(${JSON.stringify(isolatedVm)}).ivm.Isolate)().createContextSync()`;

/** Files that loading isolated-vm reads. */
export function childReadPaths(): string[] {
  return [isolatedVm];
}

/** Of the package with this main file: the compiled code that fits this Node and machine. */
function nativeFile(mainFile: string): string {
  const nodeGypBuild = createRequire(mainFile)('node-gyp-build') as { path: (folder: string) => string };
  return realpathSync(nodeGypBuild.path(dirname(mainFile)));
}
