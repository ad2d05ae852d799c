/**
 * The shape of the house, which no lint rule knows. Each rule is a function from a source to what is wrong
 * with it; it is shown a bad source first, then all of ours. Exceptions stand here, with their reasons.
 */
import { basename } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseSource, readSources } from './source.ts';
import type { Source } from './source.ts';

/** A file imports from its own folder or an earlier one of these. */
const layers = ['platform', 'mail', 'streams', 'ingest', 'runner', 'outbox', 'admin'];
/** These meet only as records on streams. */
const stages = ['ingest', 'runner', 'outbox'];
/** They stand above all layers; app.ts alone puts the parts together. */
const compositionRoots = ['src/app.ts', 'src/command-line.ts', 'src/main.ts'];
const launcher = 'src/launch.mjs';

/** What a folder may construct although another one defines it. */
const sharedFactories: Record<string, string> = {
  createBudget: 'a count of what is taken, made by whoever has the limit',
  createDeadline: 'a timer that lives as long as one call',
  createFairQueue: 'a collection, made by whoever holds it',
  createFifo: 'a collection, made by whoever holds it',
  createResendClient: 'the SDK over our own transport, made by whoever has a key',
  createOutputAppender: 'appends until it is durable, for whoever writes beside a journal',
  createStage: 'every role is a stage with a handler of its own',
};

const manyExports: Record<string, string> = {
  'src/admin/admin-parameters.ts': 'what the routes of one API take stands side by side',
  'src/streams/records.ts': 'the schemas of all records stand side by side',
  'src/streams/stream-store.ts': 'the contract stands in one file, with the types that it speaks of',
  'src/runner/sandbox/sandbox.ts': 'the contract between the runner and its sandboxes stands in one file',
  'src/runner/tool-api.ts': 'the types that a tool author imports come from one place',
};

const MAX_EXPORTS = 8;
const MAX_FUNCTION_LINES = 70;
const VAGUE_NAMES =
  /^(?:utils?|helpers?|common|manager|types?|interfaces?|index|misc|shared)\.|-(?:utils?|helpers?)\./;

/** They write to the terminal by themselves. */
const ownOutput: Readonly<Record<string, string>> = {
  'src/launch.mjs': 'runs before anything can be imported',
  'src/admin/doctor/doctor-command.ts': 'colours, around what it has made printable',
  'src/admin/secret-input.ts': 'questions of its own',
  'src/admin/setup-commands.ts': 'a secret as it is, for the script that asked',
};

interface Rule {
  readonly name: string;
  readonly faultsOf: (source: Source) => string[];
  /** Path and text of a source that breaks it. */
  readonly bad: readonly [path: string, text: string][];
}

