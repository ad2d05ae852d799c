/**
 * `millrace doctor`: looks at everything that a mail depends on, and says of each finding how to mend it. It works
 * whether the daemon runs or not. Exit code 1 where there is a fault; warnings alone are 0.
 */
import type { Command } from 'commander';
import { systemClock as clock } from '../../platform/clock.ts';
import { loadConfig } from '../../platform/config.ts';
import type { Config, Secrets } from '../../platform/config.ts';
import { hasCode } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { printable } from '../../platform/terminal.ts';
import { createResendAccount } from '../resend-account.ts';
import { createRunProgram } from '../run-program.ts';
import { serverCredentials } from '../server-credentials.ts';
import { fault, ok, runChecks } from './check.ts';
import type { DoctorContext, Finding } from './check.ts';
import { machineChecks } from './machine-checks.ts';
import { mailChecks } from './mail-checks.ts';
import { s2FenceCheck } from './s2-fence-check.ts';
import { streamChecks } from './stream-checks.ts';

const SIGNS = { ok: '  ok     ', warning: '! warning', fault: '✗ FAULT  ', skipped: '- skipped' } as const;
const COLOURS = { ok: 32, warning: 33, fault: 31, skipped: 90 } as const;

export function addDoctorCommand(program: Command, deps: { log: Log }): void {
  program
    .command('doctor')
    .description('look at everything that a mail depends on, and say how to mend what is wrong')
    .option('--json', 'as JSON', false)
    .option('--dns-server <address...>', "ask this DNS server instead of the system's")
    .action(async ({ json, dnsServer = [] }: { json: boolean; dnsServer?: string[] }) => {
      const findings = await findingsHere(deps.log, dnsServer);
      process.stdout.write(json ? `${printable(JSON.stringify({ findings }, null, 2))}\n` : page(findings));
      if (findings.some(({ status }) => status === 'fault')) process.exitCode = 1;
    });
}

async function findingsHere(log: Log, dnsServers: readonly string[]): Promise<Finding[]> {
  try {
    return await diagnose(loadConfig({ decrypted: serverCredentials() }), { log, dnsServers });
  } catch (error) {
    if (!hasCode(error, 'config.invalid')) throw error;
    const mend =
      'docs/configuration.md describes every variable. On a server run this as root: others cannot read the secrets.';
    return [fault('configuration', error.message, mend)];
  }
}

/** All checks under this configuration. */
export async function diagnose(
  loaded: { config: Config; secrets: Secrets },
  { log, dnsServers }: { log: Log; dnsServers: readonly string[] },
): Promise<Finding[]> {
  const { domains, streams } = loaded.config;
  const store = streams.kind === 's2' ? `S2 (${streams.basin})` : 'the local store';
  const checks = [...machineChecks, s2FenceCheck, ...streamChecks, ...mailChecks];
  const findings = await runChecks(checks, contextOf(loaded, log, dnsServers));
  return [ok('configuration', `${domains.join(', ')} on ${store}`), ...findings];
}

function contextOf(
  { config, secrets }: { config: Config; secrets: Secrets },
  log: Log,
  dnsServers: readonly string[],
): DoctorContext {
  const baseUrl = config.resend?.baseUrl == null ? {} : { baseUrl: config.resend.baseUrl };
  const accountOf = (key: Secrets['resendApiKey']) =>
    key && createResendAccount(clock, { apiKey: key.reveal(), ...baseUrl });
  const isSecondKey = secrets.resendSendingKey?.reveal() !== secrets.resendApiKey?.reveal();
  return {
    config,
    secrets,
    clock,
    log,
    run: createRunProgram(clock),
    account: accountOf(secrets.resendApiKey),
    sendingAccount: isSecondKey ? accountOf(secrets.resendSendingKey) : null,
    dnsServers: dnsServers.length > 0 ? dnsServers : config.dnsServers,
  };
}

function page(findings: readonly Finding[]): string {
  const isTerminal = process.stdout.isTTY;
  const lines = findings.flatMap(({ part, status, message, mend }) => {
    const sign = isTerminal ? `\u001b[${COLOURS[status]}m${SIGNS[status]}\u001b[0m` : SIGNS[status];
    const line = `${sign}  ${part.padEnd(13)} ${printable(message).replaceAll('\n', '\n                          ')}`;
    return mend === undefined ? [line] : [line, `                          → ${printable(mend)}`];
  });
  const count = (status: Finding['status']): number => findings.filter((one) => one.status === status).length;
  const sum = `${count('fault')} faults, ${count('warning')} warnings, ${count('ok')} in order, ${count('skipped')} not looked at.`;
  return `${lines.join('\n')}\n\n${sum}\n`;
}
