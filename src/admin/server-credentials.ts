/**
 * The secrets for a command that root gives on a server: from where the units get them (`millrace secrets export`), in
 * memory only. For anybody else, and where there is no such folder, there are none; the environment may have them.
 */
import { readCredentials } from '../platform/credentials.ts';

const FOLDER = '/run/millrace/credentials/all';

/** By variable, for `loadConfig({ decrypted })`. */
export function serverCredentials(): Record<string, string> {
  try {
    return readCredentials(FOLDER, '');
  } catch {
    // Not there, or not for us: the configuration then says what it lacks.
    return {};
  }
}
