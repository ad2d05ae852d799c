/**
 * The file of secrets with its `.sops.yaml`, on this machine. A change is made on copies in a folder beside
 * them and put in place by renaming: a command that breaks off leaves the old file or the new one. A change
 * that somebody else made meanwhile is not overwritten.
 *
 * What is decrypted stays in memory. Names are checked before they become an index or the name of a file.
 */
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { MillraceError } from '../platform/errors.ts';
import { isSecretVariable } from '../platform/roles.ts';
import { readEncrypted } from './secrets-recipients.ts';
import type { Sops } from './sops.ts';

export interface SecretsFile {
  readonly path: string;
  /** The `.sops.yaml` beside it. */
  readonly configPath: string;
}

/** In the repository's file, and in a new one, what has this value is not set. */
const PLACEHOLDER = 'placeholder';

const CONFIG_NAME = '.sops.yaml';
const NAME = /^\w{1,200}$/;
/** Numbers and words such as `true`, where a person wrote them without quotes. */
const valuesSchema = z.record(
  z.string().regex(NAME),
  z.union([z.string(), z.number(), z.boolean()]).transform(String),
);

export function secretsFileAt(path: string): SecretsFile {
  return { path, configPath: join(dirname(path), CONFIG_NAME) };
}

/** @throws MillraceError `secrets.no_file` (invalid) */
export function readSecretsFile({ path }: SecretsFile): string {
  return readText(path);
}

/** @throws MillraceError `secrets.no_file` (invalid) */
export function readSopsConfig({ configPath }: SecretsFile): string {
  return readText(configPath);
}

/** @throws MillraceError `secrets.unknown_name` (invalid) for a name that is no secret's */
export function checkedName(name: string): string {
  if (NAME.test(name) && isSecretVariable(name)) return name;
  throw new MillraceError('invalid', 'secrets.unknown_name', `${name} is no secret of Millrace`, {
    hint: '`millrace secrets list` names them; those of tools begin with TOOL_SECRET_. All other variables are plain ones.',
  });
}

/**
 * The secrets that are set, by name.
 * @throws MillraceError `secrets.malformed` (invalid); what `sops.decrypt` throws
 */
export async function decryptedSecrets(sops: Sops, file: SecretsFile): Promise<Map<string, string>> {
  readEncrypted(readSecretsFile(file));
  const parsed = valuesSchema.safeParse(JSON.parse(await sops.decrypt(file.path)));
  if (!parsed.success) {
    const names = parsed.error.issues.map((issue) => String(issue.path[0])).join(', ');
    throw new MillraceError('invalid', 'secrets.malformed', `these are not a name and a text: ${names}`, {
      hint: 'Mend them by `millrace secrets edit`.',
    });
  }
  return new Map(Object.entries(parsed.data).filter(([, value]) => value !== '' && value !== PLACEHOLDER));
}

/**
 * Has `change` work on copies of both files, then puts those in place.
 * @throws MillraceError `secrets.changed_meanwhile` (transient); what `change` throws, with nothing changed
 */
export async function changeSecrets(
  file: SecretsFile,
  change: (staged: SecretsFile) => void | Promise<void>,
): Promise<void> {
  const before = [readSecretsFile(file), readSopsConfig(file)];
  const folder = mkdtempSync(join(dirname(file.path), '.millrace-secrets-'));
  // The name stays: the rules of `.sops.yaml` go by it.
  const staged = secretsFileAt(join(folder, basename(file.path)));
  try {
    copyFileSync(file.path, staged.path);
    copyFileSync(file.configPath, staged.configPath);
    await change(staged);
    if (readSecretsFile(file) !== before[0] || readSopsConfig(file) !== before[1])
      throw new MillraceError(
        'transient',
        'secrets.changed_meanwhile',
        `${file.path} was changed meanwhile`,
        {
          hint: 'Give the command again.',
        },
      );
    replace(staged.path, file.path);
    replace(staged.configPath, file.configPath);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** With the owner and the mode of what was there. */
function replace(from: string, to: string): void {
  const { uid, gid, mode } = statSync(to);
  chmodSync(from, mode);
  const own = statSync(from);
  if (own.uid !== uid || own.gid !== gid) chownSync(from, uid, gid);
  renameSync(from, to);
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new MillraceError('invalid', 'secrets.no_file', `${path} cannot be read`, {
      hint: 'Name the file by --file, or make one: millrace secrets init --recipient AGE_KEY',
      cause,
    });
  }
}
