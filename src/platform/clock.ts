/**
 * Time, timers and randomness: the only file that touches the system's. Everything that waits,
 * dates or draws takes a `Clock`, so that a simulation can replace all three under one seed.
 */
export interface Clock {
  /** Wall clock, milliseconds since the epoch. It can jump; never measure a duration with it. */
  nowMs(): number;
  /** Monotonic milliseconds from an arbitrary start: for durations. */
  monotonicMs(): number;
  /** Resolves after `ms`; rejects with the signal's reason as soon as it is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `callback` once after `ms`, unless the returned function was called before. */
  after(ms: number, callback: () => void): () => void;
  /** A number in [0, 1), for jitter. */
  readonly random: () => number;
  /** A fresh UUID, for names of processes and requests; never for idempotency keys. */
  uuid(): string;
}

/**
 * How long ago this was called, by the clock that says more: the monotonic one may stand still while the machine
 * sleeps, the other can be set back.
 */
export function startStopwatch(clock: Clock): () => number {
  const [startMs, startMonotonicMs] = [clock.nowMs(), clock.monotonicMs()];
  return () => Math.max(clock.nowMs() - startMs, clock.monotonicMs() - startMonotonicMs);
}

/** Node clamps a longer delay to 1 ms; a timer that is due later is armed again. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  random: () => Math.random(),
  // The global, which is loaded when it is first asked: sandbox processes have this clock and no use for it.
  uuid: () => crypto.randomUUID(),
  after(ms, callback) {
    const dueMs = performance.now() + ms;
    let timer: NodeJS.Timeout;
    const arm = (): void => {
      const leftMs = dueMs - performance.now();
      timer = setTimeout(leftMs > MAX_TIMER_MS ? arm : callback, Math.min(Math.max(leftMs, 0), MAX_TIMER_MS));
    };
    arm();
    return () => clearTimeout(timer);
  },
  sleep(ms, signal) {
    return new Promise<void>((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = (): void => {
        cancel();
        reject(signal?.reason);
      };
      const cancel = systemClock.after(ms, () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  },
};
