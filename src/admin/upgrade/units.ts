/**
 * What runs the daemon here, as far as an upgrade has to know: systemd's units. Which of them are at work is asked
 * of systemd itself, so it does not matter whether there is one process or one a role.
 *
 * On the way to a newer release the readers are restarted before the writers (outbox, runner, sync, ingest), on
 * the way back the other way round: so nobody meets a record that is newer than itself. Ingest's socket stays
 * open in systemd's hands all the while, and webhooks wait in it.
 */
import { existsSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../platform/clock.ts';
import { createDeadline } from '../../platform/deadline.ts';
import { MillraceError } from '../../platform/errors.ts';
import type { RunProgram } from '../run-program.ts';

export type Direction = 'forward' | 'back';

export interface Units {
  /** Puts the unit files of a release in the place of those of the same names that are installed. */
  install(releaseFolder: string): Promise<void>;
  /** @throws MillraceError `upgrade.unit_failed` (permanent) where one does not come up */
  restart(direction: Direction): Promise<void>;
  /**
   * From now on, who answers at these URLs must be healthy. `/readyz` is asked where it is well now; otherwise
   * `/healthz`: what was not ready before (its Git host is down) need not be ready after.
   */
  watch(urls: readonly string[]): Promise<void>;
  /** What is not as it should be, right now; a daemon in order has none. */
  faults(): Promise<string[]>;
}

/** Readers first. A unit that is not here comes before ingest. */
const ORDER = ['millrace-outbox', 'millrace-runner', 'millrace-sync', 'millrace-ingest', 'millrace'];
/** Not ours to restart: who decrypts the secrets, and what only lasts a moment. */
const EXCEPT = ['millrace-secrets.service'];
const RESTART_TIMEOUT_MS = 120_000;
const HEALTH_TIMEOUT_MS = 5_000;
const JOURNAL_LINES = 12;

export function createSystemdUnits(
  { run, clock }: { run: RunProgram; clock: Clock },
  options: { unitFolder: string },
): Units {
  /** Restarts by systemd itself that were there before ours: by unit. */
  const restartsBefore = new Map<string, string>();
  let healthUrls: string[] = [];

  // Whoever interrupts the command after the switch does not interrupt the restart.
  const systemctl = (...args: string[]) =>
    run({ file: 'systemctl', args, timeoutMs: RESTART_TIMEOUT_MS, detached: true });

  /** Services of ours that are at work, or that should be and failed. */
  async function atWork(): Promise<string[]> {
    const { stdout } = await systemctl(
      'list-units',
      '--all',
      '--plain',
      '--no-legend',
      '--type=service',
      'millrace*',
    );
    return stdout
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter(([name = '', load, active]) => name !== '' && load === 'loaded' && active !== 'inactive')
      .map(([name]) => name!)
      .filter((name) => !EXCEPT.includes(name));
  }

  async function property(unit: string, name: string): Promise<string> {
    return (await systemctl('show', '--property', name, '--value', unit)).stdout.trim();
  }

  async function unitFaults(): Promise<string[]> {
    const faults: string[] = [];
    const units = await atWork();
    if (units.length === 0) faults.push('no unit of Millrace is at work');
    for (const unit of units) {
      const state = await property(unit, 'ActiveState');
      const restarts = await property(unit, 'NRestarts');
      const before = restartsBefore.get(unit);
      if (state !== 'active') faults.push(`${unit} is ${state}`);
      else if (before !== undefined && before !== restarts) faults.push(`${unit} was restarted by systemd`);
      restartsBefore.set(unit, restarts);
    }
    return faults;
  }

  return {
    async install(releaseFolder) {
      const from = join(releaseFolder, 'deploy', 'systemd');
      if (!existsSync(from)) return;
      for (const name of readdirSync(from)) {
        const target = join(options.unitFolder, name);
        const content = readFileSync(join(from, name));
        if (!existsSync(target) || readFileSync(target).equals(content)) continue;
        // Beside, so that systemd never reads half of one.
        writeFileSync(`${target}.new`, content, { mode: 0o644, flush: true });
        renameSync(`${target}.new`, target);
      }
      await systemctl('daemon-reload');
    },
    async restart(direction) {
      const units = inOrder(await atWork(), direction);
      for (const unit of units) {
        // One that failed too often is not started again otherwise.
        await systemctl('reset-failed', unit);
        const { exitCode, said } = await systemctl('restart', unit);
        if (exitCode !== 0) throw await unitFailed(run, unit, said);
        restartsBefore.set(unit, await property(unit, 'NRestarts'));
      }
    },
    async watch(urls) {
      healthUrls = await Promise.all(
        urls.map(async (url) => {
          const fault = await healthFault(clock, `${url}/readyz`);
          return `${url}/${fault === null ? 'readyz' : 'healthz'}`;
        }),
      );
    },
    async faults() {
      const unhealthy = await Promise.all(healthUrls.map((url) => healthFault(clock, url)));
      return [...(await unitFaults()), ...unhealthy.filter((fault) => fault !== null)];
    },
  };
}

function inOrder(units: readonly string[], direction: Direction): string[] {
  const forward = units.toSorted((a, b) => rankOf(a) - rankOf(b));
  return direction === 'forward' ? forward : forward.toReversed();
}

function rankOf(unit: string): number {
  const at = ORDER.indexOf(unit.replace(/\.service$/, ''));
  return at < 0 ? ORDER.indexOf('millrace-ingest') - 0.5 : at;
}

async function unitFailed(run: RunProgram, unit: string, said: string): Promise<MillraceError> {
  const journal = await run({
    file: 'journalctl',
    args: ['--unit', unit, '--lines', String(JOURNAL_LINES), '--no-pager', '--output', 'cat'],
  });
  const lines = [said, journal.stdout.trim()].filter((text) => text !== '').join('\n');
  return new MillraceError('permanent', 'upgrade.unit_failed', `${unit} does not come up:\n${lines}`);
}

/** Why a process that answers over HTTP is not in order; null where it is. Ready counts, where it says so. */
async function healthFault(clock: Clock, url: string): Promise<string | null> {
  using deadline = createDeadline(clock, HEALTH_TIMEOUT_MS);
  try {
    const { status } = await fetch(url, { signal: deadline.signal });
    return status === 200 ? null : `${url} answers ${status}`;
  } catch {
    return `${url} does not answer`;
  }
}
