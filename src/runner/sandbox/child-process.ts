/**
 * One sandbox child process, from its start to its end by SIGKILL. It takes one run at a time.
 *
 * The limits that hold whatever the tool does are here, outside of its process: the wall clock, the resident
 * memory, the CPU time, the length of a frame, the log, the calls. Whatever is wrong with a child, the answer is
 * to kill it; `closed` tells.
 */
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import type { Clock } from '../../platform/clock.ts';
import { MillraceError } from '../../platform/errors.ts';
import type { DescribedError } from './causes.ts';
import { CALL_FLOOD, callLimits, loggedBytes, MAX_UNANSWERED_CHARS } from './flood-limits.ts';
import { createFrameReader, frameOf } from './frames.ts';
import { messageFrom } from './messages.ts';
import type { FromChild, GuestTask, ToChild } from './messages.ts';
import { createProcessUsage } from './process-usage.ts';
import type { ProcessUsage } from './process-usage.ts';
import type { Protections } from './protections.ts';
import type { Capability, CapabilityAnswer, FailureReason, RunLimits, RunRequest } from './sandbox.ts';
import { spawnChild } from './spawn-child.ts';
import { createTimeGiven } from './time-given.ts';
import type { TimeGiven } from './time-given.ts';

/** The isolate's own timeout comes first; what it does not stop is killed this much later. */
const GRACE_MS = 500;
/** Where this process stood still, what came meanwhile is read after the timers that are due: so long it may take. */
const LAST_LOOK_MS = 100;
const START_TIMEOUT_MS = 30_000;
const USAGE_CHECK_EVERY_MS = 50;
/** Resident memory of a child before any tool, with a reserve for what the heap limit does not count. */
const RSS_BASE_MB = 160;
/** A heap near its limit may need this much of it again while it is collected or copied. */
const RSS_PER_LIMIT = 2;
const MAX_STDERR_BYTES = 8_192;
/** Answers that the child has not read, beyond which it gets no more: more than all files of the largest mail. */
const MAX_UNREAD_BYTES = 96 * 1024 * 1024;
/** After these the isolate, or the memory of the process, may be lost. */
const FATAL_REASONS: readonly FailureReason[] = ['timeout', 'memory', 'log-flood', 'call-flood', 'crashed'];

export interface ChildJob {
  bundle: RunRequest['bundle'];
  task: GuestTask;
  limits: RunLimits;
  capabilities: Readonly<Record<string, Capability>>;
}

export type Outcome =
  | { kind: 'returned'; json: string; logs: string[] }
  | (DescribedError & Failed)
  /** Somebody else killed the process: the tool need not be at fault. */
  | { kind: 'killed-from-outside'; logs: string[] }
  /** The host could not do what a capability promises: the run is to be tried again, or the host is broken. */
  | { kind: 'host-failed'; error: unknown };

interface Failed {
  kind: 'failed';
  reason: FailureReason;
  causes?: DescribedError[] | undefined;
  /** See `time-given.ts`. */
  isCutShort?: boolean;
  logs: string[];
}

interface CurrentRun {
  number: number;
  job: ChildJob;
  logs: string[];
  logBytes: number;
  /** Calls so far; those without an answer are in `calls`. */
  callCount: number;
  calls: Map<number, { controller: AbortController; chars: number }>;
  /** Of the calls without an answer, as they arrived. */
  unansweredChars: number;
  /** What we could not do just now: whatever the run makes of it, it is to be tried again. */
  hostError: MillraceError | null;
  /** Why we killed the process, if we did. */
  killedFor: { reason: FailureReason; message: string; isCutShort: boolean } | null;
  time: TimeGiven;
  done: PromiseWithResolvers<Outcome>;
  stopWatching: () => void;
}

export interface ChildOptions {
  /** The process starts while it is made. */
  program: string | Promise<string>;
  protections: Protections;
  usesJit: boolean;
}

export function createSandboxChild(deps: { clock: Clock }, options: ChildOptions): SandboxChild {
  return new SandboxChild(deps, options);
}

