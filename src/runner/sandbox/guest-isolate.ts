/**
 * One isolate for one run, inside the child process. It is made ahead (prelude evaluated, bundle compiled
 * but not run), used once, and thrown away.
 *
 * Invariants: the guest holds no object of the host but one synchronous callback; strings alone come out of
 * it; one entry is in flight at a time, each with what is left of the run's time as its timeout. A run is
 * over when the entry in which the tool settled has ended. Where an isolate may be lost (timeout, memory,
 * a flood) this only reports: the pool then kills the whole process.
 */
import { randomBytes } from 'node:crypto';
import ivm from 'isolated-vm';
import { systemClock } from '../../platform/clock.ts';
import type { Delivery, FromChild, GuestTask } from './messages.ts';
import type { FailureReason, RunLimits } from './sandbox.ts';

const PRELUDE_TIMEOUT_MS = 1_000;
const MAX_CALLS = 10_000;
const MAX_PENDING_CALLS = 100;
const MAX_TIMERS = 1_000;
/** Among a run's timers, the one that ends it; the guest's are numbered from 1. */
const DEADLINE_TIMER = 0;
const MAX_RANDOM_BYTES = 65_536;
/** What a log line counts beyond its text, so that empty lines are no way around the limit. */
const LOG_LINE_OVERHEAD_BYTES = 16;

export interface GuestIsolate {
  run(run: { number: number; task: GuestTask; limits: RunLimits }): Promise<void>;
  answer(settlement: { call: number; ok: boolean; value: unknown; bytes: string | null }): void;
}

interface Options {
  prelude: string;
  bundle: { revision: string; code: string };
  memoryLimitMb: number;
  send: (message: FromChild) => void;
}

interface Run {
  number: number;
  limits: RunLimits;
  deadlineMs: number;
  calls: number;
  pendingCalls: Set<number>;
  timers: Map<number, () => void>;
  logBytes: number;
  /** What the guest reported; sent when its entry has ended. */
  outcome: FromChild | null;
  over: PromiseWithResolvers<void>;
  isOver: boolean;
  mailbox: { delivery: Delivery; bytes: ArrayBuffer | null }[];
}

type Operations = Record<string, (run: Run, payload: string) => string | void>;

export function createGuestIsolate(options: Options): GuestIsolate {
  let current: Run | null = null;
  const isolate = new ivm.Isolate({
    memoryLimit: options.memoryLimitMb,
    onCatastrophicError: () => current && fail(current, 'memory', 'the tool ran out of memory'),
  });
  const operations = hostOperations({ deliver, fail, send: options.send });
  const prepared = prepare();
  prepared.catch(() => {}); // `run` says so.
  let isEntered = false;

  async function prepare(): Promise<{ deliver: ivm.Reference; script: ivm.Script; context: ivm.Context }> {
    const context = await isolate.createContext();
    const callback = new ivm.Callback((operation: unknown, payload: unknown): string => {
      const handler = Object.hasOwn(operations, String(operation))
        ? operations[String(operation)]
        : undefined;
      if (!current || current.isOver || !handler) return '';
      return handler(current, String(payload)) ?? '';
    });
    const reference = await context.evalClosure(`${options.prelude}; return __prelude.deliver`, [callback], {
      result: { reference: true },
      timeout: PRELUDE_TIMEOUT_MS,
    });
    const script = await isolate.compileScript(options.bundle.code, {
      filename: `tools@${options.bundle.revision}`,
    });
    return { deliver: reference, script, context };
  }

  /** Ends the run at once: the process is not used again. */
  function fail(run: Run, reason: FailureReason, message: string): void {
    run.outcome = { type: 'failed', run: run.number, reason, message, stack: '' };
    finish(run);
  }

  function finish(run: Run): void {
    if (run.isOver) return;
    run.isOver = true;
    for (const cancel of run.timers.values()) cancel();
    options.send(run.outcome!);
    run.over.resolve();
  }

  function deliver(run: Run, delivery: Delivery, bytes: ArrayBuffer | null = null): void {
    run.mailbox.push({ delivery, bytes });
    void pump(run);
  }

  async function pump(run: Run): Promise<void> {
    if (isEntered || run.isOver) return;
    isEntered = true;
    const guest = await prepared;
    for (let next = run.mailbox.shift(); next && !run.isOver; next = run.mailbox.shift()) {
      const { delivery, bytes } = next;
      const copy =
        bytes &&
        new ivm.ExternalCopy(bytes, { transferOut: true }).copyInto({ release: true, transferIn: true });
      await enter(run, (timeout) =>
        guest.deliver.apply(undefined, [JSON.stringify(delivery), copy ?? undefined], { timeout }),
      );
      if (run.outcome) finish(run);
    }
    isEntered = false;
  }

  async function enter(run: Run, entry: (timeoutMs: number) => Promise<unknown>): Promise<void> {
    const leftMs = Math.ceil(run.deadlineMs - systemClock.monotonicMs());
    if (leftMs <= 0) return failTimeout(run);
    try {
      await entry(leftMs);
    } catch (error) {
      const message = error instanceof Error ? error.message : 'an unknown value';
      if (isolate.isDisposed) fail(run, 'memory', `the tool used more than ${options.memoryLimitMb} MiB`);
      else if (message === 'Script execution timed out.') failTimeout(run);
      // All of the guest's entries catch: what comes here is a rejection that nobody handled (yet).
      else operations['log']!(run, `unhandled rejection: ${message}`);
    }
  }

  function failTimeout(run: Run): void {
    fail(run, 'timeout', `the tool took longer than ${run.limits.timeoutMs} ms`);
  }

  return {
    async run({ number, task, limits }) {
      const { timeoutMs } = limits;
      const run: Run = {
        number,
        limits,
        deadlineMs: systemClock.monotonicMs() + timeoutMs,
        calls: 0,
        pendingCalls: new Set(),
        timers: new Map(),
        logBytes: 0,
        outcome: null,
        over: Promise.withResolvers(),
        isOver: false,
        mailbox: [],
      };
      current = run;
      const cancelDeadline = systemClock.after(timeoutMs, () => failTimeout(run));
      run.timers.set(DEADLINE_TIMER, cancelDeadline);
      const guest = await prepared.catch(() => null);
      if (guest) await enter(run, (timeout) => guest.script.run(guest.context, { timeout }));
      else fail(run, 'memory', 'the tools do not fit into the memory of an isolate');
      deliver(run, { kind: 'begin', task });
      await run.over.promise;
      isolate.dispose();
    },
    answer({ call, ok, value, bytes }) {
      if (!current?.pendingCalls.delete(call)) return;
      const copy = bytes === null ? null : new Uint8Array(Buffer.from(bytes, 'base64')).buffer;
      deliver(current, { kind: 'settle', call, ok, value }, copy);
    },
  };
}

