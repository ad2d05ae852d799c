/**
 * How much of what tools fetch is in the daemon's memory at once: a budget for each run, inside one for all runs of a
 * process. Who finds it spent waits, first come first served, and is not refused.
 *
 * Nothing waits for ever on another of its run: bodies that are sent and bodies that are read have budgets apart, a
 * call takes them in this order, and each body takes its whole size once.
 */
import { createBudget } from '../platform/budget.ts';
import type { Budget } from '../platform/budget.ts';

const MIB = 1024 * 1024;
/** Of one run. The largest body fits, alone. */
const RUN_BYTES = 10 * MIB;
/** Of all runs: more than those of one inbox may hold together, which is half of the pool's children. */
const PROCESS_BYTES = 60 * MIB;
const RUN_FETCHES = 6;
/** A body up to this size is not counted: a run has few at once, and many are smaller. */
export const UNCOUNTED_BYTES = 256 * 1024;

/** What the calls of `fetch` of one run share. */
export interface RunFetchBudget {
  readonly calls: Budget;
  /** Bytes of bodies that are sent. */
  readonly requests: Budget;
  /** Bytes of bodies that are read. */
  readonly responses: Budget;
}

export interface FetchBudget {
  readonly requests: Budget;
  readonly responses: Budget;
  ofRun(): RunFetchBudget;
}

export function createFetchBudget(): FetchBudget {
  const requests = createBudget(PROCESS_BYTES);
  const responses = createBudget(PROCESS_BYTES);
  return {
    requests,
    responses,
    ofRun: () => ({
      calls: createBudget(RUN_FETCHES),
      requests: createBudget(RUN_BYTES, requests),
      responses: createBudget(RUN_BYTES, responses),
    }),
  };
}
