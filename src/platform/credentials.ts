/**
 * Secrets as the service manager hands them over: one file each in a folder that this service alone can read
 * (systemd's credentials). So no secret stands in an environment, where every child would inherit it.
 *
 * `LoadCredential=secret:FOLDER` names the files `secret_<VARIABLE>`; credentials of other names are not ours.
 */
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { isSecretVariable } from './roles.ts';

const PREFIX = 'secret_';
const MAX_SECRET_BYTES = 64 * 1024;

/**
 * The secrets of a credentials folder by variable. `prefix` is what stands before a variable in the name of its file.
 * @throws Error where the folder or a file of ours cannot be read, or a file is too large for a secret
 */
export function readCredentials(directory: string, prefix = PREFIX): Record<string, string> {
  const secrets: Record<string, string> = {};
  for (const file of readdirSync(directory)) {
    const variable = file.slice(prefix.length);
    if (!file.startsWith(prefix) || !isSecretVariable(variable)) continue;
    const path = join(directory, file);
    if (statSync(path).size > MAX_SECRET_BYTES)
      throw new Error(`${file} has more than ${MAX_SECRET_BYTES} bytes`);
    secrets[variable] = readFileSync(path, 'utf8');
  }
  return secrets;
}
