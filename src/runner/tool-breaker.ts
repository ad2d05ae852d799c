/**
 * Holds a tool that keeps killing its sandbox process, so that it costs the others no more than it must.
 *
 * - *closed*: its mail runs. `MAX_KILLS` runs in a row that each cost a process open it; one that does not,
 *   whatever else became of it, starts the count again.
 * - *open*: its mail is parked as `tool.held`, without a run, for `HOLD_MS`. Parked and not deferred: who
 *   looks at the dead letters sees what is wrong at once, and can redrive when the tool is mended; a queue
 *   that waits for a tool that may never work again would look healthy.
 * - *half open*: the next mail is a probe. It runs; those that come meanwhile are parked. If it costs a
 *   process the tool is held again, otherwise it is released.
 *
 * A new revision begins closed. Each daemon counts for itself: an inbox is served by one at a time.
 */
import type { Clock } from '../platform/clock.ts';
import type { Log } from '../platform/log.ts';
import type { FailureReason } from './sandbox/sandbox.ts';

/** Runs in a row that each cost a process. */
export const MAX_KILLS = 5;
export const HOLD_MS = 60_000;
/** More tools than any repository has; the one that was first to be counted is forgotten. */
const MAX_COUNTED = 1_000;

/** After these the sandbox gave up a process. */
const KILLING: readonly FailureReason[] = ['timeout', 'cpu', 'memory', 'crashed', 'log-flood', 'call-flood'];

export interface ToolRef {
  readonly exportName: string;
  readonly revision: string;
}

export interface Hold {
  readonly untilMs: number;
  readonly kills: number;
  /** Why the last run was killed. */
  readonly reason: FailureReason;
}

export interface ToolBreaker {
  /** Whether the tool may run now: null, or why it may not. Who may run says how it ended by `settle`. */
  enter(tool: ToolRef): Hold | null;
  /** @param end how the run ended; a run that was given up from outside says nothing about its tool */
  settle(tool: ToolRef, end: FailureReason | 'returned' | 'given-up'): void;
}

function isKilling(end: string): end is FailureReason {
  return KILLING.some((reason) => reason === end);
}

interface Count extends Hold {
  readonly revision: string;
  readonly isProbing: boolean;
}

export function createToolBreaker({ clock, log }: { clock: Clock; log: Log }): ToolBreaker {
  const counts = new Map<string, Count>();

  function countOf({ exportName, revision }: ToolRef): Count | undefined {
    const count = counts.get(exportName);
    return count?.revision === revision ? count : undefined;
  }

  const isHeld = (count: Count): boolean => count.kills >= MAX_KILLS;

  function kill(tool: ToolRef, reason: FailureReason): void {
    const kills = (countOf(tool)?.kills ?? 0) + 1;
    const isOpening = kills >= MAX_KILLS;
    const untilMs = isOpening ? clock.nowMs() + HOLD_MS : 0;
    counts.delete(tool.exportName);
    counts.set(tool.exportName, { revision: tool.revision, kills, reason, untilMs, isProbing: false });
    const [oldest] = counts.keys();
    if (counts.size > MAX_COUNTED) counts.delete(oldest!);
    if (isOpening)
      log.warn({ ...tool, kills, reason, until: new Date(untilMs).toISOString() }, 'runner.tool_held');
  }

  return {
    enter(tool) {
      const count = countOf(tool);
      if (!count || !isHeld(count)) return null;
      if (count.isProbing || clock.nowMs() < count.untilMs) return count;
      counts.set(tool.exportName, { ...count, isProbing: true });
      log.info({ ...tool }, 'runner.tool_probed');
      return null;
    },
    settle(tool, end) {
      if (isKilling(end)) return kill(tool, end);
      const count = countOf(tool);
      if (!count) return;
      if (end === 'given-up') return void counts.set(tool.exportName, { ...count, isProbing: false });
      // Of the runs that began before the tool was held, one may still end well: only the probe releases it.
      if (isHeld(count) && !count.isProbing) return;
      counts.delete(tool.exportName);
      if (isHeld(count)) log.info({ ...tool }, 'runner.tool_released');
    },
  };
}
