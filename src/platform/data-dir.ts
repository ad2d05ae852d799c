/**
 * The folder of `DATA_DIR`. Mail lies in it, so it is made for its owner alone. One that is there keeps its mode, which
 * somebody may have chosen (a unit's group, a volume); that everybody may look into it is said.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { errorMessage, MillraceError } from './errors.ts';
import { makeFolder } from './make-folder.ts';

const { W_OK, X_OK } = constants;
const OF_OTHERS = 0o007;

/**
 * Makes it, unless it is there.
 * @returns whether every user of this machine may look into it
 * @throws MillraceError `config.data_dir` (invalid) where it cannot be made, or nothing can be written in it
 */
export function makeDataDir(path: string): { isOpenToAll: boolean } {
  try {
    makeFolder(path, 0o700);
    accessSync(path, W_OK | X_OK);
    return { isOpenToAll: (statSync(path).mode & OF_OTHERS) !== 0 };
  } catch (cause) {
    const message = `DATA_DIR=${path} cannot be written: ${errorMessage(cause)}`;
    const hint = 'Set DATA_DIR to a folder that this user may write, or give it to this user with chown.';
    throw new MillraceError('invalid', 'config.data_dir', message, { hint, cause });
  }
}
