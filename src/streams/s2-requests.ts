/**
 * One request to S2: bounded in time, ended by the caller's signal and by the store's end, its failures turned
 * into our errors. The SDK's own retries are off: it waits without a signal and on its own clock, and only the
 * callers know what may be tried again.
 */
import { addAbortListener } from 'node:events';
import type { Clock } from '../platform/clock.ts';
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
  // One controller a request, and one listener for the end of the store: `AbortSignal.any` costs more than the rest here.
  const underWay = new Set<AbortController>();
  addAbortListener(closing, () => {
    for (const ending of underWay) ending.abort(closing.reason);
  });

  return async ({ signal, waitMs = 0, isAppend = false }, send) => {
    signal?.throwIfAborted();
    assertOpen(closing);
    const timeoutMs = waitMs + REQUEST_TIMEOUT_MS;
    const ending = new AbortController();
    using _aborting = signal && addAbortListener(signal, () => ending.abort(signal.reason));
    const cancelTimeout = clock.after(timeoutMs, () =>
      ending.abort(new DOMException(`no answer within ${timeoutMs} ms`, 'TimeoutError')),
    );
    underWay.add(ending);
    try {
      return await send(ending.signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw s2Failure(error, isAppend);
    } finally {
      underWay.delete(ending);
      cancelTimeout();
    }
  };
}

function assertOpen(closing: AbortSignal): void {
  if (closing.aborted) throw new MillraceError('transient', 'streams.unavailable', 'the store is closed');
}
