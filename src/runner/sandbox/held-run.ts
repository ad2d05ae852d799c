/**
 * Which runs last, so that for those that wait behind them the pool grows, by as many children as they hold.
 *
 * A start takes about as much CPU time as fifty small runs: where those alone are in the way, it would hold up what it is
 * meant to help. A run that waits for a host holds its child and nothing else. One that computes holds a processor as well,
 * which another child would only share: it counts later. On a busy machine a small one lasts as long, and waits for a
 * processor, which yet another child would take from it: so a run computes once it has had that much of one, or lasts for
 * very long.
 */
import type { SandboxChild } from './child-process.ts';

/** A child and its run. */
interface Holder {
  readonly job: { readonly startedMs: number } | null;
  readonly child: Pick<SandboxChild, 'waitsForHost' | 'usage'>;
  /** CPU time of the child before the run. */
  readonly cpuMs: number;
}

const HELD_AFTER_MS = { waitingForHost: 100, computing: 300, stuck: 3_000 } as const;
const COMPUTED_MS = 150;

export function isHeld({ job, child, cpuMs }: Holder, nowMs: number): boolean {
  if (!job) return false;
  const lastedMs = nowMs - job.startedMs;
  if (child.waitsForHost) return lastedMs >= HELD_AFTER_MS.waitingForHost;
  if (lastedMs < HELD_AFTER_MS.computing) return false;
  const usage = child.usage();
  // Not on every system.
  const isTold = usage.residentMb > 0;
  return !isTold || usage.cpuMs - cpuMs >= COMPUTED_MS || lastedMs >= HELD_AFTER_MS.stuck;
}
