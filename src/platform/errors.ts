/**
 * The one error class, and the four kinds that decide everything:
 *
 * - `transient`  try again (and honour `retryAfterMs`);
 * - `permanent`  this piece of work can never succeed: dead letter, go on with the next;
 * - `invalid`    refused at the edge: somebody gave us something that we do not take;
 * - `bug`        an invariant of ours does not hold: stop the process.
 *
 * `code` is stable, dotted and documented in docs/errors.md; `hint` tells a person what to do.
 * A third party's errors are turned into this class in the one adapter that calls it.
 */
export type ErrorKind = 'transient' | 'permanent' | 'invalid' | 'bug';

export interface ErrorDetails {
  /** What to do about it, as a sentence to a person. */
  hint?: string;
  /** For `transient`: how long the other side asked us to wait, in milliseconds. */
  retryAfterMs?: number;
  cause?: unknown;
}

export class MillraceError extends Error {
  readonly kind: ErrorKind;
  readonly code: string;
  readonly hint: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(kind: ErrorKind, code: string, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'MillraceError';
    this.kind = kind;
    this.code = code;
    this.hint = details.hint;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** True for a `MillraceError` with this code; narrows the type. */
export function hasCode(error: unknown, code: string): error is MillraceError {
  return error instanceof MillraceError && error.code === code;
}

/**
 * The kind of anything that was thrown. What is not ours was not foreseen: it counts as `bug`,
 * and whoever catches it decides whether that may stop the process.
 */
export function errorKind(error: unknown): ErrorKind {
  return error instanceof MillraceError ? error.kind : 'bug';
}

/** One line for a log or a record: the message of anything that was thrown, without its stack. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
