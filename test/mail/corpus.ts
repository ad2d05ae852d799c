/**
 * The shared corpus of mail that others wrote. It is data of several licences and no part of this repository:
 * a test that needs it is skipped with a reason where it is missing, and fails where CI must have it.
 */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';

const root = resolve(import.meta.dirname, '../../../shared/corpus');

export const MISSING_CORPUS = `NOT RUN: the mail corpus is missing (${root})`;

export interface CorpusFile {
  /** Relative to the corpus, such as `mailauth/bimi.eml`. */
  readonly name: string;
  bytes(): Buffer;
}

/** Files that match a glob, in a stable order. Throws under `CI=true` where there is no corpus. */
export function corpusFiles(pattern: string): CorpusFile[] {
  if (!existsSync(root)) {
    if (process.env['CI'] === 'true') throw new Error(`the mail corpus is missing: ${root}`);
    // A skipped test is easily overlooked; this stands in the report of every run.
    process.emitWarning(MISSING_CORPUS);
    return [];
  }
  return globSync(pattern, { cwd: root })
    .sort()
    .map((name) => ({ name, bytes: () => readFileSync(resolve(root, name)) }));
}
