/**
 * How much a run may say to its host. The child process counts, so that most floods end where they begin; and the pool
 * counts what arrives, because a tool that has broken out of its isolate is the child.
 */
export const callLimits = {
  inAll: 10_000,
  atOnce: 100,
  /** As JSON: what is longer waits in the child until there is room among those that the host has not answered. */
  smallChars: 64 * 1024,
  /** The largest body that `fetch` takes, in base64, and what is around it. */
  largeCharsAtOnce: 15 * 1024 * 1024,
} as const;

/** Of one message as JSON (`json-parts.ts`): thirty times the headers that a request may have. */
export const MAX_MESSAGE_PARTS = 10_000;

/** More than a child can have unanswered that keeps to the limits above. */
export const MAX_UNANSWERED_CHARS =
  callLimits.largeCharsAtOnce + callLimits.atOnce * (callLimits.smallChars + 1024);

export const CALL_FLOOD = `the tool made too many calls to its host (${callLimits.atOnce} at once, ${callLimits.inAll} in all)`;

/** What a log line counts beyond its text, so that empty lines are no way around the limit. */
const LOG_LINE_OVERHEAD_BYTES = 16;

export function loggedBytes(line: string): number {
  return Buffer.byteLength(line) + LOG_LINE_OVERHEAD_BYTES;
}
