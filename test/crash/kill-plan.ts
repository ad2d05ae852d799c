/**
 * Where a process ends itself: at the n-th append, fence or send that fits a plan, before it begins, while it
 * is under way, or after it is done. `crashing-daemon.ts` puts this between the daemon and its streams, and
 * between the daemon and the provider.
 *
 * The end is a SIGKILL from within: no handler, no `finally`, no flush comes after it. `during` comes from another
 * thread, so that it cuts a commit of the local store too, which holds this one.
 */
import { Worker } from 'node:worker_threads';
import { Resend } from 'resend';
import type { Response } from 'resend';
import type { NewRecord, Stream, StreamStore } from '../../src/streams/stream-store.ts';

export interface KillPlan {
  readonly at: 'append' | 'fence' | 'send';
  readonly when: 'before' | 'during' | 'after';
  /** A regular expression that the stream's name matches; default: any stream. */
  readonly stream?: string;
  /** The `kind` of a JSON record that is in the batch; default: any batch. */
  readonly recordKind?: string;
  /** The first that fits is 1. */
  readonly nth: number;
  /** For `during`: so long after the begin; parts of a millisecond count. */
  readonly delayMs?: number;
}

/** What is about to happen. */
interface Step {
  readonly at: KillPlan['at'];
  readonly stream?: string;
  readonly records?: readonly NewRecord[];
}

export interface Executioner {
  /** Begins to count for a plan; the one before is forgotten. */
  arm(plan: KillPlan): void;
  /** Does the work of a step, unless the plan ends the process before, during or after it. */
  around<T>(step: Step, work: () => Promise<T>): Promise<T>;
}

export function createExecutioner(): Executioner {
  let plan: KillPlan | undefined;
  let seen = 0;
  let endSoon: ((delayMs: number) => void) | undefined;
  return {
    arm(next) {
      plan = next;
      seen = 0;
      if (next.when === 'during') endSoon ??= startKillingThread();
    },
    async around(step, work) {
      const isItsTurn = plan !== undefined && fits(plan, step) && ++seen === plan.nth;
      if (!plan || !isItsTurn) return work();
      const { when, delayMs = 0 } = plan;
      if (when === 'before') endProcess();
      if (when === 'during') endSoon?.(delayMs);
      const result = await work();
      if (when === 'after') endProcess();
      return result;
    },
  };
}

function endProcess(): void {
  process.kill(process.pid, 'SIGKILL');
}

const KILLING_THREAD = `
  const { signal, delayMs } = require('node:worker_threads').workerData;
  Atomics.wait(signal, 0, 0);
  Atomics.wait(signal, 0, 1, delayMs[0]);
  process.kill(process.pid, 'SIGKILL');
`;

/** A thread that ends the process so long after it is told to, whatever the others do. */
function startKillingThread(): (delayMs: number) => void {
  const signal = new Int32Array(new SharedArrayBuffer(4));
  const delay = new Float64Array(new SharedArrayBuffer(8));
  new Worker(KILLING_THREAD, { eval: true, workerData: { signal, delayMs: delay } }).unref();
  return (delayMs) => {
    delay[0] = delayMs;
    Atomics.store(signal, 0, 1);
    Atomics.notify(signal, 0);
  };
}

function fits(plan: KillPlan, step: Step): boolean {
  if (plan.at !== step.at) return false;
  if (plan.stream !== undefined && !new RegExp(plan.stream).test(step.stream ?? '')) return false;
  return (
    plan.recordKind === undefined || (step.records ?? []).some((record) => kindOf(record) === plan.recordKind)
  );
}

function kindOf({ body }: NewRecord): unknown {
  try {
    return (JSON.parse(Buffer.from(body).toString('utf8')) as { kind?: unknown }).kind;
  } catch {
    // A piece of a mail is not JSON.
    return undefined;
  }
}

/** The same store, with the executioner at every append and fence. */
export function executedStore(store: StreamStore, executioner: Executioner): StreamStore {
  return {
    stream: (name) => executedStream(store.stream(name), executioner),
    list: (options) => store.list(options),
    close: () => store.close(),
  };
}

function executedStream(stream: Stream, executioner: Executioner): Stream {
  return {
    name: stream.name,
    append: (records, options) =>
      executioner.around({ at: 'append', stream: stream.name, records }, () =>
        stream.append(records, options),
      ),
    fence: (token, options) =>
      executioner.around({ at: 'fence', stream: stream.name }, () => stream.fence(token, options)),
    tail: (signal) => stream.tail(signal),
    read: (options) => stream.read(options),
    follow: (options) => stream.follow(options),
    trim: (beforeSeqNum, options) => stream.trim(beforeSeqNum, options),
    skip: (numbers, options) => stream.skip(numbers, options),
  };
}

/** From here on the executioner is at every call of Resend's SDK that hands over a mail, whatever carries its requests. */
export function executeSends(executioner: Executioner): void {
  // oxlint-disable-next-line unbound-method -- called with its own `this`
  const { post } = Resend.prototype;
  Resend.prototype.post = function executedPost<T>(this: Resend, ...args: Parameters<typeof post>) {
    const call = () => post.apply(this, args) as Promise<Response<T>>;
    return args[0] === '/emails' ? executioner.around({ at: 'send' }, call) : call();
  };
}
