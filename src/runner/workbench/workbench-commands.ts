/**
 * `millrace init`, `dev` and `check`: names, options and help of what a tool author uses on a machine of their own.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { systemClock as clock } from '../../platform/clock.ts';
import { loadConfig } from '../../platform/config.ts';
import type { Log } from '../../platform/log.ts';
import { printLine as print } from '../../platform/terminal.ts';
import { openLocalStoreReadOnly } from '../../streams/local-store.ts';
import { checkTools, developTools } from './dev.ts';
import type { DevOptions, WorkbenchDeps } from './dev.ts';
import { writeStarter } from './starter.ts';

/** As a shell has it: nothing was found wrong, but nothing was found right either. */
const INTERRUPTED = 130;

export function addWorkbenchCommands(program: Command, { log }: { log: Log }): void {
  const deps: WorkbenchDeps = { clock, log, print };
  program
    .command('init')
    .description('write something to begin with')
    .command('tools')
    .description('a repository of tools: two of them, settings, tests, and a workflow that checks them')
    .argument('<folder>', 'a new folder, or an empty one')
    .action((folder: string) => print(writeStarter(folder)));
  program
    .command('dev')
    .description('watch tools: check them, and show what becomes of the last email at each change')
    .argument('[folder]', 'of the tools, or the repository around them', '.')
    .option(
      '--eml <file>',
      'an email to try (default: the last one received here, or the newest in the folder emails)',
    )
    .option('--inbox <name>', 'the inbox to try (default: the one that the email is for)')
    .action((directory: string, { eml, inbox }: { eml?: string; inbox?: string }) =>
      untilSignal((signal) =>
        developTools(
          deps,
          {
            directory,
            emlPath: eml ?? null,
            inbox: inbox ?? null,
            secrets: secrets(),
            openStreams: streamsOfThisMachine(),
          },
          signal,
        ),
      ),
    );
  program
    .command('check')
    .description('bundle the tools, check their types, run their tests, once')
    .argument('[folder]', 'of the tools, or the repository around them', '.')
    .action((folder: string) =>
      untilSignal(async (signal) => {
        await checkTools(deps, folder, signal).catch((error: unknown) => {
          if (signal.aborted) process.exitCode = INTERRUPTED;
          throw error;
        });
      }),
    );
}

/** What `TOOL_SECRET_*` holds; what tools are granted of it their settings say. */
function secrets(): Record<string, string> {
  const { tools } = loadConfig().secrets;
  return Object.fromEntries([...tools].map(([name, secret]) => [name, secret.reveal()]));
}

/** Of the local store alone: nobody tries tools on the mail of a server by mistake. */
function streamsOfThisMachine(): DevOptions['openStreams'] {
  const { config } = loadConfig();
  const directory = config.dataDir;
  if (config.streams.kind !== 'local' || !existsSync(join(directory, 'streams.db'))) return null;
  return () => openLocalStoreReadOnly({ clock }, { directory });
}

/** A signal ends it, and that is no error. */
async function untilSignal(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, abort);
  try {
    await work(stop.signal);
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, abort);
  }
}
