/**
 * What a check of `millrace doctor` is, and how all of them are run: side by side, each with a time limit, so that
 * one that hangs is a finding and not a doctor that hangs. A check only looks; none changes anything, and no finding
 * holds a secret.
 */
import type { Clock } from '../../platform/clock.ts';
import type { Config, Secrets } from '../../platform/config.ts';
import { createDeadline } from '../../platform/deadline.ts';
import { MillraceError, errorMessage } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import type { ResendAccount } from '../resend-account.ts';
import type { RunProgram } from '../run-program.ts';

export interface Finding {
  /** Which part was looked at, in a word or two. */
  readonly part: string;
  /** A fault loses or delays mail, or will soon; a warning may; `skipped` says why nothing could be said. */
  readonly status: 'ok' | 'warning' | 'fault' | 'skipped';
  readonly message: string;
  /** What a person does about a warning or a fault. */
  readonly mend?: string;
}

/** What checks look with. */
export interface DoctorContext {
  readonly config: Config;
  readonly secrets: Secrets;
  readonly clock: Clock;
  readonly log: Log;
  readonly run: RunProgram;
  /** With the key that reads; null where there is none. */
  readonly account: ResendAccount | null;
  /** With the key that sends, where it is another one. */
  readonly sendingAccount: ResendAccount | null;
  /** Names of DNS servers to ask in place of the system's. */
  readonly dnsServers: readonly string[];
}

export interface Check {
  readonly part: string;
  look(context: DoctorContext, signal: AbortSignal): Promise<Finding[]>;
}

const CHECK_TIMEOUT_MS = 20_000;

export const ok = (part: string, message: string): Finding => ({ part, status: 'ok', message });
export const skipped = (part: string, message: string): Finding => ({ part, status: 'skipped', message });
export const warning = (part: string, message: string, mend: string): Finding => ({
  part,
  status: 'warning',
  message,
  mend,
});
export const fault = (part: string, message: string, mend: string): Finding => ({
  part,
  status: 'fault',
  message,
  mend,
});

export async function runChecks(checks: readonly Check[], context: DoctorContext): Promise<Finding[]> {
  const findings = await Promise.all(checks.map((check) => runCheck(check, context)));
  return findings.flat();
}

async function runCheck(check: Check, context: DoctorContext): Promise<Finding[]> {
  const { part } = check;
  using deadline = createDeadline(context.clock, CHECK_TIMEOUT_MS);
  const late = Promise.withResolvers<never>();
  deadline.signal.addEventListener('abort', () => late.reject(deadline.signal.reason));
  try {
    return await Promise.race([check.look(context, deadline.signal), late.promise]);
  } catch (error) {
    if (deadline.signal.aborted)
      return [
        fault(
          part,
          `no answer within ${CHECK_TIMEOUT_MS / 1000} s`,
          'Look at the network and the load, then run this again.',
        ),
      ];
    const mend = error instanceof MillraceError ? error.hint : undefined;
    return [fault(part, errorMessage(error), mend ?? 'Mend what it says, then run this again.')];
  }
}
