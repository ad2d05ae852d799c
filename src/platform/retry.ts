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

/** Of what the other side asks for, and at most: by so much may more time pass. */
const ASKED_SPREAD = 0.25;
const MAX_SPREAD_MS = 60_000;

/**
 * The same where the other side has said when to come again: never before, and a little later by chance, so that all
 * who were told the same time do not come at once.
 * @param before.askedMs what it said, if anything
 */
export function retryDelayMs(
  before: { attempts: number; askedMs: number | undefined },
  backoff: Backoff,
  random: () => number,
): number {
  const { attempts, askedMs = 0 } = before;
  const spreadMs = Math.min(askedMs * ASKED_SPREAD, MAX_SPREAD_MS);
  return Math.max(Math.ceil(askedMs + random() * spreadMs), backoffMs(attempts, backoff, random));
}
