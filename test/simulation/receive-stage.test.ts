/** Receive with the options that the daemon gives it, in virtual time: it outlasts its provider. */
import { expect, it } from 'vitest';
import { receiveStage } from '../../src/ingest/receive-stage.ts';
import { mailWorkInPlace } from '../../src/mail/mail-work.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import { createLiveTools } from '../../src/streams/live-tools.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { NewRecord } from '../../src/streams/stream-store.ts';
import { createDaemonProcess } from './daemon-process.ts';
import { createDurableStreams } from './durable-streams.ts';
import { createSimulatedStore } from './simulated-store.ts';
import { createWorld } from './world.ts';

const CALM = { faultRate: 0, slowRate: 0, isStoreDown: false, wallOffsetMs: 0 };
const OUTAGE_MS = 6 * 3_600_000;
const MAILS = 2;

function arrival(n: number): NewRecord {
  const to = ['desk@ours.example'];
  const data = {
    email_id: `00000000-0000-4000-8000-00000000000${n}`,
    from: 'ann@sender.example',
    to,
    received_for: to,
    subject: `${n}`,
  };
  return {
    headers: [['key', `received/mail-${n}`]],
    body: JSON.stringify({ type: 'email.received', data }),
  };
}

it('a provider that is away for hours makes it park nothing, and is asked about once a minute', async () => {
  const world = createWorld(1);
  const { clock, network } = createDaemonProcess(world, CALM, 'daemon');
  const final: unknown[] = [];
  const durable = createDurableStreams({
    nowMs: () => world.nowMs(),
    observe(name, written) {
      if (name !== streamNames.received) return;
      const bodies = written.map(
        ({ body }) => JSON.parse(Buffer.from(body).toString()) as { kind: string; outcome?: string },
      );
      final.push(...bodies.filter(({ kind, outcome }) => kind === 'outcome' && outcome !== 'deferred'));
    },
  });
  const tools = { kind: 'tools', version: 1, revision: 'r', status: 'live', inboxes: ['desk'] };
  durable.write(streamNames.tools, { records: [jsonRecord({ ...tools, error: null, at: '' })] });
  durable.write(streamNames.events, { records: Array.from({ length: MAILS }, (_, n) => arrival(n)) });
  const store = createSimulatedStore(durable, network);
  const log = createLog('silent');
  const stop = new AbortController();
  const liveTools = createLiveTools({ store, log });
  const following = liveTools.run(stop.signal);
  let asked = 0;
  const inbound = {
    async rawMessage(): Promise<never> {
      asked++;
      throw new MillraceError('transient', 'resend.unavailable', 'not now');
    },
  };
  const deps = { store, inbound, tools: liveTools, mailWork: mailWorkInPlace };
  const options = receiveStage(deps, { domains: ['ours.example'], historyMs: Infinity });
  const stage = createStage({ store, clock, log }, options);
  let hasEnded = false;
  const running = Promise.all([stage.run(stop.signal), following]).finally(() => (hasEnded = true));
  const endMs = world.nowMs() + OUTAGE_MS;
  while (world.nowMs() < endMs && (await world.step()));
  stop.abort();
  while (!hasEnded) if (!(await world.step())) await new Promise((resolve) => setImmediate(resolve));
  await running;
  expect(final).toEqual([]);
  const minutes = OUTAGE_MS / 60_000;
  expect(asked).toBeGreaterThan(MAILS * minutes);
  expect(asked).toBeLessThan(MAILS * 2 * minutes);
});
