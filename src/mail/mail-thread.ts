/**
 * Work on large mail in a thread of its own, so that everybody else's goes on meanwhile: to read 25 MB of base64 takes
 * more than a second, to make 5 MB of HTML safe takes two. Small mail, which is nearly all, is worked on in place, but for
 * what its caller asks to have read apart (docs/adr/0051-mail-that-ends-a-process.md).
 *
 * - There is one thread, for as long as there is something for it and a while longer. It has one job at a time; the
 *   others wait here, and inboxes take turns: however much large mail one of them gets, another's is soon next.
 *   How many there can be is for the callers, which are stages with bounded concurrency.
 * - A job that brings the thread down (it has limits of memory and of time) is known by that, and fails alone; the next
 *   one has a new thread. A thread that is on its way out has no say any more: what it still tells is nobody's.
 * - A thread that ends before it is ready (no memory, no threads left) says nothing of the job: that is tried again.
 */
import { Worker } from 'node:worker_threads';
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import type { ErrorKind } from '../platform/errors.ts';
import { createFairQueue } from '../platform/fair-queue.ts';
import { mailWorkInPlace } from './mail-work.ts';
import type { Composition, MailWork } from './mail-work.ts';

const limits = {
  /** Bytes of a message, or characters of HTML, that are worked on in place: some 10 ms, and at worst some 100. */
  inPlace: 64 * 1024,
  /** Of the thread: the worst message that comes (40 MB) takes half of it. */
  memoryMb: 1024,
  /** Of one job, by the wall clock, from when the thread is ready: the worst takes seconds. */
  jobMs: 120_000,
  /** The same of what could have been done in place: milliseconds. */
  smallJobMs: 30_000,
  idleMs: 30_000,
} as const;

const WORKER = new URL('mail-thread-worker.ts', import.meta.url);

export interface ThreadJob {
  readonly name: keyof MailWork;
  readonly argument: unknown;
}

export type ThreadAnswer =
  /** First of all: what the thread needs is loaded. */
  | 'ready'
  | { readonly value: unknown }
  | { readonly error: { kind: ErrorKind; code: string; message: string; hint: string | undefined } };

