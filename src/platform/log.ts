/**
 * Logs: pino's JSON on standard output, one line a finished record. The message is a static event
 * name, facts are fields. Never a body, a subject or a secret; addresses only where they explain a decision.
 */
import { pino } from 'pino';
import type { Logger } from 'pino';

export type Log = Logger;

/** A logger that writes JSON lines to `destination` (default: standard output) from `level` up. */
export function createLog(level: string, destination?: { write(line: string): void }): Log {
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, errorKey: 'error' };
  return destination ? pino(options, destination) : pino(options);
}
