/**
 * The type check of a revision against the types that tools are offered: the compiler's own messages, with
 * file, line and column.
 *
 * The compiler is ours (`typescript` 7, a program); the repository's own would be a stranger's code. It runs
 * as a child with an empty environment, held to a time and a size. It reads what files import, and so could
 * read any file of this machine into a message: of what it has read it gives a list, and where that has a file
 * outside of the repository, nothing that it said is shown. So the list decides, not what we would forbid.
 *
 * Of the author's tsconfig.json the strictness counts, and whose JSX it is (`jsx-source.ts`), and nothing else; without one it is not strict, because
 * what works shall not be refused for its style. What is imported is checked, JavaScript is not.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { Clock } from '../../platform/clock.ts';
import { createDeadline } from '../../platform/deadline.ts';
import { MillraceError } from '../../platform/errors.ts';
import { toolsEntry } from '../bundle.ts';
import { jsxSourceOf } from '../jsx-source.ts';
import type { ToolFiles } from '../tool-set.ts';

export interface TypeCheckOptions {
  /** Default 30 s. */
  timeoutMs?: number;
  /** Resident memory of the compiler. Default 1 GiB. */
  maxBytes?: number;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_MAX_BYTES = 1024 * 1024 * 1024;
const SIZE_CHECK_MS = 25;
const PAGE_BYTES = 4_096;
const MAX_OUTPUT_BYTES = 8 * 1024 * 1024;
const MAX_SHOWN_ERRORS = 20;
/** Where to stop looking for a tsconfig.json: folders are not nested deeper. */
const MAX_FOLDERS = 64;

/** What an author may ask for; everything else of a tsconfig.json says how to build, which is ours. */
const STRICTNESS = [
  'strict',
  'noImplicitAny',
  'strictNullChecks',
  'strictFunctionTypes',
  'strictBindCallApply',
  'strictPropertyInitialization',
  'strictBuiltinIteratorReturn',
  'noImplicitThis',
  'useUnknownInCatchVariables',
  'exactOptionalPropertyTypes',
  'noUncheckedIndexedAccess',
  'noPropertyAccessFromIndexSignature',
];
/** A package without types works all the same (TS7016). */
const TOLERATED = /error TS7016:/;
const HINT = 'Correct the types; the revision that was live stays live.';
/** Components of one library as elements of another. */
const OTHER_JSX = /error TS2786:/;
const JSX_HINT =
  'Is a template React’s? Begin its file with /** @jsxImportSource react */, or set jsxImportSource in tsconfig.json.';
/** What an author would take of Node. */
const INSTEAD: Readonly<Record<string, string>> = {
  process: ": in place of process.env, context.secret('NAME')",
  Buffer: ': Uint8Array, TextEncoder, btoa and atob do what it does',
  require: ': import it',
  module: ': export it',
};
/** Of files that the bundle takes as text or bytes, and the compiler knows nothing of. */
const ASSETS = readFileSync(new URL('../tool-files.d.ts', import.meta.url), 'utf8');

const compiler = compilerPath();
const toolApi = fileURLToPath(new URL('../tool-api.ts', import.meta.url));
const hono = dirname(dirname(fileURLToPath(import.meta.resolve('hono'))));

/**
 * @returns a function that throws MillraceError `tools.types_wrong` (invalid) with the compiler's messages,
 *   `tools.check_failed` (invalid) where there is no verdict within the limits, or one that may not be shown
 */
