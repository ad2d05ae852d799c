/** The outbox with the options that the daemon gives it, in virtual time: it sends in turn, and outlasts its provider. */
import { expect, it } from 'vitest';
import { outboxStage } from '../../src/outbox/outbox-unit.ts';
import type { OutboundProvider } from '../../src/outbox/outbox.ts';
import { sendingKey } from '../../src/outbox/resend-outbound.ts';
import { createSuppressions } from '../../src/outbox/suppressions.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
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
const OUTAGE_MS = 30 * 3_600_000;

function requestOf(inbox: string, seqNum: number, thread = `thread-${seqNum}`): NewRecord {
  const idempotencyKey = `${inbox}/${seqNum}/0`;
  return jsonRecord(
    {
      kind: 'request',
      version: 1,
      idempotencyKey,
      cause: { inbox, seqNum, effect: 0, emailId: `mail-${seqNum}` },
      thread,
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

/** Lets these requests go out; resolves to what the journal says became of them. */
async function sendAll(
  records: readonly NewRecord[],
  outboundOf: (clock: Clock) => OutboundProvider,
): Promise<string[]> {
  const world = createWorld(1);
  const { clock, network } = createDaemonProcess(world, CALM, 'daemon');
  const final: string[] = [];
  const durable = createDurableStreams({
    nowMs: () => world.nowMs(),
    observe(name, written) {
      if (name !== streamNames.sent) return;
      const bodies = written.map(
        ({ body }) => JSON.parse(Buffer.from(body).toString()) as { outcome?: string },
      );
      for (const { outcome } of bodies)
        if (typeof outcome === 'string' && outcome !== 'deferred') final.push(outcome);
    },
  });
  durable.write(streamNames.outbox, { records });
  const store = createSimulatedStore(durable, network);
  const log = createLog('silent');
  const suppressions = createSuppressions({ store, clock, log }, { keptMs: Infinity });
  const stop = new AbortController();
  const options = outboxStage({ store, outbound: outboundOf(clock), suppressions, clock });
  const stage = createStage({ store, clock, log }, options);
  let hasEnded = false;
  const running = stage.run(stop.signal).finally(() => (hasEnded = true));
  while (final.length < records.length && (await world.step()));
  stop.abort();
  while (!hasEnded && (await world.step()));
  await running;
  return final;
}

it('the reply of one inbox leaves among the first, behind a burst of another', async () => {
  const left: string[] = [];
  const outboundOf = (clock: Clock): OutboundProvider => {
    const gate = createRateGate(clock);
    gate.observe({ 'ratelimit-limit': '10' }, 'taken');
    return {
      async send(request, idempotencyKey, signal) {
        await gate.enter(signal, sendingKey(request));
        left.push(idempotencyKey);
        await clock.sleep(ANSWER_MS, signal);
        return { providerId: idempotencyKey };
      },
      findSent: () => Promise.resolve(null),
    };
  };
  const burst = Array.from({ length: BURST }, (_, seqNum) => requestOf('burst', seqNum));
  await sendAll([...burst, requestOf('other', 0)], outboundOf);
  expect(new Set(left).size).toBe(BURST + 1);
  expect(left.indexOf('other/0/0')).toBeLessThan(20);
});

it.each([
  // Surely not taken: there is nothing to look for, however long it lasts.
  ['refuses all mail', 'resend.rate_limited', false],
  ['fails', 'resend.unavailable', true],
])(
  'a provider that %s for a day and more parks nothing, and then sends each once',
  async (_, code, looks) => {
    const threads = 5;
    const keysOf = (thread: number): string[] => [0, 1, 2, 3].map((n) => `desk/${thread + n * threads}/0`);
    const records = Array.from({ length: 4 * threads }, (_record, seqNum) =>
      requestOf('desk', seqNum, `thread-${seqNum % threads}`),
    );
    const left: string[] = [];
    let attempts = 0;
    let lookups = 0;
    const outboundOf = (clock: Clock): OutboundProvider => {
      const backMs = clock.nowMs() + OUTAGE_MS;
      return {
        async send(_request, idempotencyKey) {
          attempts++;
          if (clock.nowMs() < backMs) throw new MillraceError('transient', code, 'not now');
          left.push(idempotencyKey);
          return { providerId: idempotencyKey };
        },
        async findSent() {
          lookups++;
          return null;
        },
      };
    };
    const outcomes = await sendAll(records, outboundOf);
    expect(outcomes).toEqual(records.map(() => 'done'));
    for (let thread = 0; thread < threads; thread++)
      expect(left.filter((key) => keysOf(thread).includes(key))).toEqual(keysOf(thread));
    expect(lookups > 0).toBe(looks);
    // Only the first of each thread is tried, and after a while every few minutes.
    expect(attempts).toBeLessThan(1_000 * threads);
  },
);
