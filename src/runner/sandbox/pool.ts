/**
 * The pool of sandbox children: who runs next, on which child, and what a run's end means.
 *
 * Invariants: a child has one run at a time, so a child that is killed costs that run alone; keys take turns
 * and none holds more than its part of the pool; a run that the tool broke is answered, a run that somebody
 * else broke is tried again. The pool keeps a few children warm, grows while work waits, and shrinks again.
 */
import { availableParallelism } from 'node:os';
import type { Clock } from '../../platform/clock.ts';
import { errorMessage, MillraceError } from '../../platform/errors.ts';
import { createFairQueue } from '../../platform/fair-queue.ts';
import type { FairQueue } from '../../platform/fair-queue.ts';
import type { Log } from '../../platform/log.ts';
import { createSandboxChild } from './child-process.ts';
import type { ChildJob, ChildOptions, Outcome, SandboxChild } from './child-process.ts';
import { INSPECTION_LIMITS, inspectionSchema, parseGuestJson, runEndSchema } from './guest-json.ts';
import { isHeld } from './held-run.ts';
import { secretHider } from './hide-secrets.ts';
import type { FailureReason, Inspection, PoolStats, RunRequest, RunResult, SandboxPool } from './sandbox.ts';
import { createStackTraces } from './stack-trace.ts';
import type { StackTraces } from './stack-trace.ts';
import { workingSetup } from './working-setup.ts';

export interface PoolOptions {
  /** Kept ready. Default: one a core, at most 4. */
  minChildren?: number;
  /** At most so many, while work waits: a run that waits for a host holds a child. Default: 8. */
  maxChildren?: number;
  /** Of these, one fairness key may hold so many. Default: half. */
  maxRunsPerKey?: number;
  /** Compiled code is several times faster at number crunching; interpreted code is a smaller target. */
  usesJit?: boolean;
  /** Default: 10,000. */
  maxRunsPerChild?: number;
}

const DEFAULT_MIN_CHILDREN = 4;
const DEFAULT_MAX_CHILDREN = 8;
const MAX_WAITING_RUNS = 10_000;
/**
 * A child that has run so many is replaced, one at a time: its successor is started first, so that it is not missed. The
 * start holds up what runs beside it, so it has to be rare beside the hundredth part of all runs.
 */
const MAX_RUNS_PER_CHILD = 10_000;
/** So is one that is so old: what has broken into a process sees what this process is given from then on. */
const MAX_CHILD_AGE_MS = 60 * 60 * 1_000;
const RECYCLE_ABOVE_MB = 200;
const IDLE_MS = 30_000;
/** Beyond its least size the pool grows for a run that has waited so long behind others that last (`held-run.ts`). */
const GROW_AFTER_MS = 100;
const MAX_FAILED_STARTS = 3;
/** A run whose process was killed from outside this often is given up: perhaps it draws the kernel's wrath. */
const MAX_OUTSIDE_KILLS = 3;
const NO_SEED = '0'.repeat(32);
const INSPECTION_KEY = '';

/** What is the tool's own doing, or counts as such. */
type ToolOutcome = Exclude<Outcome, { kind: 'host-failed' }>;

interface Job extends ChildJob {
  fairnessKey: string;
  outsideKills: number;
  queuedMs: number;
  startedMs: number;
  done: PromiseWithResolvers<ToolOutcome>;
  isAborted: boolean;
  member: Member | null;
}

interface Member {
  child: SandboxChild;
  startedMs: number;
  /** Of a processor, before the run that it has. */
  cpuMs: number;
  state: 'starting' | 'idle' | 'busy';
  job: Job | null;
  /** It ends with the run that it has. */
  isReplaced: boolean;
  stopRetiring: () => void;
}

export function createSandboxPool(deps: { clock: Clock; log: Log }, options: PoolOptions = {}): SandboxPool {
  const { maxChildren = DEFAULT_MAX_CHILDREN, usesJit = false } = options;
  const { maxRunsPerChild = MAX_RUNS_PER_CHILD } = options;
  const minChildren =
    options.minChildren ?? Math.min(availableParallelism(), DEFAULT_MIN_CHILDREN, maxChildren);
  const maxRunsPerKey = options.maxRunsPerKey ?? Math.max(1, Math.floor(maxChildren / 2));
  return new Pool(deps, { minChildren, maxChildren, maxRunsPerKey, usesJit, maxRunsPerChild });
}

