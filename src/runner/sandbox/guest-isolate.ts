/**
 * One isolate inside the child process: it runs a bundle, once for each email, each time in a realm that is
 * new. Prelude and bundle are compiled once; the next realm is made ahead, with the prelude evaluated.
 *
 * Entries are asynchronous: they work on another thread, so that the pipe is heard meanwhile and a lost isolate can
 * be told of. The two alone in which hardly anything happens are not: going to a thread and back costs more.
 *
 * Invariants: the guest holds no object of the host but one synchronous callback, which is deaf outside of
 * its own run; strings alone come out of it; one entry is in flight at a time, each with what is left of the
 * run's time as its timeout. A run is over when the entry in which the tool settled has ended, and one more
 * that shows what was left behind. The isolate is used again only after a run that ended well and left
 * nothing: no call, timer, rejection or grown heap (see docs/adr/0007). Where it may be lost (timeout,
 * memory, a flood) this only reports: the pool then kills the whole process.
 */
import ivm from 'isolated-vm';
import { systemClock } from '../../platform/clock.ts';
import { createHostOperations, DEADLINE_TIMER } from './host-operations.ts';
import type { GuestRun } from './host-operations.ts';
import type { Delivery, FromChild, GuestTask } from './messages.ts';
import { createPendingCalls } from './pending-calls.ts';
import type { FailureReason, RunLimits } from './sandbox.ts';

const PRELUDE_TIMEOUT_MS = 1_000;
const MAX_RUNS_PER_ISOLATE = 1_000;
/** An isolate that holds more of its memory limit than this after a run is not used again. */
const MAX_CARRIED_SHARE = 1 / 4;
const BYTES_PER_MB = 1024 * 1024;

export interface GuestIsolate {
  readonly memoryLimitMb: number;
  /**
   * Resolves when the isolate is done with the run, after the outcome was sent.
   * @returns whether it takes another; if not, it is disposed of.
   */
  run(run: { number: number; task: GuestTask; limits: RunLimits }): Promise<boolean>;
  answer(settlement: { run: number; call: number; ok: boolean; value: unknown; bytes: string | null }): void;
  dispose(): void;
}

interface Options {
  prelude: string;
  bundle: { revision: string; code: string };
  memoryLimitMb: number;
  send: (message: FromChild) => void;
}

/** A fresh context, for one run. */
interface Realm {
  context: ivm.Context;
  deliver: ivm.Reference;
  /** Whose callback this is; null before and after. */
  run: GuestRun | null;
}

interface Scripts {
  prelude: ivm.Script;
  bundle: ivm.Script;
  /** Does nothing: entering with it lets what was left behind come out. */
  nothing: ivm.Script;
}

