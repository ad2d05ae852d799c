/** What work costs this thread, so that a test can tell linear growth from another one whatever else runs beside it. */

const ROUNDS = 5;

/** How many times as much processor time `large` takes as `small`: of each the cheapest of several rounds. */
export function costRatio(small: () => unknown, large: () => unknown): number {
  const cheapest = [Infinity, Infinity];
  // The first round also makes the compiler do its work.
  for (let round = 0; round <= ROUNDS; round += 1) {
    for (const [index, work] of [small, large].entries())
      cheapest[index] = Math.min(cheapest[index] ?? Infinity, costMicros(work));
  }
  const [ofSmall = 1, ofLarge = 1] = cheapest;
  return ofLarge / Math.max(ofSmall, 1);
}

function costMicros(work: () => unknown): number {
  const before = process.threadCpuUsage();
  work();
  const { user, system } = process.threadCpuUsage(before);
  return user + system;
}
