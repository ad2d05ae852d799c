/**
 * The subcommands that ask the running daemon: their names, options and help. What they do is in
 * `rerun-commands.ts`, `look-commands.ts` and the like.
 */
import { createInterface } from 'node:readline/promises';
import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import { systemClock } from '../platform/clock.ts';
import { daemonFolders } from '../platform/config.ts';
import { printable, printLine } from '../platform/terminal.ts';
import { createAdminClient } from './admin-client.ts';
import { findDaemonFile } from './daemon-file.ts';
import { printMails, printRecords, printStreams, printTrace } from './look-commands.ts';
import { printDeadLetters, redriveDeadLetters, replayMails } from './rerun-commands.ts';
import { liftAddress, printSuppressions } from './suppression-commands.ts';
import { pinRevision, printTools, unpinRevision } from './tool-commands.ts';
import type {
  CommandDeps,
  RedriveOptions,
  ReplayOptions,
  SeqNumRange,
  StageOptions,
} from './rerun-commands.ts';

function commandDeps(): CommandDeps {
  return {
    client: createAdminClient(findDaemonFile(daemonFolders())),
    print: printLine,
    confirm,
    newId: () => systemClock.uuid(),
    sleep: (ms) => systemClock.sleep(ms),
  };
}

async function confirm(question: string): Promise<boolean> {
  if (!process.stdin.isTTY) return false;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(?:es)?$/i.test((await terminal.question(`${printable(question)} [y/N] `)).trim());
  } finally {
    terminal.close();
  }
}

const seqOption = (): Option =>
  new Option('--seq <N[..M]>', 'the number of one record, or a range with both ends').argParser(parseRange);
const stageOption = (): Option =>
  new Option('--stage <stage>', 'in place of an inbox').choices(['receive', 'outbox']);

export function addAdminCommands(program: Command): void {
  program
    .command('dead-letters')
    .description('list parked mail: where, when, why, and whether it was put back')
    .option('--inbox <name>', 'only of this inbox')
    .addOption(stageOption())
    .option('--open', 'only those that were not put back', false)
    .option('--json', 'as JSON', false)
    .action((options: StageOptions & { open: boolean; json: boolean }) =>
      printDeadLetters(commandDeps(), options),
    );
  program
    .command('redrive')
    .description('put dead letters back, each once; the same command again puts none back twice')
    .option('--inbox <name>', 'of this inbox')
    .addOption(stageOption())
    .option('--all', 'all of them')
    .addOption(seqOption())
    .option('--not-sent', 'for --stage outbox: you have looked at the provider, and they were not sent')
    .action((options: RedriveOptions) => redriveDeadLetters(commandDeps(), options));
  program
    .command('replay')
    .description('run past mail again on purpose: it may be answered again')
    .option('--inbox <name>', 'mail of this inbox')
    .option('--unrouted', 'mail that came when there was no tool for it')
    .option('--to <name>', 'for --unrouted: the inbox that takes it')
    .addOption(seqOption())
    .option('--since <time>', 'what came at this time or later, such as 2026-11-22T10:00:00Z')
    .option('--email <id>', 'one email')
    .option('--id <id>', 'goes on with the replay that printed it; without it this is a new one')
    .option('--yes', 'without asking')
    .action((options: ReplayOptions) => replayMails(commandDeps(), options));
  program
    .command('mails')
    .description('list mail that came, newest first: when, its id, from whom, to whom')
    .argument(
      '[text]',
      'only where this stands in the sender, the recipients, the subject or the Message-ID',
      '',
    )
    .option('--count <number>', 'how many', parseCount, 20)
    .option('--json', 'as JSON', false)
    .action((text: string, options: { count: number; json: boolean }) =>
      printMails(commandDeps(), { text, ...options }),
    );
  program
    .command('trace')
    .description('show the whole life of an email')
    .argument('<id>', 'the id of an email, or a Message-ID')
    .option('--json', 'as JSON', false)
    .action((id: string, { json }: { json: boolean }) => printTrace(commandDeps(), { id, json }));
  addStreamsCommand(program);
  addToolsCommand(program);
  addSuppressionsCommand(program);
}

function addSuppressionsCommand(program: Command): void {
  const suppressions = program
    .command('suppressions')
    .description('list addresses that no mail is sent to: since when, why, and by which mail')
    .option('--json', 'as JSON', false)
    .action(({ json }: { json: boolean }) => printSuppressions(commandDeps(), json));
  suppressions
    .command('lift')
    .description('let mail be sent to an address again, until it bounces the next time')
    .argument('<address>', 'as the list has it')
    .action((address: string) => liftAddress(commandDeps(), address));
}

function addToolsCommand(program: Command): void {
  const tools = program
    .command('tools')
    .description('list the revisions of the tools, and what is live')
    .option('--json', 'as JSON', false)
    .action(({ json }: { json: boolean }) => printTools(commandDeps(), json));
  tools
    .command('rollback')
    .description('go back to what was live before, or to a revision, and stay there')
    .argument('[revision]', 'a revision, or the beginning of a commit')
    .action((revision?: string) => pinRevision(commandDeps(), revision ?? null));
  tools
    .command('pin')
    .description('stay with one revision, whatever is pushed')
    .argument('<revision>', 'a revision, or the beginning of a commit')
    .action((revision: string) => pinRevision(commandDeps(), revision));
  tools
    .command('unpin')
    .description('follow the branch again')
    .action(() => unpinRevision(commandDeps()));
}

function addStreamsCommand(program: Command): void {
  const streams = program.command('streams').description('look at the streams themselves');
  streams
    .command('ls')
    .description('list their names')
    .argument('[prefix]', 'only names that begin with this', '')
    .action((prefix: string) => printStreams(commandDeps(), prefix));
  streams
    .command('read')
    .description('show records of one: the last ones, or from a number on')
    .argument('<name>', 'such as inbox/reverser')
    .option('--from <number>', 'the first one', parseCount)
    .option('--count <number>', 'how many, at most 500', parseCount, 10)
    .option('--json', 'one record a line, whole', false)
    .action((name: string, options: { from?: number; count: number; json: boolean }) =>
      printRecords(commandDeps(), { name, ...options }),
    );
}

function parseRange(value: string): SeqNumRange {
  const [, from, to = from] = /^(\d{1,15})(?:\.\.(\d{1,15}))?$/.exec(value) ?? [];
  if (from === undefined || Number(to) < Number(from))
    throw new InvalidArgumentError('It is a number such as 7, or a range such as 7..12.');
  return { from: Number(from), to: Number(to) };
}

function parseCount(value: string): number {
  if (/^\d{1,15}$/.test(value)) return Number(value);
  throw new InvalidArgumentError('It is a number.');
}
