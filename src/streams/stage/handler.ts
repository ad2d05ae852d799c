/**
 * What a stage and its handler say to one another: a record and the attempt go in, an outcome comes out, or an
 * error whose kind decides. When and how often the handler is called: `attempts.ts`.
 */
import type { MillraceError } from '../../platform/errors.ts';
import type { Backoff } from '../../platform/retry.ts';
import type { StreamRecord } from '../stream-store.ts';
import type { Facts } from './facts.ts';
import type { Output } from './output-appender.ts';

/** What a handler makes of a record. */
export type Outcome =
  | {
      readonly kind: 'done';
      readonly outputs?: readonly Output[];
      readonly facts?: Facts;
      readonly isAtomic?: boolean;
    }
  | {
      readonly kind: 'skipped';
      readonly reason: string;
      readonly outputs?: readonly Output[];
      readonly facts?: Facts;
      readonly isAtomic?: boolean;
    }
  | {
      readonly kind: 'dead-letter';
      readonly reason: string;
      readonly error?: unknown;
      readonly facts?: Facts;
    }
  | {
      readonly kind: 'deferred';
      readonly untilMs: number;
      readonly reason: string;
      readonly holdsLane: boolean;
    };

export interface Attempt {
  /** From 1; a scheduled deferral does not count as an attempt. */
  readonly number: number;
  /** With `recordsAttempts`: when the first attempt began whose effect is not known; null for none before this. */
  readonly doubtSinceMs: number | null;
  /** How long ago it began, before it was written down where that is asked for: the process may have stood still since. */
  ageMs(): number;
  /** Aborted when the stage cannot wait any longer. */
  readonly signal: AbortSignal;
}

export interface HandlerOptions {
  /** Handlers at once. */
  concurrency: number;
  /** Of these, for one fairness key. Default: all. */
  concurrencyPerKey?: number;
  handle(record: StreamRecord, attempt: Attempt): Promise<Outcome>;
  /**
   * When what a record stands for came about (ms since the epoch), before which no copy of it can be; null for not to be
   * asked. Of one that comes long after it the journal is asked whether a copy was settled. Default: null for all.
   */
  causedAtMs?(record: StreamRecord): number | null;
  /** Backoff after a transient failure. */
  backoff: Backoff;
  /** A transient failure on this attempt is a dead letter. */
  maxAttempts: number;
  /** Write an `attempt` to the journal before each call of the handler. Default: false. */
  recordsAttempts?: boolean;
  /** With `recordsAttempts`: false for an error after which the attempt surely had no effect. Default: true for all. */
  leavesDoubt?(error: MillraceError): boolean;
}
