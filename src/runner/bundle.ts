/**
 * Makes one script of a folder of tools, once for a revision, and looks at what it exports.
 *
 * Nothing of the folder runs here: esbuild reads it, without its tsconfig (but see `jsx-source.ts`) and plugins, and
 * a sandbox child evaluates the script. Each file that goes into the bundle lies, links followed, inside the
 * folder (or the repository around it) or is the part of our own packages that tools are offered.
 */
import { createHash } from 'node:crypto';
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { version as esbuildVersion } from 'esbuild';
import type { BuildOptions, Message, Metafile, OnLoadArgs, OnLoadResult, Plugin } from 'esbuild';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { errorMessage, MillraceError } from '../platform/errors.ts';
import { DEFAULT_INBOX } from '../streams/live-tools.ts';
import { buildAlone, isBuildFailure } from './esbuild.ts';
import { JSX_SOURCES, jsxSourceOf } from './jsx-source.ts';
import type { ExportKind, SandboxPool, ToolCode } from './sandbox/sandbox.ts';
import { inboxesOf } from './tool-inboxes.ts';
import { checkedSettings } from './tool-settings.ts';
import type { CheckedSettings } from './tool-settings.ts';
import { checkedTests } from './tool-tests.ts';
import type { CheckedTests } from './tool-tests.ts';

export interface ToolBundle extends ToolCode {
  /** Names of the exported functions. `settings` and `tests` are never tools. */
  exports: readonly string[];
  settings: CheckedSettings;
  /** Not run yet: see `tool-tests.ts`. */
  tests: CheckedTests;
}

/** Of esbuild: the largest bundles that are taken need a second. */
const MAX_BUILD_MS = 60_000;
const MAX_BUNDLE_BYTES = 5 * 1024 * 1024;
const MAX_SHOWN_ERRORS = 20;
const MAX_SHOWN_PARTS = 5;
/** The innermost, as packages have packages. */
const PACKAGE_IN_PATH = /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//;
/** Files in which esbuild heeds a comment that names a source map. */
const SOURCES = /\.(?:[cm]?[jt]sx?|css)$/;
const NAMED_MAP = 'sourceMappingURL=';
const NO_MAP = `${NAMED_MAP}data:application/json,{"version":3,"sources":[],"mappings":""}`;
const REVISION_CHARS = 12;
const ENTRY_NAMES = ['index.ts', 'index.tsx'];
/** Exports that say something about the tools rather than being one. */
const RESERVED_EXPORTS = ['settings', 'tests'];

/**
 * The script leaves its exports, or what evaluating it threw, where the prelude looks for them; so an error
 * becomes text inside of the isolate. It ends with a primitive: a function as its value would leak.
 */
const BANNER = `'use strict';var __millraceTools,__millraceError;try{`;
const FOOTER = `}catch(thrown){__millraceError={thrown}};0`;

const PACKAGES_PLACE = ': install it in their folder, or name the repository around them';

const toolApi = fileURLToPath(new URL('tool-api.ts', import.meta.url));
/** Its main file is dist/index.js. */
const hono = dirname(dirname(fileURLToPath(import.meta.resolve('hono'))));
/** What a tool may import of hono without having it: JSX and the `html` template. */
const OFFERED_OF_HONO = /^hono\/(?:jsx|html)(?:\/|$)/;

const OPTIONS = {
  bundle: true,
  format: 'iife',
  globalName: '__millraceTools',
  banner: { js: BANNER },
  footer: { js: FOOTER },
  platform: 'browser',
  // Packages that are one thing in Node and another where there is the Web alone, such as React's renderer.
  mainFields: ['browser', 'module', 'main'],
  conditions: ['workerd', 'edge-light', 'browser', 'module'],
  define: { 'process.env.NODE_ENV': '"production"' },
  target: 'es2024',
  jsx: 'automatic',
  // As `tool-files.d.ts` has them.
  loader: {
    '.html': 'text',
    '.md': 'text',
    '.csv': 'text',
    '.svg': 'text',
    '.png': 'binary',
    '.jpg': 'binary',
    '.gif': 'binary',
    '.pdf': 'binary',
  },
  sourcemap: 'external',
  sourcesContent: false,
  legalComments: 'none',
  nodePaths: [],
  tsconfigRaw: {},
  logLevel: 'silent',
} satisfies BuildOptions;

/** Names the way in which this release bundles: another one's bundle of the same files may differ. */
export const builder = createHash('sha256')
  .update(
    [JSON.stringify(OPTIONS), JSX_SOURCES.join(), esbuildVersion, readFileSync(toolApi, 'utf8')].join('\0'),
  )
  .digest('hex')
  .slice(0, REVISION_CHARS);