export function createGuestIsolate(options: Options): GuestIsolate {
  const { memoryLimitMb } = options;
  let current: GuestRun | null = null;
  const isolate = new ivm.Isolate({
    memoryLimit: memoryLimitMb,
    onCatastrophicError: () => current && fail(current, 'memory', 'the tool ran out of memory'),
  });
  const operations = createHostOperations({ deliver, fail, send: options.send });
  const compiled = compile();
  let runs = 0;
  let realm: Realm | null = null;
  let next = prepareRealm();
  let isEntered = false;

  async function compile(): Promise<Scripts> {
    const bundle = await isolate.compileScript(options.bundle.code, {
      filename: `tools@${options.bundle.revision}`,
    });
    const prelude = await isolate.compileScript(options.prelude);
    return { prelude, bundle, nothing: await isolate.compileScript('0') };
  }

  /** Null where there is not enough memory for it. */
  async function prepareRealm(): Promise<Realm | null> {
    try {
      const { prelude } = await compiled;
      const context = await isolate.createContext();
      const listening: Pick<Realm, 'run'> = { run: null };
      const callback = new ivm.Callback((operation: unknown, payload: unknown): string => {
        const handler = Object.hasOwn(operations, String(operation))
          ? operations[String(operation)]
          : undefined;
        const { run } = listening;
        return run && !run.isOver && handler ? (handler(run, String(payload)) ?? '') : '';
      });
      const timeout = PRELUDE_TIMEOUT_MS;
      const start = await prelude.run(context, { reference: true, timeout });
      const entry = await start.apply(undefined, [callback], { result: { reference: true }, timeout });
      start.release();
      return Object.assign(listening, { context, deliver: entry });
    } catch {
      return null;
    }
  }

  /** Ends the run at once: the process is not used again. */
  function fail(run: GuestRun, reason: FailureReason, message: string): void {
    run.outcome = { type: 'failed', run: run.number, reason, message, stack: '' };
    finish(run);
  }

  function finish(run: GuestRun): void {
    if (run.isOver) return;
    run.isOver = true;
    run.isClean = leftNothing(run);
    for (const cancel of run.timers.values()) cancel();
    options.send(run.outcome!);
    run.over.resolve();
  }

  function deliver(run: GuestRun, delivery: Delivery, bytes: ArrayBuffer | null = null): void {
    run.mailbox.push({ delivery, bytes });
    void pump(run);
  }

  async function pump(run: GuestRun): Promise<void> {
    if (isEntered || run.isOver || !realm) return;
    isEntered = true;
    const { deliver: guest, context } = realm;
    const { nothing } = await compiled;
    for (let mail = run.mailbox.shift(); mail && !run.isOver; mail = run.mailbox.shift()) {
      const { delivery, bytes } = mail;
      const copy =
        bytes &&
        new ivm.ExternalCopy(bytes, { transferOut: true }).copyInto({ release: true, transferIn: true });
      await enter(run, (timeout) =>
        guest.apply(undefined, [JSON.stringify(delivery), copy ?? undefined], { timeout }),
      );
      if (run.outcome && !run.isOver) {
        await enter(run, (timeout) =>
          // Of a tool that left nothing behind, no code is left to run.
          leftNothing(run) ? nothing.runSync(context, { timeout }) : nothing.run(context, { timeout }),
        );
        finish(run);
      }
    }
    isEntered = false;
  }

  async function enter(run: GuestRun, entry: (timeoutMs: number) => unknown): Promise<void> {
    const leftMs = Math.ceil(run.deadlineMs - systemClock.monotonicMs());
    if (leftMs <= 0) return failTimeout(run);
    try {
      await entry(leftMs);
    } catch (error) {
      run.isClean = false;
      const message = error instanceof Error ? error.message : 'an unknown value';
      if (isolate.isDisposed) fail(run, 'memory', `the tool used more than ${memoryLimitMb} MiB`);
      else if (message === 'Script execution timed out.') failTimeout(run);
      // All of the guest's entries catch: what comes here is a rejection that nobody handled (yet).
      else operations['log']!(run, `unhandled rejection: ${message}`);
    }
  }

  function failTimeout(run: GuestRun): void {
    fail(run, 'timeout', `the tool took longer than ${run.limits.timeoutMs} ms`);
  }

  /** Whether the isolate is as good as new; a realm that was used is gone either way. */
  function isReusableAfter(run: GuestRun): boolean {
    runs += 1;
    realm?.deliver.release();
    realm?.context.release();
    realm = null;
    if (!run.isClean || runs >= MAX_RUNS_PER_ISOLATE || isolate.isDisposed) return false;
    const heap = isolate.getHeapStatisticsSync();
    const heldBytes = heap.used_heap_size + heap.externally_allocated_size;
    return heldBytes <= memoryLimitMb * BYTES_PER_MB * MAX_CARRIED_SHARE;
  }

  return {
    memoryLimitMb,
    async run({ number, task, limits }) {
      const run = createRun(number, limits, options.send);
      current = run;
      run.timers.set(
        DEADLINE_TIMER,
        systemClock.after(limits.timeoutMs, () => failTimeout(run)),
      );
      realm = await next;
      if (realm) {
        const { context } = realm;
        const { bundle } = await compiled;
        realm.run = run;
        await enter(run, (timeout) => bundle.run(context, { timeout }));
        deliver(run, { kind: 'begin', task });
      } else fail(run, 'memory', 'the tools do not fit into the memory of an isolate');
      await run.over.promise;
      current = null;
      const isReusable = isReusableAfter(run);
      if (isReusable) next = prepareRealm();
      else isolate.dispose();
      return isReusable;
    },
    answer({ run, call, ok, value, bytes }) {
      if (current?.number !== run || current.pendingCalls.remove(call) === 'unknown') return;
      const copy = bytes === null ? null : new Uint8Array(Buffer.from(bytes, 'base64')).buffer;
      deliver(current, { kind: 'settle', call, ok, value }, copy);
    },
    dispose: () => void next.then(() => isolate.dispose()),
  };
}

/** Whether no code of the tool is left to run. */
function leftNothing({ isClean, outcome, timers, pendingCalls }: GuestRun): boolean {
  const itsTimers = timers.size - (timers.has(DEADLINE_TIMER) ? 1 : 0);
  return isClean && outcome?.type === 'returned' && itsTimers === 0 && pendingCalls.size === 0;
}

function createRun(number: number, limits: RunLimits, send: Options['send']): GuestRun {
  return {
    number,
    limits,
    deadlineMs: systemClock.monotonicMs() + limits.timeoutMs,
    pendingCalls: createPendingCalls(send),
    timers: new Map(),
    logBytes: 0,
    outcome: null,
    over: Promise.withResolvers(),
    isOver: false,
    isClean: true,
    mailbox: [],
  };
}
