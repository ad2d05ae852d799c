/** A thread for mail that hangs over some (`hanging-mail-work.ts`); it reads, and does nothing else. */
import { parentPort } from 'node:worker_threads';
import type { ThreadAnswer } from '../../src/mail/mail-thread.ts';
import { hangingMailWork } from './hanging-mail-work.ts';

parentPort!.on('message', ({ argument }: { argument: Uint8Array }) => {
  const parsed = hangingMailWork.parseMessage(argument, '');
  // oxlint-disable-next-line require-post-message-target-origin -- a thread is no window
  void parsed.then((value) => parentPort!.postMessage({ value } satisfies ThreadAnswer));
});
// oxlint-disable-next-line require-post-message-target-origin -- a thread is no window
parentPort!.postMessage('ready' satisfies ThreadAnswer);