export class SandboxChild {
  readonly #clock: Clock;
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #usage: ProcessUsage;
  readonly #ready = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  readonly #stopWaiting: () => void;
  #stderr = '';
  #isReady = false;
  #current: CurrentRun | null = null;
  /** CPU time when it was last looked at: before a run, at the end of the one before. */
  #cpuMs = 0;
  /** Of the bundle that it holds. */
  revision: string | null = null;
  runs = 0;
  /** False as soon as it was told to die. */
  isAlive = true;

  constructor(deps: { clock: Clock }, options: ChildOptions) {
    this.#clock = deps.clock;
    this.#process = spawnChild(options);
    this.#usage = createProcessUsage(this.#process.pid);
    this.#ready.promise.catch(() => {}); // The pool asks when it wants to know.
    this.#listen();
    void this.#load(options.program);
    this.#stopWaiting = this.#clock.after(START_TIMEOUT_MS, () => this.kill());
  }

  /** Resolves when it takes runs; rejects when it ends before. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Whether its run has asked for something and has no answer yet. */
  get waitsForHost(): boolean {
    return this.#current !== null && this.#current.calls.size > 0;
  }

  kill(): void {
    this.isAlive = false;
    this.#process.kill('SIGKILL');
  }

  /** One at a time. */
  run(job: ChildJob): Promise<Outcome> {
    this.runs += 1;
    const run: CurrentRun = {
      number: this.runs,
      job,
      logs: [],
      logBytes: 0,
      callCount: 0,
      calls: new Map(),
      unansweredChars: 0,
      hostError: null,
      killedFor: null,
      time: createTimeGiven(this.#clock, job.limits.timeoutMs),
      done: Promise.withResolvers(),
      stopWatching: () => {},
    };
    this.#current = run;
    run.stopWatching = this.#watch(run);
    const { revision, code } = job.bundle;
    if (this.revision !== revision) {
      this.revision = revision;
      this.#send({ type: 'load', revision, code });
    }
    this.#send({ type: 'run', run: run.number, task: job.task, limits: job.limits });
    return run.done.promise;
  }

  /** Resident memory and CPU time so far; 0 where they cannot be read. */
  usage(): { residentMb: number; cpuMs: number } {
    const usage = this.#usage.now();
    this.#cpuMs = usage.cpuMs;
    return usage;
  }

  async #load(program: ChildOptions['program']): Promise<void> {
    try {
      this.#process.stdin.write(frameOf(await program));
    } catch (error) {
      this.#ready.reject(error);
      this.kill();
    }
  }

