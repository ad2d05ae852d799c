/** The machine: Node, disk, clock, the units of systemd, and what decrypts the secrets. */
import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fault, ok, skipped, warning } from './check.ts';
import type { Check, DoctorContext, Finding } from './check.ts';

/** The release lines that will do, each from its release on; `launch.mjs` has the same, and why. */
const FIT_NODES: Readonly<Record<number, number>> = { 24: 5, 26: 0 };
const DISK_FAULT_BYTES = 256 * 1024 ** 2;
const DISK_WARNING_BYTES = 2 * 1024 ** 3;
/** Svix refuses a signature, and we an event, that is 5 min off. */
const SKEW_FAULT_MS = 240_000;
const SKEW_WARNING_MS = 30_000;
const DEFAULT_RESEND_URL = 'https://api.resend.com';
const SECRETS_FILE = '/etc/millrace/secrets.encrypted.yaml';
const AGE_KEY = '/etc/millrace/age.key';
/** Where `millrace upgrade` notes a switch that is not confirmed; see src/admin/upgrade/releases.ts. */
const OPEN_SWITCH = '/opt/millrace/switching.json';
const RUNNING_STATES = ['active', 'activating', 'reloading'];

export const machineChecks: readonly Check[] = [
  {
    part: 'Node',
    async look() {
      const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
      if (minor >= (FIT_NODES[major] ?? Infinity)) return [ok('Node', process.versions.node)];
      return [
        fault(
          'Node',
          `${process.versions.node} is none that tools run on`,
          'Install Node 24 (24.5 or newer) or 26, or run setup.sh again.',
        ),
      ];
    },
  },
  {
    part: 'disk',
    async look({ config }) {
      const folder = resolve(config.dataDir);
      if (!existsSync(folder)) return [skipped('disk', `${folder} is not there yet: no daemon has run here`)];
      const { bavail, bsize } = await statfs(folder);
      const free = `${((bavail * bsize) / 1024 ** 3).toFixed(1)} GB free below ${folder}`;
      if (bavail * bsize < DISK_FAULT_BYTES)
        return [
          fault(
            'disk',
            free,
            'Free some at once: with a full disk mail is refused and sent again later. Lower RETENTION_DAYS if it is our own data.',
          ),
        ];
      if (bavail * bsize < DISK_WARNING_BYTES)
        return [warning('disk', free, 'Free some, or lower RETENTION_DAYS.')];
      return [ok('disk', free)];
    },
  },
  { part: 'clock', look: lookAtClock },
  { part: 'units', look: lookAtUnits },
  {
    part: 'release',
    async look() {
      if (!existsSync(OPEN_SWITCH)) return [ok('release', 'no upgrade was broken off')];
      return [
        warning(
          'release',
          'a switch from one release to another was not confirmed',
          'Unless an upgrade is at work right now: `millrace upgrade` settles it, and switches back what is not well.',
        ),
      ];
    },
  },
  {
    part: 'secrets',
    async look() {
      if (!existsSync(SECRETS_FILE)) return [skipped('secrets', `no ${SECRETS_FILE} on this machine`)];
      try {
        accessSync(AGE_KEY, constants.R_OK);
      } catch {
        return existsSync(AGE_KEY)
          ? [skipped('secrets', `${AGE_KEY} is for root alone: run this as root to check it`)]
          : [
              fault(
                'secrets',
                `${AGE_KEY} is not there: after a reboot nothing can be decrypted`,
                'Put the key back from your backup, or add a new recipient: docs/secrets.md.',
              ),
            ];
      }
      const isOpen = (statSync(AGE_KEY).mode & 0o077) !== 0;
      if (isOpen) return [fault('secrets', `${AGE_KEY} can be read by others`, `chmod 400 ${AGE_KEY}`)];
      return [ok('secrets', 'the age key is readable, for root alone')];
    },
  },
];

/** By the date that Resend's server answers with: what it may say otherwise does not matter. */
async function lookAtClock({ config, clock }: DoctorContext, signal: AbortSignal): Promise<Finding[]> {
  if (!config.resend) return [skipped('clock', 'nobody to compare it with: no Resend')];
  const url = config.resend.baseUrl ?? DEFAULT_RESEND_URL;
  const startedMs = clock.nowMs();
  const { headers } = await fetch(url, { signal, redirect: 'manual' });
  const date = Date.parse(headers.get('date') ?? '');
  if (Number.isNaN(date)) return [skipped('clock', `${new URL(url).host} says no date`)];
  // The header has whole seconds, and was written at some time of the request.
  const skewMs = Math.max(0, Math.max(date - clock.nowMs(), startedMs - date - 1_000));
  const message = `${Math.round(skewMs / 1000)} s from that of ${new URL(url).host}`;
  const mend = 'Let systemd keep the time: timedatectl set-ntp true.';
  if (skewMs > SKEW_FAULT_MS) return [fault('clock', message, `Webhooks are refused at 5 min. ${mend}`)];
  return [skewMs > SKEW_WARNING_MS ? warning('clock', message, mend) : ok('clock', message)];
}

async function lookAtUnits({ run }: DoctorContext, signal: AbortSignal): Promise<Finding[]> {
  const program = {
    file: 'systemctl',
    args: ['list-units', '--all', '--plain', '--no-legend', 'millrace*', 's2-lite*'],
  };
  const { exitCode, stdout } = await run(program, signal);
  const units = stdout
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([name, load]) => name && load === 'loaded');
  if (exitCode !== 0 || units.length === 0) return [skipped('units', 'systemd has no unit of Millrace here')];
  const target = units.find(([name]) => name === 'millrace.target');
  const wanted = RUNNING_STATES.includes(target?.[2] ?? '') ? await unitsOfTarget(run, signal) : [];
  const failed = units.filter(
    ([name = '', , active = '', sub]) =>
      active === 'failed' || sub === 'auto-restart' || (active === 'inactive' && wanted.includes(name)),
  );
  const findings = failed.map(([name]) =>
    fault(
      'units',
      `${name} does not run`,
      `journalctl -u ${name} -n 50 says why; then systemctl restart ${name}`,
    ),
  );
  if (target && !RUNNING_STATES.includes(target[2] ?? ''))
    findings.push(fault('units', 'millrace.target is not started', 'systemctl start millrace.target'));
  if (findings.length > 0) return findings;
  const running = units.filter(([, , active = '']) => RUNNING_STATES.includes(active));
  return [ok('units', `${running.length} at work`)];
}

/** What the target brings up, and what somebody may have stopped since. */
async function unitsOfTarget(run: DoctorContext['run'], signal: AbortSignal): Promise<string[]> {
  const args = ['show', '--property', 'Wants', '--value', 'millrace.target'];
  return (await run({ file: 'systemctl', args }, signal)).stdout.trim().split(/\s+/);
}
