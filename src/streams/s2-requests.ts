/**
 * One request to S2: bounded in time, ended by the caller's signal and by the store's end, its failures turned
 * into our errors. The SDK's own retries are off: it waits without a signal and on its own clock, and only the
 * callers know what may be tried again.
 */
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError } from '../platform/errors.ts';
import { s2Failure } from './s2-errors.ts';

const REQUEST_TIMEOUT_MS = 15_000;

export interface RequestOptions {
  signal?: AbortSignal | undefined;
  /** How long the server was asked to wait before it answers. */
  waitMs?: number;
  /** Lost answers are then `streams.append_ambiguous`. */
  isAppend?: boolean;
}

/**
 * @throws the signal's reason when it is aborted; otherwise MillraceError, see `s2Failure`
 */
export type Request = <T>(options: RequestOptions, send: (signal: AbortSignal) => Promise<T>) => Promise<T>;

export function createRequest(clock: Clock, closing: AbortSignal): Request {
  return async ({ signal, waitMs = 0, isAppend = false }, send) => {
    signal?.throwIfAborted();
    assertOpen(closing);
    using deadline = createDeadline(clock, waitMs + REQUEST_TIMEOUT_MS, signal, closing);
    try {
      return await send(deadline.signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw s2Failure(error, isAppend);
    }
  };
}

function assertOpen(closing: AbortSignal): void {
  if (closing.aborted) throw new MillraceError('transient', 'streams.unavailable', 'the store is closed');
}
