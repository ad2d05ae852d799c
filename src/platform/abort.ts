/** Waiting for something or for an abort, whichever comes first, without leaving a listener behind. */

/** The promise, or a rejection with the signal's reason as soon as that is aborted. */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const abort = Promise.withResolvers<never>();
  abort.promise.catch(() => {});
  const onAbort = (): void => abort.reject(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, abort.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** Resolves when the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/**
 * Runs works that belong together until the signal is aborted, or until one of them ends: then all do. Rejects with the
 * first error there was, other than the signal's own.
 */
export async function runTogether(
  works: readonly ((signal: AbortSignal) => Promise<void>)[],
  signal: AbortSignal,
): Promise<void> {
  const ended = new AbortController();
  const running = AbortSignal.any([signal, ended.signal]);
  const errors: unknown[] = [];
  const run = async (work: (signal: AbortSignal) => Promise<void>): Promise<void> => {
    try {
      await work(running);
    } catch (error) {
      if (!running.aborted || error !== running.reason) errors.push(error);
    }
    ended.abort();
  };
  await Promise.all(works.map(run));
  if (errors.length > 0) throw errors[0];
}
