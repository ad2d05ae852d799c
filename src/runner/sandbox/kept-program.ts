/**
 * Keeps the sandbox process's program between starts of the daemon: to make it is more work than the process's own start.
 *
 * It lies in the folder of Node's compile cache, beside the daemon's own compiled code: who can write there already runs
 * what he likes as the daemon. It is used only as long as nothing that it is made of has changed, and only whole. Where
 * there is no such folder, or it cannot be written, the program is made each time.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { getCompileCacheDir } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildChildProgram, isolatedVm } from './programs.ts';

const FILE_NAME = 'sandbox-child.cjs';
const FOLDERS = ['.', 'guest', '../../platform'];
/** Says which packages: esbuild, and what the program takes from others. */
const LOCK_FILE = fileURLToPath(new URL('../../../package-lock.json', import.meta.url));
const DIGEST_CHARS = 64;

export async function childProgram(folder = getCompileCacheDir()): Promise<string> {
  if (folder === undefined) return buildChildProgram();
  const path = join(folder, FILE_NAME);
  const kept = readKept(path);
  if (kept !== null) return kept;
  const program = await buildChildProgram();
  keep(path, program);
  return program;
}

/** More than what goes into the program. */
export function programSources(): string[] {
  const folders = FOLDERS.map((name) => fileURLToPath(new URL(`${name}/`, import.meta.url)));
  return [LOCK_FILE, ...folders.flatMap(filesOf).filter((path) => path.endsWith('.ts'))];
}

function filesOf(folder: string): string[] {
  return readdirSync(folder).map((name) => join(folder, name));
}

function readKept(path: string): string | null {
  try {
    const file = readFileSync(path, 'utf8');
    const program = file.slice(DIGEST_CHARS);
    return file.startsWith(digestOf(program)) ? program : null;
  } catch {
    return null;
  }
}

function keep(path: string, program: string): void {
  try {
    const written = `${path}.${process.pid}`;
    writeFileSync(written, digestOf(program) + program, { mode: 0o600 });
    renameSync(written, path);
  } catch {
    // It is made again next time.
  }
}

/** Of the program and of all that it was made from. */
function digestOf(program: string): string {
  const hash = createHash('sha256').update(isolatedVm);
  for (const path of programSources()) hash.update(readFileSync(path));
  return hash.update(program).digest('hex');
}
