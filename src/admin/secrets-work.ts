/**
 * What `millrace secrets` does with values: each function is one command, on a file of secrets, through SOPS.
 * They print names, never a value.
 */
import { variableFault } from '../platform/config.ts';
import { MillraceError } from '../platform/errors.ts';
import { roles, secretsOfRole, secretVariables, TOOL_SECRET_PREFIX } from '../platform/roles.ts';
import type { Secret } from '../platform/secret.ts';
import { exportSecrets, forContainers } from './secrets-export.ts';
import { changeSecrets, checkedName, decryptedSecrets, readSecretsFile } from './secrets-file.ts';
import type { SecretsFile } from './secrets-file.ts';
import { PUBLIC_TEST_RECIPIENTS, readEncrypted } from './secrets-recipients.ts';
import type { Sops } from './sops.ts';

export interface SecretsDeps {
  readonly sops: Sops;
  readonly file: SecretsFile;
  /** For what was asked for. */
  readonly print: (text: string) => void;
  /** For what a person should know besides. */
  readonly warn: (text: string) => void;
}

/** Every secret that there is or could be, who needs it, and whether the file has it. No key is needed. */
export function listSecrets({ file, print }: SecretsDeps, json: boolean): void {
  const { names } = readEncrypted(readSecretsFile(file));
  const known = [...new Set([...secretVariables, ...names.toSorted()])];
  const rows = known.map((name) => ({
    name,
    neededBy: roles.filter((role) => secretsOfRole(role, [...names, name]).includes(name)),
    inFile: names.includes(name),
  }));
  if (json) return print(JSON.stringify(rows, null, 2));
  const width = Math.max(...known.map((name) => name.length));
  for (const { name, neededBy, inFile } of rows)
    print(`${name.padEnd(width)}  ${inFile ? 'there' : '-    '}  ${neededBy.join(', ') || 'nobody'}`);
}

/**
 * @throws MillraceError `secrets.unknown_name`, `secrets.invalid_value` (invalid); what `changeSecrets` and
 *   `sops.set` throw
 */
export async function setSecret(deps: SecretsDeps, name: string, value: Secret): Promise<void> {
  const { sops, file, print } = deps;
  const fault = variableFault(checkedName(name), value.reveal());
  if (fault !== null)
    throw new MillraceError('invalid', 'secrets.invalid_value', `${name} ${fault}`, {
      hint: 'Nothing was changed.',
    });
  await changeSecrets(file, ({ path }) => sops.set(path, name, value.reveal()));
  print(`${file.path}: ${name} is set.`);
  warnOfTestKey(deps);
}

/** @throws MillraceError `secrets.unknown_name` (invalid); what `changeSecrets` and `sops.unset` throw */
export async function unsetSecret({ sops, file, print }: SecretsDeps, name: string): Promise<void> {
  if (!readEncrypted(readSecretsFile(file)).names.includes(checkedName(name)))
    return print(`${file.path}: ${name} was not set.`);
  await changeSecrets(file, ({ path }) => sops.unset(path, name));
  print(`${file.path}: ${name} is no longer set.`);
}

/**
 * Decrypts and looks at every value.
 * @param options.testKeys whether public test keys may be among the recipients
 * @throws MillraceError (invalid) `secrets.invalid_value`, `secrets.unknown_name`, `secrets.public_test_key`; what `decryptedSecrets` throws
 */
export async function checkSecrets(deps: SecretsDeps, { testKeys }: { testKeys: boolean }): Promise<void> {
  const secrets = await decryptedSecrets(deps.sops, deps.file);
  const faults = [...secrets].flatMap(([name, value]) => {
    const fault = variableFault(checkedName(name), value);
    return fault === null ? [] : [`- ${name} ${fault}`];
  });
  if (faults.length > 0)
    throw new MillraceError('invalid', 'secrets.invalid_value', `${deps.file.path}:\n${faults.join('\n')}`, {
      hint: 'Set them again: millrace secrets set NAME',
    });
  if (!testKeys && hasTestKey(deps.file))
    throw new MillraceError('invalid', 'secrets.public_test_key', 'public test keys can read these secrets', {
      hint: 'Everybody has them. `millrace secrets add-recipient`, then `remove-recipient` for each of those.',
    });
  const names = [...secrets.keys()].toSorted();
  deps.print(
    `${deps.file.path}: ${names.length === 0 ? 'nothing is set' : `in order: ${names.join(', ')}`}.`,
  );
  warnOfTestKey(deps);
}

/** @throws MillraceError what `decryptedSecrets` and `exportSecrets` throw */
export async function exportToFolder(
  { sops, file, print }: SecretsDeps,
  options: { to: string; forContainers: boolean },
): Promise<void> {
  const secrets = await decryptedSecrets(sops, file);
  exportSecrets(secrets, options.to, options.forContainers ? forContainers : {});
  print(`${options.to}: ${secrets.size} secrets, for ${roles.join(', ')} and all.`);
}

/** In the editor; afterwards, names that nobody knows are told of. */
export async function editSecrets(deps: SecretsDeps): Promise<void> {
  await changeSecrets(deps.file, ({ path, configPath }) => deps.sops.edit(path, configPath));
  const { names } = readEncrypted(readSecretsFile(deps.file));
  const strange = names.filter(
    (name) => !secretVariables.includes(name) && !name.startsWith(TOOL_SECRET_PREFIX),
  );
  if (strange.length > 0) deps.warn(`Nobody is given these: ${strange.join(', ')}.`);
  warnOfTestKey(deps);
}

function warnOfTestKey({ file, warn }: SecretsDeps): void {
  if (!hasTestKey(file)) return;
  warn(
    `WARNING: ${file.path} can be read with public test keys, which everybody has. Add keys of your own by\n` +
      '`millrace secrets add-recipient`, then remove those by `millrace secrets remove-recipient`.',
  );
}

function hasTestKey(file: SecretsFile): boolean {
  const { recipients } = readEncrypted(readSecretsFile(file));
  return recipients.some((key) => PUBLIC_TEST_RECIPIENTS.includes(key));
}
