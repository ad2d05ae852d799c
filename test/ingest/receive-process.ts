/**
 * A process that receives from the store in a folder (its first argument), and hangs over one mail wherever it reads it.
 * With a second argument two mails arrive once it receives: that one and another. It writes a line for what is settled.
 */
import { randomUUID } from 'node:crypto';
import { createReceive } from '../../src/ingest/receive.ts';
import { createMailThread } from '../../src/mail/mail-thread.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { createLiveTools } from '../../src/streams/live-tools.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import { plainMail } from '../e2e/mail.ts';
import { POISON, POISONED, hangingMailWork } from './hanging-mail-work.ts';

const DOMAIN = 'ours.example';
const [directory = '', arrivals] = process.argv.slice(2);
const log = createLog('silent');
const { signal } = new AbortController();
const store = await openLocalStore({ clock, log }, { directory, retentionFor: () => 'forever' });
const tools = createLiveTools({ store, log });
void tools.run(signal);

const worker = new URL('hanging-mail-thread.ts', import.meta.url);
const mailWork = createMailThread({ clock, work: hangingMailWork }, { smallJobMs: 1_000, worker });
const inbound = {
  rawMessage: async (id: string) =>
    Buffer.from(plainMail({ id, to: `foo@${DOMAIN}`, text: id === POISONED ? POISON : 'Hello' })),
};
const stage = createStage(
  { store, clock, log },
  {
    name: 'receive',
    source: streamNames.events,
    journal: streamNames.received,
    concurrency: 1,
    handle: createReceive({ store, inbound, tools, mailWork }, { domains: [DOMAIN] }),
    backoff: { baseMs: 1, maxMs: 1 },
    maxAttempts: 10,
    onSettled: ({ key, outcome, reason }) =>
      process.stdout.write(`${`${key} ${outcome} ${reason ?? ''}`.trim()}\n`),
  },
);
void stage.run(signal);
await stage.ready;

if (arrivals !== undefined) {
  const tool = {
    kind: 'tools',
    version: 1,
    revision: 'r',
    status: 'live',
    inboxes: ['foo'],
    error: null,
    at: '',
  };
  await store.stream(streamNames.tools).append([jsonRecord(tool)]);
  for (const id of [POISONED, randomUUID()]) {
    const to = [`foo@${DOMAIN}`];
    const data = { email_id: id, from: 'ann@sender.example', to, received_for: to, subject: 'Hello' };
    const body = JSON.stringify({ type: 'email.received', data });
    await store.stream(streamNames.events).append([{ headers: [['key', id]], body }]);
  }
}
