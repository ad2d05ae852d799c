/** How long to wait before the next attempt: one pure function, used wherever something is tried again. */
export interface Backoff {
  readonly baseMs: number;
  readonly maxMs: number;
}

/**
 * The delay before attempt `attempts + 1`, in milliseconds: doubles from `baseMs` to `maxMs`, of which the
 * upper half is drawn by `random` (in [0, 1)), so that many that failed together do not return together.
 * @param attempts how many attempts were made, from 1
 */
export function backoffMs(attempts: number, backoff: Backoff, random: () => number): number {
  const ceilingMs = Math.min(backoff.maxMs, backoff.baseMs * 2 ** Math.min(attempts - 1, 40));
  return Math.round(ceilingMs / 2 + (random() * ceilingMs) / 2);
}
