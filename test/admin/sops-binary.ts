/**
 * Where a real `sops` is: in `SOPS_BIN`, on the PATH, or where .ci/run puts it; and age keys to go with it. With
 * `REQUIRE_SOPS=1` its absence is a failure, otherwise it is said loudly.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, globSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';

export function sopsBinary(): string | null {
  const named = process.env['SOPS_BIN'];
  const onPath = (process.env['PATH'] ?? '').split(delimiter).map((directory) => join(directory, 'sops'));
  const built = globSync(join(homedir(), '.cache/millrace/sops-*/bin/sops')).toSorted().toReversed();
  const binary = (named ? [named] : [...onPath, ...built]).find((path) => existsSync(path)) ?? null;
  if (binary) return binary;
  const message =
    'no sops found (SOPS_BIN, PATH, ~/.cache/millrace): the encrypted file of secrets is NOT tested';
  if (process.env['REQUIRE_SOPS'] === '1') throw new Error(message);
  process.stderr.write(`\n*** ${message} ***\n\n`);
  return null;
}

/** Writes a new age identity. @returns its public key */
export function newAgeKey(path: string): string {
  const identity = execFileSync('age-keygen', { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  writeFileSync(path, identity, { mode: 0o600 });
  return /public key: (age1\w+)/.exec(identity)![1]!;
}
