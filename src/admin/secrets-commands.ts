/**
 * `millrace secrets …`: names, options and help. What the commands do is in `secrets-work.ts`,
 * `recipient-work.ts` and `webhook-secret-rotation.ts`. No command takes a value as an argument.
 */
import { existsSync } from 'node:fs';
import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import { systemClock } from '../platform/clock.ts';
import { loadConfig, programEnvironment } from '../platform/config.ts';
import { MillraceError } from '../platform/errors.ts';
import type { Secret } from '../platform/secret.ts';
import { printLine, warnLine } from '../platform/terminal.ts';
import { addRecipient, initSecrets, listRecipients, removeRecipient } from './recipient-work.ts';
import { createResendAccount } from './resend-account.ts';
import { readSecret } from './secret-input.ts';
import { decryptedSecrets, secretsFileAt } from './secrets-file.ts';
import type { Recipient } from './secrets-recipients.ts';
import {
  checkSecrets,
  editSecrets,
  exportToFolder,
  listSecrets,
  setSecret,
  unsetSecret,
} from './secrets-work.ts';
import type { SecretsDeps } from './secrets-work.ts';
import { createSops } from './sops.ts';
import { beginRotation, finishRotation } from './webhook-secret-rotation.ts';
import type { WebhookAtResend } from './webhook-secret-rotation.ts';

const SERVER_FILE = '/etc/millrace/secrets.encrypted.yaml';
const SERVER_KEY = '/etc/millrace/age.key';
const FILE = 'secrets.encrypted.yaml';
/** What SOPS looks for an age key by, and for an editor. */
const SOPS_VARIABLES =
  'SOPS_AGE_KEY SOPS_AGE_KEY_FILE SOPS_AGE_KEY_CMD SOPS_AGE_SSH_PRIVATE_KEY_FILE XDG_CONFIG_HOME SOPS_EDITOR EDITOR VISUAL TERM'.split(
    ' ',
  );

/** Where a command is given: a terminal or a test. */
interface Surroundings extends Pick<SecretsDeps, 'print' | 'warn'> {
  /** What SOPS is given of the environment. */
  readonly environment: Readonly<Record<string, string>>;
  readonly readSecret: (question: string) => Promise<Secret>;
}

const terminal: Surroundings = {
  environment: programEnvironment(SOPS_VARIABLES),
  print: printLine,
  warn: warnLine,
  readSecret,
};

interface FileOptions {
  file: string;
}
type DepsOf = (options: FileOptions) => SecretsDeps;

export function addSecretsCommands(program: Command, surroundings = terminal): void {
  const { readSecret: read } = surroundings;
  const depsOf: DepsOf = (options) => depsFor(options, surroundings);
  const secrets = program
    .command('secrets')
    .description('look at and change the encrypted file of secrets (SOPS with age)');
  /** A subcommand with the option that they all have. */
  const command = (name: string, description: string): Command =>
    secrets.command(name).description(description).addOption(fileOption());

  command('list', 'list the secrets: whether the file has them, and which role needs them')
    .option('--json', 'as JSON', false)
    .action((options: FileOptions & { json: boolean }) => listSecrets(depsOf(options), options.json));
  command('check', 'decrypt, and check every value')
    .option('--no-test-keys', 'refuse a file that public test keys can read')
    .action((options: FileOptions & { testKeys: boolean }) => checkSecrets(depsOf(options), options));
  command('set', 'set one, to what comes on standard input or is typed')
    .argument('<name>', 'such as RESEND_API_KEY')
    .action(async (name: string, options: FileOptions) => setSecret(depsOf(options), name, await read(name)));
  command('unset', 'remove one, as if it were not set')
    .argument('<name>', 'such as GITHUB_PAT')
    .action((name: string, options: FileOptions) => unsetSecret(depsOf(options), name));
  command('edit', 'open the plain file in your editor').action((options: FileOptions) =>
    editSecrets(depsOf(options)),
  );
  command('export', 'write them in the clear, a folder for each role, into memory (tmpfs)')
    .requiredOption('--to <folder>', 'such as /run/millrace/credentials')
    .option('--for-containers', 'as the containers of deploy/container mount them', false)
    .action((options: FileOptions & { to: string; forContainers: boolean }) =>
      exportToFolder(depsOf(options), options),
    );
  addRecipientCommands(command, depsOf);
  command('rotate-webhook-secret', 'a new signing secret beside the old one, by way of Resend')
    .option('--stdin', 'in place of asking Resend: the secret of a webhook that you made')
    .option('--finish', 'the new one runs everywhere: drop the old one')
    .option('--without-resend', 'with --finish: you remove the old webhook yourself')
    .action((options: RotateOptions) => rotate(depsOf(options), options, read));
}