  #listen(): void {
    const { stdin, stdout, stderr } = this.#process;
    const read = createFrameReader((payload) => this.#receive(payload));
    stdout.on('data', (chunk: Buffer) => {
      if (!read(chunk)) this.#breakProtocol();
    });
    stderr.on('data', (chunk: Buffer) => {
      if (this.#stderr.length < MAX_STDERR_BYTES) this.#stderr += chunk.toString('latin1');
    });
    stdin.on('error', () => {}); // It has died: `close` says so.
    this.#process.on('error', (error) => this.#ready.reject(error));
    this.#process.on('close', (_code, signal) => {
      this.isAlive = false;
      this.#stopWaiting();
      this.#usage.close();
      const message = `a sandbox process ended (${signal ?? 'exit'}) ${this.#stderr.slice(0, 500)}`.trimEnd();
      this.#ready.reject(new MillraceError('transient', 'sandbox.start_failed', message));
      const run = this.#current;
      if (run) this.#settle(run, outcomeOfDeath(run, { signal, stderr: this.#stderr }));
      this.#closed.resolve();
    });
  }

  /** @param onTaken called when the child has taken it, or never will */
  #send(message: ToChild, onTaken?: () => void): void {
    this.#process.stdin.write(frameOf(JSON.stringify(message)), onTaken && (() => onTaken()));
  }

  #receive(payload: string): void {
    if (!this.isAlive) return;
    const message = messageFrom(payload);
    if (!message) return this.#breakProtocol();
    if (message.type === 'ready') {
      if (this.#isReady) return this.#breakProtocol();
      this.#isReady = true;
      this.#stopWaiting();
      this.usage();
      return this.#ready.resolve();
    }
    const run = this.#current;
    // What ends a run is the last that a good one says: one that speaks of another run, or without any, is the tool's.
    if (run?.number !== message.run) return this.#breakProtocol();
    switch (message.type) {
      case 'log':
        this.#takeLog(run, message.line);
        break;
      case 'call':
        this.#takeCall(run, message, payload.length);
        break;
      case 'abort':
        run.calls.get(message.call)?.controller.abort(new Error('the tool gave up'));
        forgetCall(run, message.call);
        break;
      case 'returned':
        this.#settle(run, { kind: 'returned', json: message.json, logs: run.logs });
        break;
      case 'failed': {
        const { reason, message: text, stack, causes } = message;
        if (FATAL_REASONS.includes(reason)) this.kill();
        const isCutShort = reason === 'timeout' && run.time.isCutShort();
        const failure = { kind: 'failed', reason, message: text, stack, causes, isCutShort } as const;
        this.#settle(run, { ...failure, logs: run.logs });
        break;
      }
    }
  }

  #takeLog(run: CurrentRun, line: string): void {
    const { maxLogBytes } = run.job.limits;
    run.logBytes += loggedBytes(line);
    if (run.logBytes <= maxLogBytes) run.logs.push(line);
    else this.#killRun(run, 'log-flood', `the tool logged more than ${maxLogBytes} bytes`);
  }

  #takeCall(run: CurrentRun, message: FromChild & { type: 'call' }, chars: number): void {
    if (run.calls.has(message.call)) return this.#breakProtocol();
    if (run.hostError) return this.#giveUp(run, run.hostError);
    run.callCount += 1;
    run.unansweredChars += chars;
    const isFlood =
      run.callCount > callLimits.inAll ||
      run.calls.size >= callLimits.atOnce ||
      run.unansweredChars > MAX_UNANSWERED_CHARS;
    if (isFlood) return this.#killRun(run, 'call-flood', CALL_FLOOD);
    const controller = new AbortController();
    run.calls.set(message.call, { controller, chars });
    const { call } = message;
    void this.#answerCall(run, { call, controller, answer: asked(run.job, message, controller.signal) });
  }

  /** Has the answer to come and nothing of the question, which may be large. */
  async #answerCall(
    run: CurrentRun,
    of: { call: number; controller: AbortController; answer: Promise<CapabilityAnswer> },
  ): Promise<void> {
    const { call, controller, answer } = of;
    const reply = ({ ok, value, bytes, release }: CapabilityAnswer & { ok: boolean }): void => {
      if (this.#current !== run || run.killedFor || !forgetCall(run, call)) return release?.();
      if (this.#process.stdin.writableLength > MAX_UNREAD_BYTES) {
        release?.();
        return this.#killRun(run, 'call-flood', 'the tool asks, and does not take the answers');
      }
      const encoded = bytes ? Buffer.from(bytes).toString('base64') : null;
      this.#send({ type: 'answer', run: run.number, call, ok, value, bytes: encoded }, release);
    };
    try {
      reply({ ok: true, ...(await answer) });
    } catch (error) {
      if (isForTheTool(error)) return reply({ ok: false, value: error.message });
      if (controller.signal.aborted || this.#current !== run) return;
      // Most tools end by this, so that it costs no process: what strangers bring about must not.
      if (isForNow(error)) {
        run.hostError ??= error;
        return reply({ ok: false, value: error.message });
      }
      this.#giveUp(run, error);
    }
  }

  #giveUp(run: CurrentRun, error: unknown): void {
    this.kill();
    this.#settle(run, { kind: 'host-failed', error });
  }

  #settle(run: CurrentRun, outcome: Outcome): void {
    if (this.#current !== run) return;
    this.#current = null;
    run.stopWatching();
    for (const { controller } of run.calls.values()) controller.abort(new Error('the run is over'));
    const isForNothing = run.hostError !== null && this.isAlive;
    run.done.resolve(isForNothing ? { kind: 'host-failed', error: run.hostError } : outcome);
  }

  #killRun(run: CurrentRun, reason: FailureReason, message: string): void {
    run.killedFor ??= { reason, message, isCutShort: reason === 'timeout' && run.time.isCutShort() };
    this.kill();
  }

  #breakProtocol(): void {
    if (!this.#current) return this.kill();
    this.#killRun(this.#current, 'crashed', 'the sandbox process sent what is no message of ours');
  }

  /** The limits that hold whatever the tool does. */
  #watch(run: CurrentRun): () => void {
    const { timeoutMs, cpuLimitMs, memoryLimitMb } = run.job.limits;
    const cpuMsBefore = this.#cpuMs;
    const maxMb = RSS_BASE_MB + RSS_PER_LIMIT * memoryLimitMb;
    const end = (): void =>
      this.#killRun(run, 'timeout', `the tool took longer than ${timeoutMs} ms and could not be stopped`);
    let cancelDeadline = this.#clock.after(timeoutMs + GRACE_MS, () => {
      cancelDeadline = this.#clock.after(LAST_LOOK_MS, end);
    });
    const check = (): void => {
      run.time.look();
      const { residentMb, cpuMs } = this.usage();
      if (residentMb > maxMb) this.#killRun(run, 'memory', `the tool's process used more than ${maxMb} MiB`);
      else if (cpuMs - cpuMsBefore > cpuLimitMs)
        this.#killRun(run, 'cpu', `the tool used more than ${cpuLimitMs} ms of CPU time`);
      else cancelCheck = this.#clock.after(USAGE_CHECK_EVERY_MS, check);
    };
    // Most runs are over before it looks: the pool has looked at the end of the run before.
    let cancelCheck = this.#clock.after(USAGE_CHECK_EVERY_MS, check);
    return () => {
      cancelDeadline();
      cancelCheck();
    };
  }
}

