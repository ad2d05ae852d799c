/**
 * How much a run may say to its host. The child process counts, so that most floods end where they begin; and the pool
 * counts what arrives, because a tool that has broken out of its isolate is the child.
 */
export const callLimits = { inAll: 10_000, atOnce: 100 } as const;

export const CALL_FLOOD = `the tool made too many calls to its host (${callLimits.atOnce} at once, ${callLimits.inAll} in all)`;

/** What a log line counts beyond its text, so that empty lines are no way around the limit. */
const LOG_LINE_OVERHEAD_BYTES = 16;

export function loggedBytes(line: string): number {
  return Buffer.byteLength(line) + LOG_LINE_OVERHEAD_BYTES;
}
