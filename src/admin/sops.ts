/**
 * SOPS as we use it: a child process for each step, with what is secret on its standard input and output,
 * never in its arguments, and an environment that holds the way to the age key and nothing else of ours.
 *
 * What fails is told apart by the exit status (cmd/sops/codes/codes.go of SOPS). SOPS's own words are shown:
 * they name keys and places, never a decrypted value.
 */
import { spawn } from 'node:child_process';
import type { StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { errorMessage, MillraceError } from '../platform/errors.ts';

export interface Sops {
  /**
   * The plain document, as JSON.
   * @throws MillraceError (invalid) `secrets.sops_missing`, `secrets.no_key`, `secrets.wrong_key`,
   *   `secrets.tampered`, `secrets.no_file`; (permanent) `secrets.sops_failed`. All methods throw these.
   */
  decrypt(file: string): Promise<string>;
  /** Encrypts a plain document for the recipients of `config`, as if it stood in a file of this name. */
  encrypt(plain: string, name: string, config: string): Promise<string>;
  /** @throws MillraceError besides: `secrets.sops_too_old` (invalid) */
  set(file: string, name: string, value: string): Promise<void>;
  unset(file: string, name: string): Promise<void>;
  /** Encrypts the data key for the recipients that `config` names now, and for no other. */
  updateKeys(file: string, config: string): Promise<void>;
  /** A new data key; all values are encrypted again. */
  rotate(file: string): Promise<void>;
  /** In the person's editor, at the terminal. Meanwhile the plain document lies in TMPDIR, by default in memory. */
  edit(file: string, config: string): Promise<void>;
}

interface SopsOptions {
  /** What of our environment a child is given. */
  environment: Readonly<Record<string, string>>;
  /** The key that is used where the environment names none. */
  serverKeyFile: string;
}

const TIMEOUT_MS = 60_000;
/** `set --value-stdin` came with it. */
const OLDEST_MINOR = 11;
const EDIT_WITHOUT_CHANGE = 200;
/** Memory, on Linux. */
const MEMORY_FOLDER = '/dev/shm';
const HINTS = {
  missing: 'Install SOPS 3.11 or newer: https://github.com/getsops/sops/releases',
  key: 'Name the file of your age key: SOPS_AGE_KEY_FILE=…/age.key',
  wrong:
    'Use the key of one of the recipients (`millrace secrets recipients`), or have one of them add yours: millrace secrets add-recipient',
  tampered: 'Somebody changed it without SOPS. Restore it from Git or a backup; do not edit it by hand.',
};

export function createSops({ clock }: { clock: Clock }, options: SopsOptions): Sops {
  const environment = withKey(options);

  async function run(args: readonly string[], input = ''): Promise<string> {
    using deadline = createDeadline(clock, TIMEOUT_MS);
    const { status, stdout, stderr } = await start(args, { input, signal: deadline.signal });
    if (status === 0) return stdout;
    throw failure(status, stderr, hasKey(environment));
  }

  async function start(
    args: readonly string[],
    {
      input,
      signal,
      stdio = 'pipe',
      env = environment,
    }: { input: string; signal?: AbortSignal; stdio?: StdioOptions; env?: Record<string, string> },
  ): Promise<{ status: unknown; stdout: string; stderr: string }> {
    const child = spawn('sops', [...args], { env, stdio, ...(signal && { signal }) });
    try {
      // A child that ends before it has read everything says why by its status.
      child.stdin?.on('error', () => undefined).end(input);
      const [[status], stdout, stderr] = await Promise.all([
        once(child, 'close'),
        child.stdout ? text(child.stdout) : '',
        child.stderr ? text(child.stderr) : '',
      ]);
      return { status, stdout, stderr };
    } catch (cause) {
      if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT')
        throw new MillraceError('invalid', 'secrets.sops_missing', 'there is no `sops` on the PATH', {
          hint: HINTS.missing,
          cause,
        });
      throw new MillraceError('permanent', 'secrets.sops_failed', `sops: ${errorMessage(cause)}`, { cause });
    }
  }

  async function assertNewEnough(): Promise<void> {
    const version = await run(['--version', '--disable-version-check']);
    const [, major = 0, minor = 0] = /(\d+)\.(\d+)/.exec(version) ?? [];
    if (Number(major) > 3 || (Number(major) === 3 && Number(minor) >= OLDEST_MINOR)) return;
    throw new MillraceError('invalid', 'secrets.sops_too_old', `${version.trim()} is too old`, {
      hint: HINTS.missing,
    });
  }

  return {
    decrypt: (file) => run(['decrypt', '--input-type', 'yaml', '--output-type', 'json', file]),
    encrypt: (plain, name, config) =>
      run(
        [
          '--config',
          config,
          'encrypt',
          '--input-type',
          'yaml',
          '--output-type',
          'yaml',
          '--filename-override',
          name,
        ],
        plain,
      ),
    async set(file, name, value) {
      await assertNewEnough();
      await run(['set', '--value-stdin', file, indexOf(name)], JSON.stringify(value));
    },
    unset: async (file, name) => void (await run(['unset', file, indexOf(name)])),
    updateKeys: async (file, config) => void (await run(['--config', config, 'updatekeys', '--yes', file])),
    rotate: async (file) => void (await run(['rotate', '--in-place', file])),
    async edit(file, config) {
      const { status, stderr } = await start(['--config', config, 'edit', file], {
        input: '',
        stdio: 'inherit',
        env: { ...(existsSync(MEMORY_FOLDER) && { TMPDIR: MEMORY_FOLDER }), ...environment },
      });
      if (status !== 0 && status !== EDIT_WITHOUT_CHANGE) throw failure(status, stderr, hasKey(environment));
    },
  };
}

/** By the exit statuses of SOPS's cmd/sops/codes/codes.go. */
function failure(status: unknown, stderr: string, isKeyAtHand: boolean): MillraceError {
  switch (status) {
    case 128:
      return isKeyAtHand
        ? new MillraceError(
            'invalid',
            'secrets.wrong_key',
            'the age key at hand is not one of the recipients',
            {
              hint: HINTS.wrong,
            },
          )
        : new MillraceError('invalid', 'secrets.no_key', 'there is no age key to decrypt with', {
            hint: HINTS.key,
          });
    case 24:
    case 25:
    case 51:
    case 52:
      return new MillraceError(
        'invalid',
        'secrets.tampered',
        'the file is not as SOPS left it: its MAC does not fit',
        {
          hint: HINTS.tampered,
        },
      );
    case 2:
    case 100:
      return new MillraceError('invalid', 'secrets.no_file', 'the file of secrets cannot be read', {
        hint: 'Name it by --file.',
      });
    default:
      return new MillraceError(
        'permanent',
        'secrets.sops_failed',
        `sops: ${stderr.trim() || `it ended with status ${String(status)}`}`,
      );
  }
}

/** How SOPS names a key of the document. Names are checked by whoever calls. */
function indexOf(name: string): string {
  return `["${name}"]`;
}

function withKey({ environment, serverKeyFile }: SopsOptions): Record<string, string> {
  const isNamed = KEY_VARIABLES.some((name) => name in environment);
  return {
    ...environment,
    ...(!isNamed && existsSync(serverKeyFile) && { SOPS_AGE_KEY_FILE: serverKeyFile }),
  };
}

/** Where SOPS finds an age key, besides files in its own folders. */
const KEY_VARIABLES = [
  'SOPS_AGE_KEY',
  'SOPS_AGE_KEY_FILE',
  'SOPS_AGE_KEY_CMD',
  'SOPS_AGE_SSH_PRIVATE_KEY_FILE',
];

function hasKey(environment: Readonly<Record<string, string>>): boolean {
  const { SOPS_AGE_KEY_FILE: file, XDG_CONFIG_HOME: config, HOME: home } = environment;
  if (file !== undefined) return existsSync(file);
  if (KEY_VARIABLES.some((name) => name in environment)) return true;
  const folder = config ?? (home === undefined ? undefined : join(home, '.config'));
  return folder !== undefined && existsSync(join(folder, 'sops/age/keys.txt'));
}