/** False where nobody waits for it any more. */
function forgetCall(run: CurrentRun, call: number): boolean {
  run.unansweredChars -= run.calls.get(call)?.chars ?? 0;
  return run.calls.delete(call);
}

function asked(
  { capabilities }: ChildJob,
  { name, argument }: FromChild & { type: 'call' },
  signal: AbortSignal,
): Promise<CapabilityAnswer> {
  const capability = Object.hasOwn(capabilities, name) ? capabilities[name] : undefined;
  if (capability) return capability(argument, signal);
  return Promise.reject(new MillraceError('permanent', 'capability.refused', `${name} is not granted`));
}

/** What the tool did wrong, or what the world denied it: as opposed to what we cannot do just now. */
function isForTheTool(error: unknown): error is MillraceError {
  if (!(error instanceof MillraceError)) return false;
  return error.kind === 'permanent' || error.kind === 'invalid' || error.code === 'capability.failed';
}

function isForNow(error: unknown): error is MillraceError {
  return error instanceof MillraceError && error.kind === 'transient';
}

function outcomeOfDeath(
  { logs, killedFor }: CurrentRun,
  death: { signal: NodeJS.Signals | null; stderr: string },
): Outcome {
  if (killedFor) return { kind: 'failed', ...killedFor, stack: '', logs };
  if (death.signal === 'SIGKILL') return { kind: 'killed-from-outside', logs };
  // V8 aborts the process when it cannot go on; it says why on standard error.
  const isMemory = /out of memory|allocation/i.test(death.stderr);
  const reason = isMemory ? 'memory' : 'crashed';
  const how = isMemory ? 'out of memory' : `ended by ${death.signal ?? 'exit'}`;
  return {
    kind: 'failed',
    reason,
    message: `the tool brought its sandbox process down: ${how}`,
    stack: '',
    logs,
  };
}
