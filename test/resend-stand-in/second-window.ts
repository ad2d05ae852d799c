/**
 * The rate limit of a team: a strict window of one second of real time over all its keys. What is over the
 * limit is refused and does not count. Every answer says where the window stands.
 */
const WINDOW_MS = 1000;
/** Out of the way unless a test sets a limit. */
const DEFAULT_LIMIT = 100_000;

export class SecondWindow {
  #startMs = 0;
  #used = 0;

  take(limit: number = DEFAULT_LIMIT): { exceeded: boolean; headers: Record<string, string> } {
    const nowMs = Date.now();
    if (nowMs - this.#startMs >= WINDOW_MS) {
      this.#startMs = nowMs;
      this.#used = 0;
    }
    const exceeded = this.#used >= limit;
    if (!exceeded) this.#used += 1;
    // Whole seconds, rounded up; the real service sends `retry-after` with every answer, too.
    const resetSeconds = String(Math.ceil((this.#startMs + WINDOW_MS - nowMs) / 1000));
    const headers = {
      'ratelimit-limit': String(limit),
      'ratelimit-remaining': String(limit - this.#used),
      'ratelimit-reset': resetSeconds,
      'retry-after': resetSeconds,
    };
    return { exceeded, headers };
  }
}
