/**
 * The environment of a program of ours that a test starts: of the test's own, what every program needs; the compile
 * cache that the launcher sets, because without it loading the sources is half of a short life; and nothing else.
 */
import { fileURLToPath } from 'node:url';
import { programVariables } from '../src/launch.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

export function programEnvironment(variables: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const { PATH, HOME } = process.env;
  return { PATH, HOME, ...programVariables(root), ...variables };
}