/** What the guest's callback may ask for. None throws: an exception would show our stack to the guest. */
function hostOperations(host: {
  deliver: (run: Run, delivery: Delivery) => void;
  fail: (run: Run, reason: FailureReason, message: string) => void;
  send: (message: FromChild) => void;
}): Operations {
  return {
    log(run, line) {
      run.logBytes += Buffer.byteLength(line) + LOG_LINE_OVERHEAD_BYTES;
      if (run.logBytes > run.limits.maxLogBytes) {
        return host.fail(run, 'log-flood', `the tool logged more than ${run.limits.maxLogBytes} bytes`);
      }
      host.send({ type: 'log', run: run.number, line });
    },
    call(run, payload) {
      const request = parsed(payload) as { call: number; name: string; argument: unknown } | null;
      if (request === null || !Number.isSafeInteger(request.call)) return;
      run.calls += 1;
      run.pendingCalls.add(request.call);
      if (run.calls > MAX_CALLS || run.pendingCalls.size > MAX_PENDING_CALLS) {
        const limit = `${MAX_PENDING_CALLS} at once, ${MAX_CALLS} in all`;
        return host.fail(run, 'call-flood', `the tool made too many calls to its host (${limit})`);
      }
      const { call, name, argument } = request;
      host.send({ type: 'call', run: run.number, call, name: String(name), argument });
    },
    abort(run, payload) {
      if (run.pendingCalls.delete(Number(payload))) {
        host.send({ type: 'abort', run: run.number, call: Number(payload) });
      }
    },
    timer(run, payload) {
      const { id, ms } = (parsed(payload) ?? {}) as { id?: unknown; ms?: unknown };
      if (!Number.isSafeInteger(id) || typeof ms !== 'number') return;
      if (run.timers.size > MAX_TIMERS) {
        return host.fail(run, 'call-flood', `the tool started more than ${MAX_TIMERS} timers`);
      }
      const timer = id as number;
      const due = (): void => {
        run.timers.delete(timer);
        host.deliver(run, { kind: 'timer', id: timer });
      };
      if (timer > DEADLINE_TIMER && ms <= run.limits.timeoutMs)
        run.timers.set(timer, systemClock.after(ms, due));
    },
    'clear-timer'(run, payload) {
      const timer = Number(payload);
      if (!(timer > DEADLINE_TIMER)) return;
      run.timers.get(timer)?.();
      run.timers.delete(timer);
    },
    url: (_run, payload) => JSON.stringify(urlParts(parsed(payload))),
    random: (_run, payload) => {
      const count = Math.min(Math.max(Math.trunc(Number(payload)) || 0, 0), MAX_RANDOM_BYTES);
      return randomBytes(count).toString('base64');
    },
    returned(run, json) {
      const bytes = Buffer.byteLength(json);
      const { maxResultBytes } = run.limits;
      run.outcome ??=
        bytes <= maxResultBytes
          ? { type: 'returned', run: run.number, json }
          : {
              type: 'failed',
              run: run.number,
              reason: 'result-too-large',
              message: `the tool returned ${bytes} bytes; at most ${maxResultBytes} are taken`,
              stack: '',
            };
    },
    failed(run, payload) {
      const { reason, message, stack } = (parsed(payload) ?? {}) as Record<string, unknown>;
      run.outcome ??= {
        type: 'failed',
        run: run.number,
        reason: reason === 'invalid-result' ? reason : 'threw',
        message: String(message),
        stack: String(stack),
      };
    },
  };
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}

const URL_PARTS = [
  'href',
  'origin',
  'protocol',
  'username',
  'password',
  'host',
  'hostname',
  'port',
  'pathname',
  'search',
  'hash',
] as const;

/** Parses for the guest's `URL`; null where it is none. */
function urlParts(request: unknown): Record<string, string> | null {
  const { url, base, set } = (request ?? {}) as { url?: unknown; base?: unknown; set?: [string, unknown] };
  const parsedUrl = URL.parse(String(url), base === undefined ? undefined : String(base));
  if (!parsedUrl) return null;
  const part = URL_PARTS.find((name) => name === set?.[0]);
  if (part && part !== 'origin') parsedUrl[part] = String(set?.[1]);
  return Object.fromEntries(URL_PARTS.map((name) => [name, parsedUrl[name]]));
}
