/** The view of real mail: it works only while somebody looks, and never on more than the newest part of a stream. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createMailboxView } from '../../src/admin/mailbox-view.ts';
import { createViewOnDemand } from '../../src/admin/view-on-demand.ts';
import { createLog } from '../../src/platform/log.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { createManualClock } from '../streams/manual-clock.ts';
import { startOperatorWorld } from './operator-world.ts';
import type { OperatorWorld } from './operator-world.ts';

const MAILS = 1500;
const { signal } = new AbortController();
let world: OperatorWorld;
let asked: { name: string; fromSeqNum: number }[];
let store: StreamStore;

beforeEach(async () => {
  world = await startOperatorWorld();
  const events = world.store.stream('events');
  const bodies = Array.from({ length: MAILS }, (_, number) => {
    const data = { email_id: `e${number}`, from: 'ann@sender.example', subject: 'Hi', to: ['a@b.example'] };
    return { body: JSON.stringify({ type: 'email.received', data }) };
  });
  for (let first = 0; first < MAILS; first += 500) await events.append(bodies.slice(first, first + 500));
  asked = [];
  store = {
    ...world.store,
    stream(name) {
      const stream = world.store.stream(name);
      const read: typeof stream.read = (options) => {
        asked.push({ name, fromSeqNum: options.fromSeqNum });
        return stream.read(options);
      };
      return { ...stream, read };
    },
  };
});
afterEach(() => world[Symbol.asyncDispose]());

it('reads nothing until somebody looks, and lets go of all when nobody has for a while', async () => {
  const clock = createManualClock();
  const log = createLog('silent');
  const view = createViewOnDemand(clock, () => createMailboxView({ store, clock, log }, { isLocal: false }));
  const stop = new AbortController();
  const running = view.run(stop.signal);
  expect(view.conversations()).toEqual([]);
  expect(asked).toEqual([]);

  expect(await view.changed(0, signal)).toBe(true);
  expect(view.conversations()).toHaveLength(200);
  expect(view.conversations()[0]?.id).toBe(`e${MAILS - 1}`);
  const eventReads = asked.filter(({ name }) => name === 'events');
  expect(Math.min(...eventReads.map(({ fromSeqNum }) => fromSeqNum))).toBe(MAILS - 400);

  const seen = view.version();
  clock.advance(61_000);
  while (view.conversations().length > 0) await new Promise((resolve) => setImmediate(resolve));
  expect(await view.changed(seen, signal)).toBe(true);
  expect(view.version()).toBeGreaterThan(seen);
  expect(view.conversations()).toHaveLength(200);
  stop.abort();
  await running;
  expect(await view.changed(view.version(), signal)).toBe(false);
});
