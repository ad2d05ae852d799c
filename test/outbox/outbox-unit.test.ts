/** The turn of whoever owns the outbox: it knows whom not to write to before it begins. */
import { expect, it } from 'vitest';
import { Registry } from 'prom-client';
import { createOutboxUnit } from '../../src/outbox/outbox-unit.ts';
import type { OutboundProvider } from '../../src/outbox/outbox.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import { createStageMeter } from '../../src/streams/stage-meter.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { readBodies } from '../streams/store-reading.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const store = useTemporaryStore();
const KEPT_MS = 90 * 86_400_000;

it('reads what forbids to write to an address before it takes the journal', async () => {
  const to = 'ann@sender.example';
  const at = '2026-11-22T10:00:00Z';
  const event = { event: 'complained', providerId: 'p0', messageId: null, to: [to], tags: {}, at };
  await store()
    .stream(streamNames.delivery)
    .append([jsonRecord({ kind: 'delivery', version: 1, ...event, details: {} })]);
  const request = { from: 'desk@ours.example', to, subject: 'Re:', text: '', headers: {} };
  const cause = { inbox: 'desk', seqNum: 0, effect: 0, emailId: 'm0' };
  const frozen = { idempotencyKey: 'desk/0/0', cause, thread: 't', notBefore: null, request };
  await store()
    .stream(streamNames.outbox)
    .append([jsonRecord({ kind: 'request', version: 1, ...frozen }, frozen.idempotencyKey)]);

  const steps: string[] = [];
  const watched: StreamStore = {
    ...store(),
    stream(name) {
      const whole = store().stream(name);
      return {
        ...whole,
        async read(options) {
          const batch = await whole.read(options);
          if (name === streamNames.delivery && batch.records.length > 0)
            steps.push('has read who complained');
          return batch;
        },
        fence(token, options) {
          if (name === streamNames.sent) steps.push('takes the journal');
          return whole.fence(token, options);
        },
      };
    },
  };
  const outbound: OutboundProvider = {
    send: async () => (steps.push('sends'), { providerId: 'p1' }),
    findSent: async () => null,
  };
  const registry = new Registry();
  const log = createLog('silent');
  const meter = createStageMeter({ store: watched, clock, registry });
  const unit = createOutboxUnit({ outbound, clock, log, meter, registry }, { keptMs: KEPT_MS });
  const stop = new AbortController();
  const working = unit.work(watched, stop.signal);
  await expect
    .poll(async () => (await readBodies(store().stream(streamNames.sent))).join('\n'), { timeout: 10_000 })
    .toContain('"reason":"suppressed"');
  stop.abort();
  await working;
  expect(steps).toEqual(['has read who complained', 'takes the journal']);
});
