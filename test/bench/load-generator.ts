/**
 * The load generator as a process. It starts the far end, makes the mails of each order readable there, and
 * runs the order (`load-run.ts`).
 */
import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { LoadMail, LoadOrder, LoadResult, Replies } from './load.ts';
import { BENCH_DOMAIN, LOAD_TEXT } from './load.ts';
import { LoadRun } from './load-run.ts';
import { plainMail } from '../e2e/mail.ts';

const REGISTERED_AT_ONCE = 500;

const farEnd = fork(fileURLToPath(new URL('far-end.ts', import.meta.url)), { execArgv: [] });
const [{ url: resendUrl }] = (await once(farEnd, 'message')) as [{ url: string }];

/** Senders, of all runs. */
const answered = new Set<string>();
let current: LoadRun | undefined;
farEnd.on('message', (message: Replies | { kind: 'done' }) => {
  if (message.kind === 'replies') current?.take(message.replies);
});

/** Asks the far end; resolves when it has done it, to its CPU time so far. */
async function farEndDoes(request: { register?: readonly LoadMail[] }): Promise<number> {
  const done = Promise.withResolvers<number>();
  const listener = (message: { kind: string; cpuMs?: number }): void => {
    if (message.kind !== 'done') return;
    farEnd.off('message', listener);
    done.resolve(message.cpuMs!);
  };
  farEnd.on('message', listener);
  farEnd.send(request);
  return done.promise;
}

/** Everybody writes once: caps on replies to one sender are not what is measured here. */
function loadMail(index: number, inboxes: number): LoadMail {
  const emailId = randomUUID();
  const sender = `${emailId}@senders.example`;
  const recipient = `box${index % inboxes}@${BENCH_DOMAIN}`;
  const createdAt = new Date().toISOString();
  const data = {
    email_id: emailId,
    created_at: createdAt,
    from: sender,
    to: [recipient],
    bcc: [],
    cc: [],
    received_for: [recipient],
    message_id: `<${emailId}@sender.example>`,
    subject: 'Greetings',
    attachments: [],
  };
  return {
    emailId,
    sender,
    raw: plainMail({ id: emailId, from: `Ann <${sender}>`, to: recipient, text: LOAD_TEXT }),
    event: JSON.stringify({ type: 'email.received', created_at: createdAt, data }),
  };
}

async function carryOut(order: LoadOrder): Promise<LoadResult> {
  const mails = Array.from({ length: order.count }, (_, index) => loadMail(index, order.inboxes));
  for (let from = 0; from < mails.length; from += REGISTERED_AT_ONCE)
    await farEndDoes({ register: mails.slice(from, from + REGISTERED_AT_ONCE) });
  const farEndBeforeMs = await farEndDoes({});
  const before = process.cpuUsage();
  current = new LoadRun(order, mails, answered);
  const result = await current.run();
  const { user, system } = process.cpuUsage(before);
  const farEndCpuMs = (await farEndDoes({})) - farEndBeforeMs;
  return { ...result, generatorCpuMs: (user + system) / 1000, farEndCpuMs };
}

process.on('message', (order: LoadOrder) => {
  void carryOut(order).then((result) => process.send?.({ kind: 'result', result }));
});
process.on('disconnect', () => process.exit());
process.send?.({ kind: 'ready', resendUrl });
