/**
 * Holds back what keeps killing sandbox processes, so that it costs the others no more than it must. Two things may be
 * at fault, and each has circuits of its own: the mail of one sender, who may mean it, and the tool.
 *
 * - *closed*: mail runs. A run that cost a process counts for both; one that did not, whatever else became of it,
 *   starts both counts again.
 * - *open* for a sender's mail to a tool, by `MAX_KILLS` in a row of it: that mail is parked, without a run, for
 *   `HOLD_MS`. Nobody else's is.
 * - *open* for a tool, once kills in a row were of mail of `MAX_SENDERS` senders: all its mail waits, at first for
 *   `FIRST_HOLD_MS`, then for twice as long each time, up to `HOLD_MS`. It waits and is not parked, because a stranger
 *   can write under many names, and must not park the mail of others. For how long is the caller's to bound.
 * - *half open*: the next mail is a probe. It runs; what else comes meanwhile is held. If it costs a process all is
 *   as before, otherwise the circuit is closed.
 *
 * A new revision begins closed. Each daemon counts for itself: an inbox is served by one at a time.
 */
import type { Clock } from '../platform/clock.ts';
import type { Log } from '../platform/log.ts';
import type { FailureReason } from './sandbox/sandbox.ts';

/** Of one sender's mail to a tool, in a row. */
export const MAX_KILLS = 5;
export const MAX_SENDERS = 3;
export const FIRST_HOLD_MS = 5_000;
export const HOLD_MS = 60_000;
/** Tools, and senders: what was counted longest ago is forgotten. */
const MAX_COUNTED = 1_000;

/** After these the sandbox gave up a process. */
const KILLING: readonly FailureReason[] = ['timeout', 'cpu', 'memory', 'crashed', 'log-flood', 'call-flood'];

/** A run, as far as it counts here. */
export interface RunRef {
  readonly exportName: string;
  readonly revision: string;
  /** Whose mail it is. */
  readonly sender: string;
}

export interface Hold {
  /** What is held: this sender's mail to the tool, or the tool. */
  readonly of: 'sender' | 'tool';
  readonly untilMs: number;
  readonly kills: number;
  /** Why the last run was killed. */
  readonly reason: FailureReason;
}

type RunEnd = FailureReason | 'returned' | 'given-up';

export interface ToolBreaker {
  /** Whether this mail may run now: null, or why it may not. Who may run says how it ended by `settle`. */
  enter(run: RunRef): Hold | null;
  /** @param end how the run ended; a run that was given up from outside says nothing about its tool */
  settle(run: RunRef, end: RunEnd): void;
}

interface Circuit {
  readonly revision: string;
  /** In a row. */
  readonly kills: number;
  /** Whose mail they were, each once. */
  readonly senders: readonly string[];
  readonly reason: FailureReason;
  /** For how long it was opened, the last time; 0 while it is closed. */
  readonly holdMs: number;
  /** By the monotonic clock: one that is set back must not hold a tool for longer. */
  readonly dueMs: number;
  readonly isProbing: boolean;
}

interface CircuitOptions {
  of: Hold['of'];
  keyOf: (run: RunRef) => string;
  opens: (circuit: Pick<Circuit, 'kills' | 'senders'>) => boolean;
  firstHoldMs: number;
}

interface Circuits {
  hold(run: RunRef): Hold | null;
  /** The run goes on: if its circuit is open, it is the probe. */
  begin(run: RunRef): void;
  settle(run: RunRef, end: RunEnd): void;
}

export function createToolBreaker(deps: { clock: Clock; log: Log }): ToolBreaker {
  const ofSenders = createCircuits(deps, {
    of: 'sender',
    keyOf: ({ exportName, sender }) => `${exportName} ${sender}`,
    opens: ({ kills }) => kills >= MAX_KILLS,
    firstHoldMs: HOLD_MS,
  });
  const ofTools = createCircuits(deps, {
    of: 'tool',
    keyOf: ({ exportName }) => exportName,
    opens: ({ senders }) => senders.length >= MAX_SENDERS,
    firstHoldMs: FIRST_HOLD_MS,
  });
  return {
    enter(run) {
      const held = ofSenders.hold(run) ?? ofTools.hold(run);
      if (held) return held;
      ofSenders.begin(run);
      ofTools.begin(run);
      return null;
    },
    settle(run, end) {
      ofSenders.settle(run, end);
      ofTools.settle(run, end);
    },
  };
}

function createCircuits({ clock, log }: { clock: Clock; log: Log }, options: CircuitOptions): Circuits {
  const { of, keyOf, opens, firstHoldMs } = options;
  const circuits = new Map<string, Circuit>();

  function circuitOf(run: RunRef): Circuit | undefined {
    const circuit = circuits.get(keyOf(run));
    return circuit?.revision === run.revision ? circuit : undefined;
  }

  function kill(run: RunRef, reason: FailureReason): void {
    const before = circuitOf(run);
    const { kills = 0, senders = [], holdMs: heldMs = 0 } = before ?? {};
    const counted = {
      revision: run.revision,
      kills: kills + 1,
      senders: senders.includes(run.sender) ? senders : [...senders, run.sender].slice(0, MAX_SENDERS),
      reason,
      holdMs: heldMs,
      dueMs: before?.dueMs ?? 0,
      isProbing: false,
    };
    // Of the runs that began before it was opened, none opens it for longer.
    const isOpening = heldMs === 0 ? opens(counted) : before!.isProbing;
    const holdMs = isOpening ? Math.min(heldMs * 2 || firstHoldMs, HOLD_MS) : heldMs;
    const dueMs = isOpening ? clock.monotonicMs() + holdMs : counted.dueMs;
    circuits.delete(keyOf(run));
    circuits.set(keyOf(run), { ...counted, holdMs, dueMs });
    const [oldest] = circuits.keys();
    if (circuits.size > MAX_COUNTED) circuits.delete(oldest!);
    const { exportName, revision } = run;
    if (isOpening)
      log.warn({ exportName, revision, of, kills: counted.kills, reason, holdMs }, 'runner.tool_held');
  }

  return {
    hold(run) {
      const circuit = circuitOf(run);
      if (!circuit || circuit.holdMs === 0) return null;
      const { isProbing, holdMs, dueMs, kills, reason } = circuit;
      const leftMs = isProbing ? holdMs : dueMs - clock.monotonicMs();
      return leftMs <= 0 ? null : { of, untilMs: clock.nowMs() + leftMs, kills, reason };
    },
    begin(run) {
      const circuit = circuitOf(run);
      if (!circuit || circuit.holdMs === 0) return;
      circuits.set(keyOf(run), { ...circuit, isProbing: true });
      log.info({ exportName: run.exportName, revision: run.revision, of }, 'runner.tool_probed');
    },
    settle(run, end) {
      if (isKilling(end)) return kill(run, end);
      const circuit = circuitOf(run);
      if (!circuit) return;
      if (end === 'given-up') return void circuits.set(keyOf(run), { ...circuit, isProbing: false });
      // Of the runs that began before it was opened, one may still end well: only the probe closes it.
      if (circuit.holdMs > 0 && !circuit.isProbing) return;
      circuits.delete(keyOf(run));
      if (circuit.holdMs > 0)
        log.info({ exportName: run.exportName, revision: run.revision, of }, 'runner.tool_released');
    },
  };
}

function isKilling(end: string): end is FailureReason {
  return KILLING.some((reason) => reason === end);
}
