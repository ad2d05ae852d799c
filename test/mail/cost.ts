/** What work costs this thread, so that a test can tell linear growth from another one whatever else runs beside it. */

const ROUNDS = 3;
/** The kernel counts a thread's time in steps of up to 4 ms: so much is measured at least. */
const MEASURED_MICROS = 20_000;
const MAX_REPETITIONS = 2_000;

/** How many times as much processor time `large` takes as `small`: of each the cheapest of several rounds. */
export function costRatio(small: () => unknown, large: () => unknown): number {
  const cheapest = { small: Infinity, large: Infinity };
  for (let round = 0; round < ROUNDS; round += 1) {
    cheapest.small = Math.min(cheapest.small, costMicros(small));
    cheapest.large = Math.min(cheapest.large, costMicros(large));
  }
  return cheapest.large / cheapest.small;
}

function costMicros(work: () => unknown): number {
  const before = process.threadCpuUsage();
  for (let repetition = 1; ; repetition += 1) {
    work();
    const { user, system } = process.threadCpuUsage(before);
    if (user + system >= MEASURED_MICROS || repetition === MAX_REPETITIONS)
      return (user + system) / repetition;
  }
}
