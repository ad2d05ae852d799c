/** The thread of `mail-thread.ts`: one job after another, as it is told. */
import { parentPort } from 'node:worker_threads';
import { MillraceError } from '../platform/errors.ts';
import type { ThreadAnswer, ThreadJob } from './mail-thread.ts';
import { mailWorkInPlace } from './mail-work.ts';

async function answerTo({ name, argument }: ThreadJob): Promise<ThreadAnswer> {
  try {
    const work = mailWorkInPlace[name] as (argument: unknown) => Promise<unknown>;
    return { value: await work(argument) };
  } catch (error) {
    if (!(error instanceof MillraceError)) throw error;
    const { kind, code, message, hint } = error;
    return { error: { kind, code, message, hint } };
  }
}

parentPort!.on('message', (job: ThreadJob) => {
  // oxlint-disable-next-line require-post-message-target-origin -- a thread is no window
  void answerTo(job).then((answer) => parentPort!.postMessage(answer));
});
// oxlint-disable-next-line require-post-message-target-origin -- a thread is no window
parentPort!.postMessage('ready' satisfies ThreadAnswer);
