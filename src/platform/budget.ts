/**
 * An amount of something, mostly of memory, that many share. Who finds it spent waits, first come first served, and is
 * not refused; what would never fit is cut to all that there is, and comes alone.
 */

export interface Budget {
  /**
   * Waits until there is room; what is taken is given back when it is disposed of.
   * @throws the signal's reason
   */
  take(amount: number, signal: AbortSignal): Promise<Disposable>;
  /** Taken now. */
  readonly taken: number;
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
