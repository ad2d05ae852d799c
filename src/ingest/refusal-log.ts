/**
 * Logs requests that were refused, without letting strangers fill the log: of each reason one line a minute at most,
 * with how many there were since the line before. `millrace_refused_requests_total` counts every one.
 */
import type { Clock } from '../platform/clock.ts';
import { errorMessage } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { Refusal } from './webhook-body.ts';

const INTERVAL_MS = 60_000;

/** @param event what the lines say */
export function createRefusalLog(
  { clock, log }: { clock: Clock; log: Log },
  event: string,
): (refusal: Refusal) => void {
  /** By reason, of which we have but a handful. */
  const told = new Map<string, { atMs: number; untold: number }>();
  return ({ status, message, cause }) => {
    const nowMs = clock.monotonicMs();
    const last = told.get(message);
    if (last && nowMs - last.atMs < INTERVAL_MS) {
      last.untold += 1;
      return;
    }
    told.set(message, { atMs: nowMs, untold: 0 });
    const level = status >= 500 ? 'error' : 'warn';
    const count = 1 + (last?.untold ?? 0);
    log[level]({ status, reason: message, cause: cause && errorMessage(cause), count }, event);
  };
}
