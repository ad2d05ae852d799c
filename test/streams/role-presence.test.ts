/** Roles that nobody does, as the others see it: on a real local store, with a clock for each process. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createRolePresence } from '../../src/streams/role-presence.ts';
import { createBasin } from './basin.ts';
import type { Basin } from './basin.ts';
import { useTemporaryStore } from './temporary-store.ts';

const store = useTemporaryStore();
let basin: Basin;

beforeEach(() => {
  basin = createBasin(store());
});
afterEach(() => basin.stop());

it('nobody is missed while the others come up, and whoever has not come after a minute is', async () => {
  const ingest = basin.start();
  const presence = createRolePresence(ingest, ['ingest']);
  await basin.pass(1_000);
  expect(presence.missing()).toEqual([]);
  ingest.clock.advance(61_000);
  await basin.pass(2_000);
  expect(presence.missing()).toEqual(['runner', 'outbox']);
});

it('who was there and has gone is missed at once, until it is back', async () => {
  const [ingest, worker] = [basin.start(), basin.start()];
  const presence = createRolePresence(ingest, ['ingest']);
  createRolePresence(worker, ['runner', 'outbox']);
  await basin.pass(2_000);
  expect(presence.missing()).toEqual([]);
  const left = worker.leave();
  await basin.pass(2_000);
  await left;
  expect(presence.missing()).toEqual(['runner', 'outbox']);
  createRolePresence(basin.start(), ['runner', 'outbox']);
  await basin.pass(2_000);
  expect(presence.missing()).toEqual([]);
});
