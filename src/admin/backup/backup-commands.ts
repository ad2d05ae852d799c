/** `millrace backup FILE` and `millrace restore FILE`: their help, and what they say. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { systemClock as clock } from '../../platform/clock.ts';
import { loadConfig } from '../../platform/config.ts';
import { makeDataDir } from '../../platform/data-dir.ts';
import { MillraceError } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { release } from '../../platform/release.ts';
import { printLine } from '../../platform/terminal.ts';
import { openConfiguredStore, openConfiguredStoreToRead } from '../../streams/configured-store.ts';
import { assertReadable } from '../../streams/format.ts';
import { serverCredentials } from '../server-credentials.ts';
import { backup, restore } from './backup.ts';

export function addBackupCommands(program: Command, deps: { log: Log }): void {
  program
    .command('backup')
    .description('write all streams into a file, also while the daemon runs')
    .argument('<file>', 'a new file: gzip of JSON lines')
    .action((file: string) => untilSignal((signal) => writeBackupFile(deps.log, file, signal)));
  program
    .command('restore')
    .description('put a backup back into an empty store; no daemon may run on it')
    .argument('<file>', 'what `millrace backup` wrote')
    .action((file: string) => untilSignal((signal) => readBackupFile(deps.log, file, signal)));
}

async function writeBackupFile(log: Log, file: string, signal: AbortSignal): Promise<void> {
  const { config, secrets } = loadConfig({ decrypted: serverCredentials() });
  if (existsSync(file))
    throw new MillraceError('invalid', 'backup.exists', `${file} is there already`, {
      hint: 'Name a new file.',
    });
  if (config.streams.kind === 'local' && !existsSync(join(config.dataDir, 'streams.db')))
    throw new MillraceError(
      'invalid',
      'backup.nothing',
      `there are no streams in ${resolve(config.dataDir)}`,
      {
        hint: 'Set DATA_DIR to where the daemon keeps them.',
      },
    );
  const store = await openConfiguredStoreToRead({ config, secrets, clock, log });
  try {
    await assertReadable(store, signal);
    const counts = await backup({ store, clock, print: printLine }, { path: file, release }, signal);
    printLine(
      `${counts.records} records of ${counts.streams} streams are in ${file}. It holds mail: keep it safe.`,
    );
  } finally {
    await store.close();
  }
}

async function readBackupFile(log: Log, file: string, signal: AbortSignal): Promise<void> {
  const { config, secrets } = loadConfig({ decrypted: serverCredentials() });
  makeDataDir(config.dataDir);
  const store = await openConfiguredStore({ config, secrets, clock, log });
  try {
    const done = await restore({ store, clock, print: printLine }, { path: file, release }, signal);
    printLine(`${done.records} records are back on ${done.streams} streams, as of ${done.at}.`);
    if (done.inDoubt > 0)
      printLine(
        `${done.inDoubt} mails had not gone out by then. Each is looked for at Resend before it is sent, once 20 h have passed since; until then Resend itself recognises it.`,
      );
    printLine(
      'What came in after the backup is not in it: docs/operations.md says how to have Resend post it again.',
    );
  } finally {
    await store.close();
  }
}

async function untilSignal(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop.abort());
  try {
    await work(stop.signal);
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    throw new MillraceError('invalid', 'backup.interrupted', 'interrupted', {
      hint: 'A backup left no file. A restore has to be begun again, into an empty store.',
      cause: error,
    });
  }
}