/**
 * @param options.directory a folder with an `index.ts` or `index.tsx`, or that file itself
 * @param options.root the repository around it, whose packages may be imported (default: the folder)
 * @throws MillraceError (invalid) `tools.build_failed`, `tools.inbox_conflict`, `tools.settings_invalid`,
 *   `tools.tests_invalid`; what `pool.inspect` throws
 */
export async function bundleTools(options: {
  directory: string;
  clock: Clock;
  pool: Pick<SandboxPool, 'inspect' | 'start'>;
  root?: string;
  signal?: AbortSignal;
}): Promise<ToolBundle> {
  const entry = toolsEntry(options.directory, options.root);
  // The first sandbox starts while the tools are bundled; what is wrong with it, `inspect` says.
  options.pool.start().catch(() => {});
  const built = await buildScript(entry, options.root ?? dirname(entry), options);
  const revision = createHash('sha256').update(built.code).digest('hex').slice(0, REVISION_CHARS);
  const inspection = await options.pool.inspect({ revision, ...built }, options.signal);
  if (inspection.status === 'failed') {
    throw buildFailed(`evaluating the tools: ${inspection.message}`);
  }
  const exports = toolsAmong(inspection.exports, basename(entry));
  // Looked at here, so that an author's own check says what a server would.
  inboxesOf(exports);
  const settings = checkedSettings(inspection.settings, exports);
  return { revision, ...built, exports, settings, tests: checkedTests(inspection.tests, exports) };
}

/** The names of the tools. @throws MillraceError `tools.build_failed` for what looks like one and could never answer */
function toolsAmong(found: readonly { name: string; kind: ExportKind }[], file: string): string[] {
  const named = (kind: ExportKind): string[] =>
    found.filter((one) => one.kind === kind).map(({ name }) => name);
  const tools = named('function');
  const reserved = [...tools, ...named('generator')].filter((name) => RESERVED_EXPORTS.includes(name));
  if (reserved.length > 0) throw buildFailed(`${reserved.join(', ')}: not a name for a tool`);
  const [generator] = named('generator');
  if (generator !== undefined) {
    const instead = 'return an array of replies in place of yielding them (`function`, not `function*`)';
    throw buildFailed(`${file}: ${generator} is a generator, which answers nothing: ${instead}`);
  }
  const catchAll = found.find(({ name }) => name === DEFAULT_INBOX);
  if (catchAll && catchAll.kind !== 'function') {
    const what = catchAll.kind === 'class' ? 'a class' : 'no function';
    throw buildFailed(
      `${file}: the default export is ${what}: it is the catch-all, a function of the email as all tools are`,
    );
  }
  if (tools.length > 0) return tools;
  const others = found.map(({ name }) => name).filter((name) => !RESERVED_EXPORTS.includes(name));
  const none = others.length === 0 ? '' : ` (${others.join(', ')}: no function)`;
  throw buildFailed(`${file} exports no function: each one is an inbox${none}`);
}

/**
 * The file that the tools begin with.
 * @throws MillraceError `tools.build_failed` (invalid)
 */
export function toolsEntry(directory: string, root?: string): string {
  const candidates = [...ENTRY_NAMES.map((name) => join(directory, name)), directory];
  const entry = candidates.find((path) => statSync(path, { throwIfNoEntry: false })?.isFile());
  // Of a repository: where it was fetched to says nothing to its author.
  const shown = root === undefined ? directory : relative(root, directory) || 'the repository';
  if (entry === undefined) throw buildFailed(`there is no index.ts or index.tsx in ${shown}`);
  return realpathSync(entry);
}

async function buildScript(
  entry: string,
  root: string,
  { clock, signal }: { clock: Clock; signal?: AbortSignal },
): Promise<{ code: string; sourceMap: string }> {
  const folder = dirname(entry);
  const around = realpathSync(root);
  using deadline = createDeadline(clock, MAX_BUILD_MS, signal);
  try {
    const { outputFiles, metafile } = await buildAlone(
      {
        ...OPTIONS,
        jsxImportSource: jsxSourceOf(entry, around),
        entryPoints: [entry],
        absWorkingDir: folder,
        outfile: join(folder, 'tools.js'),
        write: false,
        metafile: true,
        plugins: [guard(around)],
      },
      deadline.signal,
    );
    const text = (suffix: string): string =>
      outputFiles.find(({ path }) => path.endsWith(suffix))?.text ?? '';
    const code = text('.js');
    if (code.length > MAX_BUNDLE_BYTES) {
      const most = largestParts(metafile).join(', ');
      throw buildFailed(
        `the bundle has ${code.length} bytes; at most ${MAX_BUNDLE_BYTES} are taken. Most of it: ${most}`,
      );
    }
    return { code, sourceMap: text('.map') };
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof MillraceError) throw error;
    throw buildFailed(
      isBuildFailure(error) ? shownErrors(error.errors) : `bundling: ${errorMessage(error)}`,
      error,
    );
  }
}