interface PendingJob {
  readonly job: ThreadJob;
  readonly inbox: string;
  readonly maxMs: number;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export interface MailThread extends MailWork {
  /** What waits fails as `mail.thread_closed` (transient). */
  close(): Promise<void>;
}

/**
 * Besides what the work throws: MillraceError `mail.thread_ended` (permanent) where a job brought the thread down,
 * `mail.thread_unavailable` (transient) where there is none to be had.
 */
export function createMailThread(
  { clock, work = mailWorkInPlace }: { clock: Clock; work?: MailWork },
  options: { memoryMb?: number; smallJobMs?: number; worker?: URL } = {},
): MailThread {
  const { memoryMb = limits.memoryMb, smallJobMs = limits.smallJobMs, worker: file = WORKER } = options;
  const waiting = createFairQueue<PendingJob>({ maxOutPerKey: 1 });
  let running: PendingJob | null = null;
  let worker: Worker | null = null;
  /** The thread is ready; to become it may take long on a busy machine, and says nothing of the job. */
  let canBegin = false;
  let cancelIdle: (() => void) | undefined;
  let cancelTimeout: (() => void) | undefined;
  let isClosed = false;

  function start(): Worker {
    canBegin = false;
    const started = new Worker(file, {
      resourceLimits: { maxOldGenerationSizeMb: memoryMb },
      env: {},
    });
    let failure: unknown;
    let isReady = false;
    started.on('message', (answer: ThreadAnswer) => {
      if (answer === 'ready') {
        isReady = true;
        if (worker !== started) return;
        canBegin = true;
        limitTime(started);
      } else if (worker === started) settle((job) => finish(job, answer));
    });
    started.on('error', (error) => {
      failure = error;
    });
    started.on('exit', () => {
      if (worker !== started) return;
      worker = null;
      const error = isReady ? ended(failure) : unavailable(failure);
      settle((job) => job.reject(isClosed ? closed() : error));
    });
    return started;
  }

  /** What runs is over, in some way; the next one begins. */
  function settle(finishJob: (job: PendingJob) => void): void {
    const job = running;
    running = null;
    cancelTimeout?.();
    if (job) {
      waiting.release(job.inbox);
      finishJob(job);
    }
    next();
  }

  function next(): void {
    cancelIdle?.();
    if (running || isClosed) return;
    running = waiting.take() ?? null;
    if (!running) return endWhenIdle();
    try {
      worker ??= start();
    } catch (error) {
      return settle((job) => job.reject(unavailable(error)));
    }
    // oxlint-disable-next-line require-post-message-target-origin -- a thread is no window
    worker.postMessage(running.job);
    limitTime(worker);
  }

  function limitTime(busy: Worker): void {
    cancelTimeout?.();
    if (running)
      cancelTimeout = clock.after(canBegin ? running.maxMs : limits.jobMs, () => void busy.terminate());
  }

  function endWhenIdle(): void {
    const idle = worker;
    cancelIdle = clock.after(limits.idleMs, () => {
      if (worker === idle) worker = null;
      void idle?.terminate();
    });
  }

  function inThread(inbox: string, job: ThreadJob, maxMs: number = limits.jobMs): Promise<unknown> {
    if (isClosed) return Promise.reject(closed());
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    waiting.push(inbox, { job, inbox, maxMs, resolve, reject });
    next();
    return promise;
  }

  return {
    parseMessage(raw, inbox, { isApart = false } = {}) {
      const isSmall = raw.length <= limits.inPlace;
      if (isSmall && !isApart) return work.parseMessage(raw, inbox);
      const job = { name: 'parseMessage', argument: raw } as const;
      const maxMs = isSmall ? smallJobMs : limits.jobMs;
      return inThread(inbox, job, maxMs) as ReturnType<MailWork['parseMessage']>;
    },
    allAttachmentBytes: (raw, inbox) =>
      raw.length <= limits.inPlace
        ? work.allAttachmentBytes(raw, inbox)
        : (inThread(inbox, { name: 'allAttachmentBytes', argument: raw }) as ReturnType<
            MailWork['allAttachmentBytes']
          >),
    authenticate: (message, inbox) =>
      message.raw.length <= limits.inPlace
        ? work.authenticate(message, inbox)
        : (inThread(inbox, { name: 'authenticate', argument: message }) as ReturnType<
            MailWork['authenticate']
          >),
    compose: (composition) =>
      htmlChars(composition) <= limits.inPlace
        ? work.compose(composition)
        : (inThread(composition.inbox, { name: 'compose', argument: composition }) as ReturnType<
            MailWork['compose']
          >),
    async close() {
      isClosed = true;
      cancelIdle?.();
      cancelTimeout?.();
      for (const job of waiting.drain()) job.reject(closed());
      // Its exit rejects what runs.
      await worker?.terminate();
    },
  };
}

function htmlChars({ effect, email }: Composition): number {
  return (effect.html?.length ?? 0) + (effect.kind === 'forward' ? (email.html?.length ?? 0) : 0);
}

function finish(job: PendingJob, answer: Exclude<ThreadAnswer, 'ready'>): void {
  if ('value' in answer) return job.resolve(answer.value);
  const { kind, code, message, hint } = answer.error;
  job.reject(new MillraceError(kind, code, message, hint === undefined ? {} : { hint }));
}

function ended(cause: unknown): MillraceError {
  return new MillraceError(
    'permanent',
    'mail.thread_ended',
    'this mail brought the thread down that read it',
    {
      hint: 'Nothing but this mail is affected. It is kept as it came; please report it.',
      cause,
    },
  );
}

function unavailable(cause: unknown): MillraceError {
  return new MillraceError('transient', 'mail.thread_unavailable', 'there is no thread for large mail now', {
    hint: 'It is tried again. If it lasts, the machine lacks memory, or the unit may have no more tasks.',
    cause,
  });
}

function closed(): MillraceError {
  return new MillraceError('transient', 'mail.thread_closed', 'the process is about to end');
}