function addRecipientCommands(command: (name: string, description: string) => Command, depsOf: DepsOf): void {
  command('recipients', 'list who can read the file')
    .option('--json', 'as JSON', false)
    .action((options: FileOptions & { json: boolean }) => listRecipients(depsOf(options), options.json));
  command('add-recipient', 'let one more age key read the file')
    .argument('<age-key>', 'its public part, age1…')
    .option('--name <name>', 'whose it is, such as server', '')
    .action((key: string, options: FileOptions & { name: string }) =>
      addRecipient(depsOf(options), { key, name: options.name }),
    );
  command('remove-recipient', 'let an age key read it no longer; everything is encrypted anew')
    .argument('<age-key>', 'its public part, age1…, or its name')
    .action((which: string, options: FileOptions) => removeRecipient(depsOf(options), which));
  command('init', 'write a new file, in which nothing is set')
    .addOption(
      new Option('--recipient <age-key...>', 'who can read it: age1…=owner')
        .argParser(parseRecipients)
        .makeOptionMandatory(),
    )
    .action((options: FileOptions & { recipient: Recipient[] }) =>
      initSecrets(depsOf(options), options.recipient),
    );
}

interface RotateOptions extends FileOptions {
  stdin?: true;
  finish?: true;
  withoutResend?: true;
}

async function rotate(
  deps: SecretsDeps,
  { stdin, finish, withoutResend }: RotateOptions,
  read: Surroundings['readSecret'],
): Promise<void> {
  if (finish) return finishRotation(deps, withoutResend ? null : await webhookAtResend(deps));
  if (stdin) return beginRotation(deps, { value: await read('the new signing secret') });
  return beginRotation(deps, { resend: await webhookAtResend(deps) });
}

async function webhookAtResend(deps: SecretsDeps): Promise<WebhookAtResend> {
  const decrypted = Object.fromEntries(await decryptedSecrets(deps.sops, deps.file));
  const { config, secrets } = loadConfig({ decrypted });
  const apiKey = secrets.resendApiKey?.reveal();
  if (apiKey === undefined || config.publicUrl === null)
    throw new MillraceError('invalid', 'secrets.no_webhook', 'the webhook cannot be found at Resend', {
      hint: 'That needs RESEND_API_KEY and PUBLIC_URL. By hand: --stdin, and at the end --finish --without-resend.',
    });
  const baseUrl = config.resend?.baseUrl ?? null;
  const account = createResendAccount(systemClock, { apiKey, ...(baseUrl !== null && { baseUrl }) });
  return { account, endpoint: `${config.publicUrl}/webhooks/resend` };
}

function depsFor({ file }: FileOptions, { environment, print, warn }: Surroundings): SecretsDeps {
  const sops = createSops({ clock: systemClock }, { environment, serverKeyFile: SERVER_KEY });
  return { sops, file: secretsFileAt(file), print, warn };
}

/** On a server its own file, wherever the command is given: a release there has the repository's, too. */
function fileOption(): Option {
  return new Option('--file <path>', 'the file; its .sops.yaml stands beside it').default(
    existsSync(SERVER_FILE) ? SERVER_FILE : FILE,
  );
}

function parseRecipients(value: string, before: Recipient[] = []): Recipient[] {
  const [, key, name = ''] = /^([^=]+)(?:=(.*))?$/.exec(value) ?? [];
  if (key === undefined) throw new InvalidArgumentError('It is an age key, such as age1…, or age1…=owner.');
  return [...before, { key, name }];
}