/** Packages, and files of the author's own, that make the most of the bundle: `openai (1006747 bytes)`. */
function largestParts({ outputs }: Metafile): string[] {
  const bytesOf = new Map<string, number>();
  for (const { inputs } of Object.values(outputs))
    for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
      const part = PACKAGE_IN_PATH.exec(path)?.[1] ?? path;
      bytesOf.set(part, (bytesOf.get(part) ?? 0) + bytesInOutput);
    }
  const largest = [...bytesOf].toSorted(([, a], [, b]) => b - a).slice(0, MAX_SHOWN_PARTS);
  return largest.map(([part, bytes]) => `${part} (${bytes} bytes)`);
}

/** Holds every file that esbuild resolves or loads to the folders that it may read. */
function guard(root: string): Plugin {
  const honoRoot = realpathSync(hono);
  const isWithin = (path: string): boolean => path.startsWith(root + sep) || path.startsWith(honoRoot + sep);
  const isAllowed = (path: string): boolean => {
    const real = realpathSync(path);
    return real === toolApi || isWithin(real);
  };
  return {
    name: 'guard',
    setup(setup) {
      setup.onResolve(
        { filter: /.*/ },
        async ({ path, pluginData, kind, importer, resolveDir, with: attributes }) => {
          if (pluginData === guard) return undefined;
          // Most imports are such. To ask esbuild for one here is 15 ms of its CPU; where a link leads, `onLoad` sees.
          if (isRelative(path) && isWithin(resolve(resolveDir, path))) return undefined;
          if (path === 'millrace') return { path: toolApi };
          const isOffered = OFFERED_OF_HONO.test(path);
          const from = isOffered ? dirname(toolApi) : resolveDir;
          const options = { kind, importer, resolveDir: from, with: attributes, pluginData: guard };
          const resolved = await setup.resolve(path, options);
          if (resolved.errors.length > 0) return { errors: [{ text: unresolved(path) }] };
          if (resolved.external) return refusal(path);
          if (resolved.namespace === 'file' && !isAllowed(resolved.path))
            return refusal(path, isOfPackage(path) ? PACKAGES_PLACE : '');
          // esbuild finds the same again; from us it would not take that a package leaves it out on the Web.
          if (!isOffered) return undefined;
          return { path: resolved.path, namespace: resolved.namespace, sideEffects: resolved.sideEffects };
        },
      );
      setup.onLoad({ filter: /.*/, namespace: 'file' }, (file) =>
        isAllowed(file.path) ? withoutSourceMap(file) : refusal(file.path),
      );
      // Source that is written into an import can name a map, too.
      setup.onLoad({ filter: /.*/, namespace: 'dataurl' }, ({ path }) =>
        path.startsWith('data:application/json') ? undefined : refusal(path),
      );
    },
  };
}

/**
 * A source that names its map, with another one that is empty after it, as esbuild goes by the last: it would read
 * whatever file or device is named, and asks nobody. Undefined where esbuild may read the source itself.
 */
function withoutSourceMap({ path, with: attributes }: OnLoadArgs): OnLoadResult | undefined {
  // To read what is no plain file might never end.
  if (!statSync(path).isFile()) return { errors: [{ text: `${JSON.stringify(path)} is no plain file` }] };
  // What is imported as text or bytes is no source.
  if (!SOURCES.test(path) || attributes['type'] !== undefined) return undefined;
  const contents = readFileSync(path);
  if (!contents.includes(NAMED_MAP)) return undefined;
  const noMap = path.endsWith('.css') ? `/*# ${NO_MAP} */` : `//# ${NO_MAP}`;
  return { contents: `${contents.toString()}\n${noMap}\n`, loader: 'default' };
}

function unresolved(path: string): string {
  const name = JSON.stringify(path);
  if (isBuiltin(path))
    return `${name} is a module of Node, which tools have not: docs/tools.md says what there is`;
  return `Could not resolve ${name}${isOfPackage(path) ? ': is it in package.json and package-lock.json?' : ''}`;
}

function isRelative(path: string): boolean {
  return path.startsWith('./') || path.startsWith('../');
}

/** As opposed to a file. */
function isOfPackage(path: string): boolean {
  return /^[@a-z0-9]/i.test(path);
}

/** What a plugin of esbuild answers to refuse a file. */
function refusal(path: string, hint = ''): { errors: { text: string }[] } {
  return { errors: [{ text: `${JSON.stringify(path)} lies outside of the tools${hint}` }] };
}

function shownErrors(errors: readonly Message[]): string {
  return errors
    .slice(0, MAX_SHOWN_ERRORS)
    .map(({ location, text }) =>
      location ? `${location.file}:${location.line}:${location.column + 1}: ${text}` : text,
    )
    .join('\n');
}

function buildFailed(message: string, cause?: unknown): MillraceError {
  return new MillraceError('invalid', 'tools.build_failed', message, {
    hint: 'Correct the tools; the revision that was live stays live.',
    cause,
  });
}
