/**
 * How much of what tools fetch is in the daemon's memory at once: a budget for each run, inside one for all runs of a
 * process. Who finds it spent waits, first come first served, and is not refused.
 *
 * Nothing waits for ever on another of its run: bodies that are sent and bodies that are read have budgets apart, a
 * call takes them in this order, and each body takes its whole size once.
 */

const MIB = 1024 * 1024;
/** Of one run. The largest body fits, alone. */
const RUN_BYTES = 10 * MIB;
/** Of all runs: more than those of one inbox may hold together, which is half of the pool's children. */
const PROCESS_BYTES = 60 * MIB;
const RUN_FETCHES = 6;
/** A body up to this size is not counted: a run has few at once, and many are smaller. */
export const UNCOUNTED_BYTES = 256 * 1024;

export interface Budget {
  /**
   * Waits until there is room; what is taken is given back when it is disposed of.
   * @throws the signal's reason
   */
  take(amount: number, signal: AbortSignal): Promise<Disposable>;
  /** Taken now. */
  readonly taken: number;
}

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

/** @param within another, of which the same amount is taken, after its own */
export function createBudget(limit: number, within?: Budget): Budget {
  const waiting = new Set<{ amount: number; go: () => void }>();
  let taken = 0;

  function letIn(): void {
    for (const waiter of waiting) {
      if (taken + waiter.amount > limit) return;
      waiting.delete(waiter);
      taken += waiter.amount;
      waiter.go();
    }
  }

  function giveBack(amount: number): void {
    taken -= amount;
    letIn();
  }

  async function turn(amount: number, signal: AbortSignal): Promise<void> {
    const admitted = Promise.withResolvers<void>();
    const waiter = { amount, go: admitted.resolve };
    const onAbort = (): void => {
      if (waiting.delete(waiter)) admitted.reject(signal.reason);
      letIn();
    };
    signal.throwIfAborted();
    signal.addEventListener('abort', onAbort, { once: true });
    waiting.add(waiter);
    letIn();
    try {
      await admitted.promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  return {
    get taken() {
      return taken;
    },
    async take(asked, signal) {
      if (asked === 0) return disposableOnce(() => {});
      const amount = Math.min(asked, limit);
      await turn(amount, signal);
      try {
        const outer = await within?.take(amount, signal);
        return disposableOnce(() => {
          outer?.[Symbol.dispose]();
          giveBack(amount);
        });
      } catch (error) {
        giveBack(amount);
        throw error;
      }
    },
  };
}

function disposableOnce(dispose: () => void): Disposable {
  let isDisposed = false;
  return {
    [Symbol.dispose]() {
      if (!isDisposed) dispose();
      isDisposed = true;
    },
  };
}
