/**
 * The command line: a role or a subcommand → configuration → app → run until a signal.
 */
import { Command, InvalidArgumentError } from 'commander';
import { addBackupCommands } from './admin/backup/backup-commands.ts';
import { addAdminCommands } from './admin/commands.ts';
import { addSecretsCommands } from './admin/secrets-commands.ts';
import { sendFile } from './admin/send.ts';
import { addSetupCommands } from './admin/setup-commands.ts';
import { addDoctorCommand } from './admin/doctor/doctor-command.ts';
import { addUpgradeCommands } from './admin/upgrade/upgrade-commands.ts';
import { systemClock } from './platform/clock.ts';
import { loadConfig } from './platform/config.ts';
import { MillraceError } from './platform/errors.ts';
import { createLog } from './platform/log.ts';
import type { Role } from './platform/roles.ts';
import { addWorkbenchCommands } from './runner/workbench/workbench-commands.ts';

const roles: readonly Role[] = ['ingest', 'runner', 'outbox', 'sync'];
/** Of `--once`: the tools as they stand in the repository are not what answers mail. */
const REFUSED_EXIT_CODE = 3;
const say = (text: string): void => void process.stdout.write(`${text}\n`);

function parseRole(value: string): Role {
  const role = roles.find((name) => name === value);
  if (!role) throw new InvalidArgumentError(`It is one of ${roles.join(', ')}.`);
  return role;
}

async function serve({ only, once }: { only?: Role; once?: true }): Promise<void> {
  if (once && only !== 'sync') throw new InvalidArgumentError('--once is for --only sync.');
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
  if (app.link !== null) say(`\n  Write to your tools here:  ${app.link}\n`);
  else if (app.url !== null)
    say(
      `\n  Millrace answers mail to ${config.domains.join(', ')}. Webhooks: ${config.publicUrl ?? app.url}/webhooks/resend\n`,
    );
  log.info(
    { url: app.url, domains: config.domains, streams: config.streams.kind, only: only ?? 'all' },
    'daemon.started',
  );
  await app.run(stop.signal);
  log.info('daemon.stopped');
}

const program = new Command('millrace').description('Runs your functions on incoming email.');

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

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof MillraceError)) throw error;
  process.stderr.write(`millrace: ${error.message}\n${error.hint === undefined ? '' : `${error.hint}\n`}`);
  process.exitCode = error.kind === 'invalid' ? 2 : 1;
}
