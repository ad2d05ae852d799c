/** The provider's rate is shared by inboxes: the real stage, outbox and rate gate, in virtual time. */
import { expect, it } from 'vitest';
import { outboxStage } from '../../src/outbox/outbox-unit.ts';
import type { OutboundProvider } from '../../src/outbox/outbox.ts';
import { sendingKey } from '../../src/outbox/resend-outbound.ts';
import { createSuppressions } from '../../src/outbox/suppressions.ts';
import { createLog } from '../../src/platform/log.ts';
import { createRateGate } from '../../src/platform/rate-gate.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { NewRecord } from '../../src/streams/stream-store.ts';
import { createDaemonProcess } from './daemon-process.ts';
import { createDurableStreams } from './durable-streams.ts';
import { createSimulatedStore } from './simulated-store.ts';
import { createWorld } from './world.ts';

const BURST = 1_000;
const CALM = { faultRate: 0, slowRate: 0, isStoreDown: false, wallOffsetMs: 0 };
const ANSWER_MS = 300;

function requestOf(inbox: string, seqNum: number): NewRecord {
  const idempotencyKey = `${inbox}/${seqNum}/0`;
  return jsonRecord(
    {
      kind: 'request',
      version: 1,
      idempotencyKey,
      cause: { inbox, seqNum, effect: 0, emailId: `mail-${seqNum}` },
      thread: `thread-${seqNum}`,
      notBefore: null,
      request: {
        from: `${inbox}@ours.example`,
        to: 'ann@sender.example',
        subject: 'Re:',
        text: '',
        headers: {},
      },
    },
    idempotencyKey,
  );
}

it('the reply of one inbox leaves among the first, behind a burst of another', async () => {
  const world = createWorld(1);
  const { clock, network } = createDaemonProcess(world, CALM, 'daemon');
  const durable = createDurableStreams({ nowMs: () => world.nowMs() });
  const store = createSimulatedStore(durable, network);
  const gate = createRateGate(clock);
  gate.observe({ 'ratelimit-limit': '10' }, 'taken');
  const left: string[] = [];
  const outbound: OutboundProvider = {
    async send(request, idempotencyKey, signal) {
      await gate.enter(signal, sendingKey(request));
      left.push(idempotencyKey);
      await clock.sleep(ANSWER_MS, signal);
      return { providerId: idempotencyKey };
    },
    findSent: () => Promise.resolve(null),
  };
  const burst = Array.from({ length: BURST }, (_, seqNum) => requestOf('burst', seqNum));
  durable.write(streamNames.outbox, { records: [...burst, requestOf('other', 0)] });
  const log = createLog('silent');
  const suppressions = createSuppressions({ store, clock, log }, { keptMs: Infinity });
  const stop = new AbortController();
  const stage = createStage({ store, clock, log }, outboxStage({ store, outbound, suppressions, clock }));
  let hasEnded = false;
  const running = stage.run(stop.signal).finally(() => (hasEnded = true));
  while (left.length <= BURST && (await world.step()));
  stop.abort();
  while (!hasEnded && (await world.step()));
  await running;
  expect(new Set(left).size).toBe(BURST + 1);
  expect(left.indexOf('other/0/0')).toBeLessThan(20);
});
