/**
 * What `millrace secrets` does with recipients: who can read the file, one more, one fewer, and a new file.
 * `.sops.yaml` and the file change together. Whoever is removed has read what was there: the data key is made
 * anew, so that an old copy of it opens nothing new, and the values themselves are to be changed by a person.
 */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { hasCode, MillraceError } from '../platform/errors.ts';
import { changeSecrets, readSecretsFile, readSopsConfig } from './secrets-file.ts';
import {
  checkedRecipient,
  configuredRecipients,
  newSopsConfig,
  PUBLIC_TEST_RECIPIENTS,
  readEncrypted,
  withoutRecipient,
  withRecipient,
} from './secrets-recipients.ts';
import type { Recipient } from './secrets-recipients.ts';
import type { SecretsDeps } from './secrets-work.ts';

export function listRecipients({ file, print, warn }: Omit<SecretsDeps, 'sops'>, json: boolean): void {
  const configured = configuredRecipients(readSopsConfig(file));
  const actual = readEncrypted(readSecretsFile(file)).recipients;
  const nameOf = new Map(configured.map(({ key, name }) => [key, name]));
  const recipients = actual.map((key): Recipient => ({ key, name: nameOf.get(key) ?? '' }));
  if (json) print(JSON.stringify(recipients, null, 2));
  else for (const { key, name } of recipients) print(`${key}  ${name}`.trimEnd());
  if (actual.some((key) => PUBLIC_TEST_RECIPIENTS.includes(key)))
    warn('Public test keys, which everybody has, are among them: deploy/public-test.age.key');
  const pending = configured.filter(({ key }) => !actual.includes(key));
  const unnamed = actual.filter((key) => !nameOf.has(key));
  if (pending.length + unnamed.length > 0)
    warn('.sops.yaml and the file do not agree: `sops updatekeys` makes the file follow .sops.yaml.');
}

/** @throws MillraceError `secrets.invalid_recipient` (invalid); what `changeSecrets` and `sops.updateKeys` throw */
export async function addRecipient(
  { sops, file, print }: SecretsDeps,
  { key, name }: Recipient,
): Promise<void> {
  const recipient = checkedRecipient(key, name);
  await changeSecrets(file, async ({ path, configPath }) => {
    writeFileSync(configPath, withRecipient(readSopsConfig(file), recipient));
    await sops.updateKeys(path, configPath);
  });
  print(`${file.path}: ${recipient.key} can read it.`);
}

/**
 * @param which a key, or the name of one recipient
 * @throws MillraceError (invalid) `secrets.no_recipient`, `secrets.last_recipient`, `secrets.own_key`
 */
export async function removeRecipient({ sops, file, print }: SecretsDeps, which: string): Promise<void> {
  const config = readSopsConfig(file);
  const recipients = configuredRecipients(config);
  const key = keyOf(recipients, which);
  if (recipients.length === 1)
    throw new MillraceError('invalid', 'secrets.last_recipient', 'nobody could read the file any more', {
      hint: 'Add another recipient first.',
    });
  await changeSecrets(file, async ({ path, configPath }) => {
    writeFileSync(configPath, withoutRecipient(config, key));
    await sops.updateKeys(path, configPath);
    try {
      await sops.rotate(path);
    } catch (cause) {
      if (!hasCode(cause, 'secrets.wrong_key')) throw cause;
      throw new MillraceError('invalid', 'secrets.own_key', 'this is the key that you work with yourself', {
        hint: 'Remove it from a machine that has another recipient’s key.',
        cause,
      });
    }
  });
  const { names } = readEncrypted(readSecretsFile(file));
  print(`${file.path}: ${key} can no longer read it.`);
  print(
    `It has read these, and old versions in Git stay readable to it: change them (millrace secrets set): ${names.join(', ')}.`,
  );
}

/**
 * Writes a new file of secrets, in which none is set, and its `.sops.yaml`.
 * @throws MillraceError `secrets.exists`, `secrets.invalid_recipient` (invalid); what `sops.encrypt` throws
 */
export async function initSecrets(
  { sops, file, print }: SecretsDeps,
  recipients: readonly Recipient[],
): Promise<void> {
  const checked = recipients.map(({ key, name }) => checkedRecipient(key, name));
  for (const path of [file.path, file.configPath]) {
    if (existsSync(path))
      throw new MillraceError('invalid', 'secrets.exists', `${path} is there already`, {
        hint: 'Add a recipient to it, or remove it.',
      });
  }
  writeFileSync(file.configPath, newSopsConfig(checked), { flag: 'wx' });
  try {
    const encrypted = await sops.encrypt('{}\n', file.path, file.configPath);
    writeFileSync(file.path, encrypted, { flag: 'wx', mode: 0o600 });
  } catch (error) {
    rmSync(file.configPath);
    throw error;
  }
  print(`${file.path}: written, for ${checked.length} recipients; no secret is set yet.`);
}

function keyOf(recipients: readonly Recipient[], which: string): string {
  const found = recipients.filter(({ key, name }) => key === which || (name !== '' && name === which));
  const [recipient] = found;
  if (recipient !== undefined && found.length === 1) return recipient.key;
  throw new MillraceError(
    'invalid',
    'secrets.no_recipient',
    recipient === undefined ? `${which} is no recipient` : `several recipients are called ${which}`,
    { hint: '`millrace secrets recipients` lists their keys and names.' },
  );
}
