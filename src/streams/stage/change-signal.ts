/** Where the parts of a stage wait for one another: each `wait` resolves at the next `notify`. */
export interface ChangeSignal {
  wait(): Promise<void>;
  notify(): void;
  /** How many wait now. */
  readonly waiters: number;
}

export function createChangeSignal(): ChangeSignal {
  let waiting: (() => void)[] = [];
  return {
    wait: () => new Promise<void>((resolve) => waiting.push(resolve)),
    notify() {
      const woken = waiting;
      waiting = [];
      for (const wake of woken) wake();
    },
    get waiters() {
      return waiting.length;
    },
  };
}