const rules: Rule[] = [
  {
    name: 'imports go down the layers, and stages do not know each other',
    faultsOf: ({ path, imports }) =>
      imports.filter(({ from }) => !mayImport(path, from)).map(({ from }) => from),
    bad: [
      ['src/platform/retry.ts', "import { a } from '../mail/a.ts';"],
      ['src/mail/a.ts', "import type { A } from '../streams/records.ts';"],
      ['src/runner/a.ts', "import { a } from '../ingest/a.ts';"],
      ['src/outbox/sandbox/a.ts', "export { a } from '../../runner/a.ts';"],
      ['src/streams/a.ts', "import { a } from '../app.ts';"],
      ['src/admin/a.ts', "import { a } from '../launch.mjs';"],
      ['src/mail/a.ts', "import { a } from '../../test/a.ts';"],
      ['src/elsewhere/a.ts', "import { a } from '../mail/a.ts';"],
      [launcher, "import { z } from 'zod';"],
    ],
  },
  {
    name: 'only app.ts constructs across folders',
    faultsOf: ({ path, imports }) =>
      compositionRoots.includes(path)
        ? []
        : imports
            .filter(({ from }) => from.startsWith('src/') && folderOf(from) !== folderOf(path))
            .flatMap(({ names }) => names)
            .filter((name) => /^create[A-Z]/.test(name) && !(name in sharedFactories)),
    bad: [['src/runner/a.ts', "import { createLog } from '../platform/log.ts';"]],
  },
  {
    name: 'files are named for what they hold',
    faultsOf: ({ path }) => (VAGUE_NAMES.test(basename(path)) ? [basename(path)] : []),
    bad: [
      ['src/mail/utils.ts', ''],
      ['src/mail/types.ts', ''],
      ['src/mail/index.ts', ''],
      ['src/mail/string-helpers.ts', ''],
    ],
  },
  {
    name: 'a file opens with prose: its job, its invariants, what it leaves to others',
    faultsOf: ({ text }) => (opensWithProse(text) ? [] : [text.slice(0, 40)]),
    bad: [
      [
        'src/mail/a.ts',
        "import { b } from './b.ts';\n/** Something that stands too late in order to be the opening. */",
      ],
      ['src/mail/a.ts', '/** Mail. */\nexport const a = 1;'],
    ],
  },
  {
    name: `a module exports at most ${MAX_EXPORTS} names`,
    faultsOf: ({ path, exportedNames }) =>
      exportedNames.length > MAX_EXPORTS && !(path in manyExports) ? [`${exportedNames.length} exports`] : [],
    bad: [
      ['src/mail/a.ts', Array.from({ length: 9 }, (_, index) => `export const a${index} = 1;`).join('\n')],
    ],
  },
  {
    // A factory is a list of functions: each of them counts, and what is left of the factory itself.
    name: `a function has at most ${MAX_FUNCTION_LINES} lines, less the functions inside of it`,
    faultsOf: ({ functions }) =>
      functions
        .filter(({ ownLines }) => ownLines > MAX_FUNCTION_LINES)
        .map(({ line, ownLines }) => `line ${line}: ${ownLines} lines`),
    bad: [
      ['src/mail/a.ts', `function a() {${'\n'.repeat(70)}}`],
      [
        'src/mail/a.ts',
        `const a = { b() { const c = () => {${'\n'.repeat(69)}}; return () => {${'\n'.repeat(70)}}; } };`,
      ],
      ['src/mail/a.ts', `class A { b() {${'\n'.repeat(40)} [].map(() => {\n\n\n}); ${'\n'.repeat(30)}} }`],
    ],
  },
  {
    name: 'the time of day comes from the clock',
    faultsOf: ({ path, calls }) =>
      path === 'src/platform/clock.ts' || path.startsWith('src/runner/sandbox/guest/')
        ? []
        : calls
            .filter(({ callee, args }) => /^(?:new )?Date$/.test(callee) && args.length === 0)
            .map(({ callee }) => callee),
    bad: [
      ['src/mail/a.ts', 'const a = new Date();'],
      ['src/mail/a.ts', 'const a = Date();'],
    ],
  },
  {
    name: 'what a person reads goes through platform/terminal.ts',
    faultsOf: ({ path, calls }) =>
      path === 'src/platform/terminal.ts' || path in ownOutput || path.startsWith('src/runner/sandbox/guest/')
        ? []
        : calls
            .filter(({ callee }) => /^(?:process\.std(?:out|err)\.write|console\.\w+)$/.test(callee))
            .map(({ callee }) => callee),
    bad: [
      ['src/mail/a.ts', 'process.stdout.write(text);'],
      ['src/mail/a.ts', 'const say = (text) => void process.stderr.write(text);'],
      ['src/mail/a.ts', 'console.log(text);'],
    ],
  },
];

const sources = readSources();

describe.each(rules)('$name', ({ faultsOf, bad }) => {
  it.each(bad)('is broken by bad source %$, %s', (path, text) => {
    expect(faultsOf(parseSource(path, text))).not.toEqual([]);
  });

  it('holds', () => {
    const faults = sources.flatMap((source) => faultsOf(source).map((fault) => `${source.path}: ${fault}`));
    expect(faults).toEqual([]);
  });
});

it('every exception is of a file or function that is there', () => {
  const paths = sources.map(({ path }) => path);
  const exported = sources.flatMap(({ exportedNames }) => exportedNames);
  expect(paths).toEqual(expect.arrayContaining([...Object.keys(manyExports), ...Object.keys(ownOutput)]));
  expect(exported).toEqual(expect.arrayContaining(Object.keys(sharedFactories)));
});

function folderOf(path: string): string {
  return path.split('/')[1] ?? '';
}

function mayImport(path: string, from: string): boolean {
  if (path === launcher) return from.startsWith('node:');
  const isPackage = !/^\.|^\/|^(?:src|test|tools|deploy)\//.test(from);
  if (isPackage) return true;
  if (!from.startsWith('src/') || from === launcher) return false;
  if (compositionRoots.includes(path)) return true;
  const [own, other] = [layers.indexOf(folderOf(path)), layers.indexOf(folderOf(from))];
  const areStages = stages.includes(folderOf(path)) && stages.includes(folderOf(from));
  return own === other ? own >= 0 : own > other && other >= 0 && !areStages;
}

function opensWithProse(text: string): boolean {
  const [, comment = ''] = /^(?:#!.*\n)?\/\*\*([^]*?)\*\//.exec(text) ?? [];
  return comment.replaceAll(/[\s*]+/g, ' ').trim().length >= 60;
}
