/**
 * `millrace upgrade`, `rollback` and `preflight`: their options, and what they are made of on a server that setup.sh
 * has set up. A release is asked as the daemon's own user, with the credentials that the units get: by systemd, where
 * this is root and they are there; otherwise with this very environment.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import { systemClock as clock } from '../../platform/clock.ts';
import { programEnvironment } from '../../platform/config.ts';
import { MillraceError, errorMessage } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { printLine } from '../../platform/terminal.ts';
import { streamFormat } from '../../streams/record-versions.ts';
import { createRunProgram } from '../run-program.ts';
import type { Program, RunProgram } from '../run-program.ts';
import { preflight, preflightSchema } from './preflight.ts';
import type { Preflight } from './preflight.ts';
import { createReleases } from './releases.ts';
import { createSystemdUnits } from './units.ts';
import { rollback, settleTiming, upgrade } from './upgrade.ts';
import type { UpgradeDeps } from './upgrade.ts';

const HOME = '/opt/millrace';
const ENVIRONMENT_FILE = '/etc/millrace/millrace.env';
const CREDENTIALS = '/run/millrace/credentials/all';
const SYSTEMD = '/run/systemd/system';
const UNIT_FOLDER = '/etc/systemd/system';
const PREFLIGHT_TIMEOUT_MS = 120_000;
const DEFAULT_KEEP = 3;

interface UpgradeFlags {
  home: string;
  keep: number;
  within: number;
  wayBack: boolean;
}

/** @param loadDaemon imports what the daemon is made of */
export function addUpgradeCommands(
  program: Command,
  deps: { log: Log; loadDaemon: () => Promise<unknown> },
): void {
  const home = ['--home <folder>', 'where the releases are', HOME] as const;
  program
    .command('upgrade')
    .description(
      'go to another release: checked first, watched after, and switched back by itself if it is not well',
    )
    .argument('[version]', 'a tag, branch or commit (default: the newest version)')
    .option(...home)
    .option('--keep <number>', 'how many releases stay on the disk', parseKeep, DEFAULT_KEEP)
    .option(
      '--within <seconds>',
      'how long the new release may take to get healthy',
      parseWithin,
      settleTiming.upWithinMs / 1000,
    )
    .option('--no-way-back', 'also where the release that runs now could not read what the new one writes')
    .action((version: string | undefined, { home: folder, keep, within, wayBack }: UpgradeFlags) => {
      const options = {
        version: version ?? null,
        keep,
        noWayBack: !wayBack,
        timing: { upWithinMs: within * 1000 },
      };
      return untilSignal((signal) => upgrade(upgradeDeps(folder), options, signal));
    });
  program
    .command('rollback')
    .description('go back to the release before, or to another one of this machine')
    .argument('[release]', 'its name, as `ls /opt/millrace/releases` shows it')
    .option(...home)
    .action((to: string | undefined, options: { home: string }) =>
      untilSignal((signal) => rollback(upgradeDeps(options.home), { to: to ?? null }, signal)),
    );
  program
    .command('preflight')
    .description('would this release work here? Reads the configuration and the streams, and changes nothing')
    .option('--json', 'as JSON', false)
    .action(async ({ json }: { json: boolean }) => {
      const answer = await preflight({ clock, log: deps.log }, deps.loadDaemon);
      printLine(json ? JSON.stringify(answer) : `Release ${answer.release} would work here.`);
    });
}

function upgradeDeps(home: string): UpgradeDeps {
  const run = createRunProgram(clock);
  return {
    releases: createReleases({ run, newId: () => clock.uuid() }, { home, environment: programEnvironment() }),
    units: createSystemdUnits({ run, clock }, { unitFolder: UNIT_FOLDER }),
    preflight: (folder, signal) => askRelease(run, preflightProgram(home, folder), signal),
    readsFormat: streamFormat.reads,
    clock,
    print: printLine,
  };
}

function preflightProgram(home: string, folder: string): Program {
  const node = join(home, 'bin', 'node');
  const isServer = process.getuid?.() === 0 && existsSync(SYSTEMD) && existsSync(ENVIRONMENT_FILE);
  const command = [node, join(folder, 'src', 'main.ts'), 'preflight', '--json'];
  const rest = { timeoutMs: PREFLIGHT_TIMEOUT_MS, detached: true };
  if (!isServer) return { file: node, args: command.slice(1), ...rest };
  const properties = [
    'User=millrace',
    'Group=millrace',
    `EnvironmentFile=${ENVIRONMENT_FILE}`,
    // As every role has it.
    'Environment=NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt',
    'NoNewPrivileges=yes',
    ...(existsSync(CREDENTIALS) ? [`LoadCredential=secret:${CREDENTIALS}`] : []),
  ];
  const options = [
    '--quiet',
    '--wait',
    '--pipe',
    '--collect',
    ...properties.map((one) => `--property=${one}`),
  ];
  return { file: 'systemd-run', args: [...options, '--', ...command], ...rest };
}

/** @throws MillraceError `upgrade.preflight_failed` (permanent) with what the release said */
async function askRelease(run: RunProgram, program: Program, signal: AbortSignal): Promise<Preflight> {
  const { exitCode, stdout, said } = await run(program, signal);
  try {
    if (exitCode === 0) return preflightSchema.parse(JSON.parse(stdout));
  } catch (error) {
    throw preflightFailed(errorMessage(error));
  }
  throw preflightFailed(said);
}

const preflightFailed = (said: string): MillraceError =>
  new MillraceError('permanent', 'upgrade.preflight_failed', `the release does not work here:\n${said}`, {
    hint: 'Nothing was changed. Mend what it says, or choose another version.',
  });

/**
 * A closed terminal or a lost connection does not stop it, as output that nobody reads ends other commands: what it
 * is in the middle of has to come to an end. A person who interrupts it does, as long as nothing was switched.
 */
async function untilSignal(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  process.on('SIGHUP', () => {});
  for (const output of [process.stdout, process.stderr])
    output.removeAllListeners('error').on('error', () => {});
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop.abort());
  try {
    await work(stop.signal);
  } catch (error) {
    if (error !== stop.signal.reason) throw error;
    throw new MillraceError('invalid', 'upgrade.interrupted', 'interrupted before anything was changed', {
      cause: error,
    });
  }
}

function parseKeep(value: string): number {
  if (/^[1-9]\d?$/.test(value)) return Number(value);
  throw new InvalidArgumentError('It is a number from 1 to 99.');
}

function parseWithin(value: string): number {
  if (/^[1-9]\d{0,3}$/.test(value)) return Number(value);
  throw new InvalidArgumentError('It is a number of seconds from 1 to 9999.');
}
