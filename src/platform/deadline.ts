/**
 * A time limit on a call, as an AbortSignal that also follows the caller's own. Unlike
 * `AbortSignal.timeout` it runs on the injected clock, and its timer ends with the block that made it.
 */
import type { Clock } from './clock.ts';

export interface Deadline extends Disposable {
  /** Aborted when the time is over or the caller's signal is. */
  readonly signal: AbortSignal;
  /** Starts the time again: for a limit on silence rather than on the whole. */
  restart(): void;
  /** Until `restart`: for a wait of our own in between. */
  pause(): void;
}

/** `using deadline = createDeadline(clock, 10_000, signal)`: until the end of the block. Follows every parent. */
export function createDeadline(
  clock: Clock,
  timeoutMs: number,
  ...parents: readonly (AbortSignal | undefined)[]
): Deadline {
  const expiry = new AbortController();
  const arm = (): (() => void) =>
    clock.after(timeoutMs, () =>
      expiry.abort(new DOMException(`no end within ${timeoutMs} ms`, 'TimeoutError')),
    );
  let cancel = arm();
  // `AbortSignal.any` would leave work to the garbage collector, for each call, for as long as a parent lives.
  const followed = parents.filter((parent) => parent !== undefined);
  const follow = (): void => expiry.abort(followed.find(({ aborted }) => aborted)?.reason);
  if (followed.some(({ aborted }) => aborted)) follow();
  for (const parent of followed) parent.addEventListener('abort', follow, { once: true });
  return {
    signal: expiry.signal,
    restart() {
      cancel();
      cancel = arm();
    },
    pause: () => cancel(),
    [Symbol.dispose]() {
      cancel();
      for (const parent of followed) parent.removeEventListener('abort', follow);
    },
  };
}