class Pool implements SandboxPool {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #options: Required<PoolOptions>;
  readonly #queue: FairQueue<Job>;
  readonly #members = new Set<Member>();
  readonly #traces = createStackTraces();
  #firstReady = pendingStart();
  /** Of the first child that came to be ready. */
  #setup: ChildOptions | null = null;
  #isPreparing = false;
  #failedStarts = 0;
  #starts = 0;
  #isClosed = false;
  #stopWaitingToGrow: () => void = () => {};

  constructor(deps: { clock: Clock; log: Log }, options: Required<PoolOptions>) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
    this.#queue = createFairQueue({ maxOutPerKey: options.maxRunsPerKey });
  }

  async start(): Promise<void> {
    if (this.#isClosed) throw closedError();
    this.#refill();
    await this.#firstReady.promise;
  }

  async run(request: RunRequest): Promise<RunResult> {
    const { bundle, exportName, email, limits, capabilities, secrets, fairnessKey, test } = request;
    const { randomSeed = NO_SEED, nowMs = this.#clock.nowMs() } = request;
    const task = { kind: 'call', exportName, email, nowMs, randomSeed, secrets, test } as const;
    const { outcome, durationMs } = await this.#finished(
      { bundle, task, limits, capabilities, fairnessKey },
      request.signal,
    );
    const hide = secretHider(secrets);
    const logs = this.#traces.withPlaces(outcome.logs, bundle).map(hide);
    if (outcome.kind !== 'returned') {
      const { reason, message } = failureOf(outcome, bundle, this.#traces);
      return { status: 'failed', reason, message: hide(message), logs, durationMs };
    }
    const parsed = parseGuestJson(runEndSchema, outcome.json);
    if ('data' in parsed) return { status: 'returned', ...parsed.data, logs, durationMs };
    const message = hide(`the sandbox answered what is no end of a run: ${parsed.fault}`);
    return { status: 'failed', reason: 'invalid-result', message, logs, durationMs };
  }

  async inspect(bundle: RunRequest['bundle'], signal?: AbortSignal): Promise<Inspection> {
    const job = {
      bundle,
      task: { kind: 'inspect' },
      limits: INSPECTION_LIMITS,
      capabilities: {},
      fairnessKey: INSPECTION_KEY,
    } as const;
    const { outcome } = await this.#finished(job, signal);
    if (outcome.kind !== 'returned') return { status: 'failed', ...failureOf(outcome, bundle, this.#traces) };
    const parsed = parseGuestJson(inspectionSchema, outcome.json);
    if ('fault' in parsed) return { status: 'failed', reason: 'invalid-result', message: parsed.fault };
    return { status: 'inspected', settings: null, tests: null, ...parsed.data };
  }

  stats(): PoolStats {
    return { children: this.#members.size, waiting: this.#queue.size, starts: this.#starts };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#stopWaitingToGrow();
    this.#firstReady.reject(closedError());
    for (const job of this.#queue.drain()) job.done.reject(closedError());
    const members = [...this.#members];
    for (const member of members) {
      member.job?.done.reject(closedError());
      member.child.kill();
    }
    await Promise.all(members.map((member) => member.child.closed));
  }

  /** Queues the job and waits for its end, or for the signal. */
  async #finished(
    work: ChildJob & { fairnessKey: string },
    signal?: AbortSignal,
  ): Promise<{ outcome: ToolOutcome; durationMs: number }> {
    if (this.#isClosed) throw closedError();
    signal?.throwIfAborted();
    if (this.#queue.size >= MAX_WAITING_RUNS) {
      throw new MillraceError('transient', 'sandbox.queue_full', 'too many runs wait for a sandbox');
    }
    const job: Job = {
      ...work,
      outsideKills: 0,
      queuedMs: this.#clock.monotonicMs(),
      startedMs: 0,
      done: Promise.withResolvers(),
      isAborted: false,
      member: null,
    };
    const onAbort = (): void => {
      job.isAborted = true;
      this.#queue.remove(job.fairnessKey, job);
      job.member?.child.kill();
      job.done.reject(signal?.reason);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#queue.push(job.fairnessKey, job);
    this.#dispatch();
    try {
      const outcome = await job.done.promise;
      return { outcome, durationMs: Math.round(this.#clock.monotonicMs() - job.startedMs) };
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Gives waiting jobs to idle children, and starts more children where jobs are left. */
  #dispatch(): void {
    const idle = [...this.#members].filter(({ state, child }) => state === 'idle' && child.isAlive);
    while (idle.length > 0) {
      const job = this.#queue.take();
      if (!job) return;
      // One that holds the bundle already has an isolate prepared for it.
      const fit = idle.findIndex((member) => member.child.revision === job.bundle.revision);
      const [member] = idle.splice(Math.max(fit, 0), 1);
      void this.#runOn(member!, job);
    }
    this.#refill();
  }

  async #runOn(member: Member, job: Job): Promise<void> {
    member.state = 'busy';
    member.job = job;
    member.stopRetiring();
    job.member = member;
    job.startedMs = this.#clock.monotonicMs();
    const outcome = await member.child.run(job);
    member.job = null;
    job.member = null;
    this.#queue.release(job.fairnessKey);
    const isCutShort = outcome.kind === 'failed' && outcome.isCutShort === true;
    const isFromOutside = outcome.kind === 'killed-from-outside' || isCutShort;
    if (isFromOutside) job.outsideKills += 1;
    const isTriedAgain = isFromOutside && job.outsideKills < MAX_OUTSIDE_KILLS;
    if (isTriedAgain && !job.isAborted && !this.#isClosed) this.#queue.pushFront(job.fairnessKey, job);
    else if (outcome.kind === 'host-failed') job.done.reject(outcome.error);
    else job.done.resolve(outcome);
    const { child } = member;
    const { residentMb, cpuMs } = child.usage();
    member.cpuMs = cpuMs;
    if (member.isReplaced || residentMb > RECYCLE_ABOVE_MB) child.kill();
    if (!child.isAlive) return this.#remove(member);
    if (!this.#isClosed && this.#isWorn(member) && this.#starting === 0) this.#startChild(this.#setup!);
    this.#becomeIdle(member);
  }

  #becomeIdle(member: Member): void {
    member.state = 'idle';
    member.stopRetiring = this.#clock.after(IDLE_MS, () => {
      if (this.#members.size > this.#options.minChildren) member.child.kill();
    });
    this.#dispatch();
  }

  /** Brings the pool to its least size, and beyond it while jobs wait for long that no starting child will take. */
  #refill(): void {
    if (this.#isClosed) return;
    if (!this.#setup) {
      void this.#prepare();
      return;
    }
    const { minChildren, maxChildren } = this.#options;
    const missing = Math.max(minChildren - this.#members.size, this.#missedChildren());
    const count = Math.min(missing, maxChildren - this.#members.size);
    for (let started = 0; started < count; started++) this.#startChild(this.#setup);
  }

  get #starting(): number {
    return [...this.#members].filter(({ state }) => state === 'starting').length;
  }

  /** How many more children those jobs want that wait for long behind others that last long; looks again while any wait. */
  #missedChildren(): number {
    this.#stopWaitingToGrow();
    const { minChildren, maxChildren } = this.#options;
    const waiting = this.#queue.takeable - this.#starting;
    const next = this.#queue.next();
    if (!next || waiting <= 0 || this.#members.size >= maxChildren) return 0;
    const nowMs = this.#clock.monotonicMs();
    const leftMs = next.queuedMs + GROW_AFTER_MS - nowMs;
    const held = [...this.#members].filter((member) => isHeld(member, nowMs)).length;
    const missed = Math.min(waiting, minChildren + held - this.#members.size);
    if (leftMs <= 0 && missed > 0) return missed;
    this.#stopWaitingToGrow = this.#clock.after(leftMs > 0 ? leftMs : GROW_AFTER_MS, () => this.#refill());
    return 0;
  }

  /** Once for the pool: the first child shows what protection the machine lends, while its program is made. */
  async #prepare(): Promise<void> {
    if (this.#isPreparing) return;
    this.#isPreparing = true;
    try {
      const { usesJit, maxChildren } = this.#options;
      const { protections } = await workingSetup(usesJit, (tried) => this.#tryChild(tried));
      const { inForce, missing } = protections;
      this.#log.info({ inForce, missing, jit: usesJit, maxChildren }, 'runner.sandbox');
    } catch (error) {
      this.#isPreparing = false;
      this.#giveUp(error);
    }
  }

  async #tryChild(setup: ChildOptions): Promise<void> {
    const { ready } = this.#startChild(setup);
    await ready.catch((error: unknown) => {
      throw this.#isClosed ? closedError() : error;
    });
  }

  #startChild(setup: ChildOptions): SandboxChild {
    if (this.#isClosed) throw closedError();
    const child = createSandboxChild({ clock: this.#clock }, setup);
    const waiting = { state: 'starting', job: null, isReplaced: false, stopRetiring: () => {} } as const;
    const member: Member = { child, startedMs: this.#clock.monotonicMs(), cpuMs: 0, ...waiting };
    this.#members.add(member);
    this.#starts += 1;
    void this.#follow(member, setup);
    return child;
  }

  /** A child that starts is idle first; one that ends while it is idle leaves (a busy one: see `runOn`). */
  async #follow(member: Member, setup: ChildOptions): Promise<void> {
    try {
      await member.child.ready;
    } catch (error) {
      this.#members.delete(member);
      this.#failedStarts += 1;
      if (this.#failedStarts < MAX_FAILED_STARTS) this.#refill();
      else this.#giveUp(error);
      return;
    }
    this.#failedStarts = 0;
    member.cpuMs = member.child.usage().cpuMs;
    this.#setup ??= setup;
    this.#firstReady.resolve();
    this.#replaceWorn();
    this.#becomeIdle(member);
    await member.child.closed;
    if (member.state === 'idle') this.#remove(member);
  }

  /** Lets the child go that the one which is ready now was started for, if there is one. */
  #replaceWorn(): void {
    const worn = [...this.#members].find((member) => !member.isReplaced && this.#isWorn(member));
    if (!worn) return;
    worn.isReplaced = true;
    if (worn.state === 'idle') worn.child.kill();
  }

  #isWorn({ child, startedMs }: Member): boolean {
    const ageMs = this.#clock.monotonicMs() - startedMs;
    return child.runs >= this.#options.maxRunsPerChild || ageMs >= MAX_CHILD_AGE_MS;
  }

  /** No child will start: whoever waits shall know, and the next run tries afresh. */
  #giveUp(cause: unknown): void {
    this.#failedStarts = 0;
    const message = `no sandbox process starts: ${errorMessage(cause)}`;
    const error = new MillraceError('transient', 'sandbox.unavailable', message, {
      cause,
      hint: 'The message ends with what the process itself said: isolated-vm may not fit this Node.',
    });
    for (const job of this.#queue.drain()) job.done.reject(error);
    this.#firstReady.reject(error);
    this.#firstReady = pendingStart();
  }

  #remove(member: Member): void {
    member.stopRetiring();
    this.#members.delete(member);
    this.#refill();
  }
}

function failureOf(
  outcome: Exclude<ToolOutcome, { kind: 'returned' }>,
  bundle: RunRequest['bundle'],
  traces: StackTraces,
): { reason: FailureReason; message: string } {
  if (outcome.kind === 'killed-from-outside') {
    const message = `its sandbox process was killed from outside ${MAX_OUTSIDE_KILLS} times`;
    return { reason: 'crashed', message };
  }
  return { reason: outcome.reason, message: traces.failureText(outcome, bundle) };
}

/** Settled by the first child; whoever waits in `start` hears of a failure. */
function pendingStart(): PromiseWithResolvers<void> {
  const pending = Promise.withResolvers<void>();
  pending.promise.catch(() => {});
  return pending;
}

function closedError(): MillraceError {
  return new MillraceError('transient', 'sandbox.closed', 'the sandbox pool is closed');
}
