/**
 * The command line: its names, options and help. Each subcommand is added by the folder that does its work; running
 * one, and what its errors look like, is `main.ts`'s. docs/commands.md lists them, and a test compares.
 */
import { Command, InvalidArgumentError } from 'commander';
import { addBackupCommands } from './admin/backup/backup-commands.ts';
import { addAdminCommands } from './admin/commands.ts';
import { addDoctorCommand } from './admin/doctor/doctor-command.ts';
import { addSecretsCommands } from './admin/secrets-commands.ts';
import { sendFile } from './admin/send.ts';
import { addSetupCommands } from './admin/setup-commands.ts';
import { addUpgradeCommands } from './admin/upgrade/upgrade-commands.ts';
import { systemClock } from './platform/clock.ts';
import { loadConfig } from './platform/config.ts';
import { createLog } from './platform/log.ts';
import { release } from './platform/release.ts';
import type { Role } from './platform/roles.ts';
import { printLine } from './platform/terminal.ts';
import { addWorkbenchCommands } from './runner/workbench/workbench-commands.ts';

const roles: readonly Role[] = ['ingest', 'runner', 'outbox', 'sync'];
/** Of `--once`: the tools as they stand in the repository are not what answers mail. */
const REFUSED_EXIT_CODE = 3;
/** For a person to mend, as a wrong configuration is: systemd does not start it again. */
const USAGE_EXIT_CODE = 2;

export function createCommandLine(): Command {
  const program = new Command('millrace').description('Runs your functions on incoming email.');
  program.version(release, '--version', 'print which version this is');
  program.configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'millrace: ')) });
  program.exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : USAGE_EXIT_CODE));
  program
    .command('serve')
    .description('run the daemon; without RESEND_API_KEY, with the local mailbox')
    .option('--only <role>', `one role of it: ${roles.join(', ')}`, parseRole)
    .option('--once', 'with --only sync: look once; exit code 3 says that the revision was refused')
    .action(serve);
  program
    .command('send')
    .description('hand a mail to the local mailbox of the running daemon and print what comes back')
    .argument('<file>', 'a message in a file (.eml)')
    .option('--to <address>', 'the inbox that it is for (default: its To)')
    .option('--no-wait', 'do not wait for the answer')
    .action(sendFile);
  addAdminCommands(program);
  addSecretsCommands(program);
  addSetupCommands(program);
  addBackupCommands(program, { log: createLog('silent') });
  addDoctorCommand(program, { log: createLog('silent') });
  addWorkbenchCommands(program, { log: createLog('silent') });
  addUpgradeCommands(program, { log: createLog('silent'), loadDaemon: () => import('./app.ts') });
  return program;
}

async function serve({ only, once }: { only?: Role; once?: true }, command: Command): Promise<void> {
  if (once && only !== 'sync') command.error('error: --once is for --only sync.');
  // The daemon takes a second to load, which no other command should wait for.
  const { createApp, syncOnce } = await import('./app.ts');
  const { config, secrets } = loadConfig(only === undefined ? {} : { only });
  const stop = new AbortController();
  // Under npm one Ctrl-C arrives more than once: the later ones must not cut the drain short.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop.abort());
  const log = createLog(config.logLevel);
  const deps = { config, secrets, clock: systemClock, log, roles: only === undefined ? roles : [only] };
  if (once) {
    if ((await syncOnce(deps, stop.signal)) === 'refused') process.exitCode = REFUSED_EXIT_CODE;
    return;
  }
  await using app = await createApp(deps);
  if (app.link !== null) printLine(`\n  Write to your tools here:  ${app.link}\n`);
  else if (app.url !== null)
    printLine(
      `\n  Millrace answers mail to ${config.domains.join(', ')}. Webhooks: ${config.publicUrl ?? app.url}/webhooks/resend\n`,
    );
  log.info(
    { url: app.url, domains: config.domains, streams: config.streams.kind, only: only ?? 'all' },
    'daemon.started',
  );
  await app.run(stop.signal);
  log.info('daemon.stopped');
}

function parseRole(value: string): Role {
  const role = roles.find((name) => name === value);
  if (!role) throw new InvalidArgumentError(`It is one of ${roles.join(', ')}.`);
  return role;
}