export function createTypeCheck(
  deps: { clock: Clock },
  options: TypeCheckOptions = {},
): (files: ToolFiles, signal: AbortSignal) => Promise<void> {
  return async ({ directory, root }, signal) => {
    const entry = toolsEntry(directory, root);
    if (!/\.[mc]?tsx?$/.test(entry)) return;
    const around = realpathSync(root ?? dirname(entry));
    const work = mkdtempSync(join(tmpdir(), 'millrace-types-'));
    try {
      const strictness = await strictnessAround(entry, around, (args) =>
        run(deps.clock, { args, cwd: around, signal, options }),
      );
      const assets = join(work, 'assets.d.ts');
      writeFileSync(assets, ASSETS);
      const project = join(work, 'tsconfig.json');
      writeFileSync(
        project,
        JSON.stringify({
          compilerOptions: compilerOptions(strictness, jsxSourceOf(entry, around)),
          files: [entry, assets],
        }),
      );
      const args = ['--project', project, '--pretty', 'false', '--listFiles'];
      const output = await run(deps.clock, { args, cwd: around, signal, options });
      judge(output, { around, work });
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  };
}

function compilerOptions(
  strictness: Record<string, boolean>,
  jsxImportSource: string,
): Record<string, unknown> {
  return {
    strict: false,
    ...strictness,
    noEmit: true,
    target: 'es2024',
    lib: ['esnext', 'dom', 'dom.iterable', 'dom.asynciterable'],
    module: 'esnext',
    moduleResolution: 'bundler',
    moduleDetection: 'force',
    types: [],
    jsx: 'react-jsx',
    jsxImportSource,
    allowImportingTsExtensions: true,
    resolveJsonModule: true,
    skipLibCheck: true,
    // As the bundle resolves them.
    paths: {
      millrace: [toolApi],
      'hono/jsx': [join(hono, 'dist/types/jsx/index.d.ts')],
      'hono/jsx/jsx-runtime': [join(hono, 'dist/types/jsx/jsx-runtime.d.ts')],
      'hono/html': [join(hono, 'dist/types/helper/html/index.d.ts')],
    },
  };
}

/** The nearest tsconfig.json from the tools to the root, as the compiler reads it; broken, it says nothing. */
async function strictnessAround(
  entry: string,
  root: string,
  compile: (args: string[]) => Promise<string>,
): Promise<Record<string, boolean>> {
  let folder = dirname(entry);
  for (let depth = 0; depth < MAX_FOLDERS; depth++) {
    const path = join(folder, 'tsconfig.json');
    if (statSync(path, { throwIfNoEntry: false })?.isFile()) {
      const shown = shownConfig.safeParse(parsedJson(await compile(['--showConfig', '--project', path])));
      const given = Object.entries(shown.data?.compilerOptions ?? {});
      return Object.fromEntries(
        given.filter(
          (option): option is [string, boolean] =>
            STRICTNESS.includes(option[0]) && typeof option[1] === 'boolean',
        ),
      );
    }
    if (folder === root) break;
    folder = dirname(folder);
  }
  return {};
}

const shownConfig = z.object({ compilerOptions: z.record(z.string(), z.unknown()) });

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The output is diagnostics, relative to the repository, and behind them absolute paths of what was read. */
function judge(output: string, { around, work }: { around: string; work: string }): void {
  const lines = output.split('\n').filter((line) => line !== '');
  const read = lines.filter((line) => line.startsWith(sep));
  const allowed = [around, work, hono, dirname(compiler)].map((folder) => realpathSync(folder) + sep);
  const outside = read.find((path) => {
    const real = realpathOf(path);
    return real !== toolApi && !allowed.some((folder) => real.startsWith(folder));
  });
  if (outside !== undefined) {
    throw checkFailed(
      'a file outside of the repository is imported for its types',
      'Import only what lies in the repository, and its packages.',
    );
  }
  const errors = diagnosticsIn(lines.filter((line) => !line.startsWith(sep))).filter(isOfAuthor);
  if (errors.length === 0) return;
  const shown = errors.slice(0, MAX_SHOWN_ERRORS).map(located).join('\n');
  throw new MillraceError('invalid', 'tools.types_wrong', withoutNode(shown), {
    hint: OTHER_JSX.test(shown) ? `${HINT} ${JSX_HINT}` : HINT,
  });
}

/** The compiler advises types of Node, which would pass here and fail in the sandbox. */
function withoutNode(text: string): string {
  return text.replaceAll(
    /(Cannot find name '(\w+)'\.) Do you need to install type definitions for node\?.*/g,
    (_all, said: string, name: string) =>
      `${said} Tools have nothing of Node (docs/tools.md says what there is)${INSTEAD[name] ?? ''}.`,
  );
}

/** One text each: the lines behind its first are indented. */
function diagnosticsIn(lines: readonly string[]): string[] {
  const found: string[] = [];
  for (const line of lines) {
    if (line.startsWith(' ') && found.length > 0) found.push(`${found.pop()}\n${line}`);
    else found.push(line);
  }
  return found;
}

/** Not what stands in a package's own sources, or in ours under a strictness that we did not write for. */
function isOfAuthor(diagnostic: string): boolean {
  return !TOLERATED.test(diagnostic) && !/^(?:\.\.\/|[^(]*\bnode_modules\/)/.test(diagnostic);
}

/** `file:line:column: message`, as the bundler's errors are written. */
function located(diagnostic: string): string {
  return diagnostic.replace(/^(.+?)\((\d+),(\d+)\): /, '$1:$2:$3: ');
}

function realpathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** What the compiler says, whatever its exit code. */
async function run(
  clock: Clock,
  call: { args: string[]; cwd: string; signal: AbortSignal; options: TypeCheckOptions },
): Promise<string> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, maxBytes = DEFAULT_MAX_BYTES } = call.options;
  const exceeded = new AbortController();
  using deadline = createDeadline(clock, timeoutMs, call.signal, exceeded.signal);
  const child = spawn(compiler, call.args, {
    cwd: call.cwd,
    env: {},
    stdio: ['ignore', 'pipe', 'ignore'],
    signal: deadline.signal,
    killSignal: 'SIGKILL',
  });
  const ended = new AbortController();
  const watching = watchMemory(clock, { child, maxBytes, exceeded }, ended.signal);
  const chunks: Buffer[] = [];
  let bytes = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > MAX_OUTPUT_BYTES) exceeded.abort();
    else chunks.push(chunk);
  });
  try {
    await once(child, 'close');
  } catch (cause) {
    call.signal.throwIfAborted();
    const limit = exceeded.signal.aborted ? `${maxBytes} bytes of memory` : `${timeoutMs} ms`;
    if (deadline.signal.aborted)
      throw checkFailed(`the type check needs more than ${limit}`, 'Make the types simpler.', cause);
    throw checkFailed(
      'the compiler does not start',
      'Is `typescript` installed whole? Run `npm ci` again.',
      cause,
    );
  } finally {
    ended.abort();
    await watching;
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function watchMemory(
  clock: Clock,
  options: { child: ChildProcess; maxBytes: number; exceeded: AbortController },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    if (residentBytes(options.child.pid) > options.maxBytes) return options.exceeded.abort();
    await clock.sleep(SIZE_CHECK_MS, signal).catch(() => {});
  }
}

function residentBytes(pid: number | undefined): number {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * PAGE_BYTES;
  } catch {
    return 0; // It has ended, or this is no Linux.
  }
}

/** The program itself: its launcher in JavaScript would cost a Node of its own. */
function compilerPath(): string {
  const require = createRequire(import.meta.resolve('typescript/package.json'));
  const name = `@typescript/typescript-${process.platform}-${process.arch}`;
  const folder = dirname(require.resolve(`${name}/package.json`));
  return join(folder, 'lib', process.platform === 'win32' ? 'tsc.exe' : 'tsc');
}

function checkFailed(message: string, hint: string, cause?: unknown): MillraceError {
  return new MillraceError('invalid', 'tools.check_failed', message, { hint, cause });
}
