/**
 * `millrace init tools`: a repository to begin with, copied from the folder `starter`, and beside it the types that this
 * release offers. They are written into the repository, so that an editor has them without a package that would
 * have to be fetched, and so that a push shows when they change; what judges is the server's own copy.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { errorMessage, MillraceError } from '../../platform/errors.ts';
import { makeFolder } from '../../platform/make-folder.ts';

const starter = fileURLToPath(new URL('starter', import.meta.url));
const toolApi = fileURLToPath(new URL('../tool-api.ts', import.meta.url));
const toolFiles = fileURLToPath(new URL('../tool-files.d.ts', import.meta.url));
/** Where this Millrace is. */
const home = fileURLToPath(new URL('../../..', import.meta.url)).replace(/\/$/, '');

const TEMPLATE_SUFFIX = '.template';
/** Under these names there, they would count as ours. */
const TEMPLATES = {
  'package.json': 'package.json',
  'README.md': 'README.md',
  gitignore: '.gitignore',
  'tools/index.ts': 'tools/index.ts',
};
/** What the types take from another package, which a repository of tools need not have. */
const FOREIGN = /^export \{ html, raw \} from 'hono\/html';$/m;
const OWN = `export interface Html { toString(): string }
export declare function html(strings: TemplateStringsArray, ...values: unknown[]): Html | Promise<Html>;
export declare function raw(value: unknown): Html;`;

/**
 * Writes it.
 * @returns what to do next, for a person
 * @throws MillraceError `init.not_empty`, `init.unwritable` (invalid)
 */
export function writeStarter(folder: string): string {
  const target = resolve(folder);
  try {
    writeInto(target);
  } catch (error) {
    if (error instanceof MillraceError) throw error;
    throw new MillraceError(
      'invalid',
      'init.unwritable',
      `${target} cannot be written: ${errorMessage(error)}`,
      {
        hint: 'Name a new folder in one that you may write.',
        cause: error,
      },
    );
  }
  return [
    `${target} is written. Next:`,
    `  cd ${folder}`,
    '  npm test         # what the server checks before anything goes live',
    '  npm run dev      # change tools/index.ts and watch the reply',
  ].join('\n');
}

function writeInto(target: string): void {
  if (statSync(target, { throwIfNoEntry: false })?.isDirectory() === false)
    throw new MillraceError('invalid', 'init.not_empty', `${target} is a file`, {
      hint: 'Name a new folder.',
    });
  makeFolder(target);
  if (readdirSync(target).some((name) => name !== '.git'))
    throw new MillraceError('invalid', 'init.not_empty', `${target} is not empty`, {
      hint: 'Name a new folder: what is there is not written over.',
    });
  cpSync(starter, target, { recursive: true });
  for (const [name, path] of Object.entries(TEMPLATES)) {
    const template = join(target, `${name}${TEMPLATE_SUFFIX}`);
    writeFileSync(template, readFileSync(template, 'utf8').replaceAll('{{home}}', home));
    renameSync(template, join(target, path));
  }
  mkdirSync(join(target, 'types'));
  writeFileSync(join(target, 'types/millrace.d.ts'), toolTypes());
  cpSync(toolFiles, join(target, 'types/files.d.ts'));
}

/** The types that a tool imports, as a declaration that needs no other package. */
function toolTypes(): string {
  const source = readFileSync(toolApi, 'utf8');
  if (!FOREIGN.test(source))
    throw new MillraceError('bug', 'init.types_changed', 'tool-api.ts ends otherwise');
  return source.replace(FOREIGN, OWN);
}
