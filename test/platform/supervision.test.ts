/** What a service manager is told, and when it is told nothing so that it acts. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { ServiceHealth } from '../../src/platform/lifecycle.ts';
import { createLog } from '../../src/platform/log.ts';
import { createSupervision } from '../../src/platform/supervision.ts';
import { createManualClock } from '../streams/manual-clock.ts';
import type { ManualClock } from '../streams/manual-clock.ts';

const running: ServiceHealth = { name: 'receive', isRunning: true, downMs: 0, failures: 0 };

let clock: ManualClock;
let told: string[];
let faults: string[];
let services: ServiceHealth[];
let stop: AbortController;
let supervising: Promise<void>;

beforeEach(() => {
  clock = createManualClock();
  told = [];
  faults = [];
  services = [running];
  stop = new AbortController();
});
afterEach(async () => {
  stop.abort();
  await supervising;
});

function supervise(
  watchdogMs: number | null,
  notify = async (...words: string[]) => void told.push(...words),
): void {
  const health = { workFaults: () => Promise.resolve(faults), look: () => ({ services }) };
  const deps = { clock, log: createLog('silent'), health, notify };
  supervising = createSupervision(deps, { watchdogMs }).run(stop.signal);
}

/** In steps, with room between them for what follows from each. */
async function pass(ms: number): Promise<void> {
  for (let passedMs = 0; passedMs < ms; passedMs += 100) {
    clock.advance(100);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

it('is told that the process is ready when nothing is lacking any more, and only then', async () => {
  faults = ['the stream store cannot be reached'];
  supervise(30_000);
  await pass(5_000);
  expect(told).toEqual(['STATUS=not ready: the stream store cannot be reached']);
  faults = [];
  await pass(300);
  expect(told.slice(1)).toEqual(['READY=1', 'STATUS=ready']);
});

it('is given three signs of life within the time of its watchdog', async () => {
  supervise(30_000);
  await pass(31_000);
  expect(told.filter((word) => word === 'WATCHDOG=1')).toHaveLength(3);
});

it('is given none once a service is down for longer than its next start can take', async () => {
  supervise(30_000);
  await pass(1_000);
  services = [running, { name: 'outbox', isRunning: false, downMs: 15_000, failures: 9 }];
  await pass(30_000);
  const before = told.filter((word) => word === 'WATCHDOG=1').length;
  expect(before).toBe(3);
  services = [running, { name: 'outbox', isRunning: false, downMs: 60_001, failures: 9 }];
  await pass(60_000);
  expect(told.filter((word) => word === 'WATCHDOG=1')).toHaveLength(before);
});

it('is told of a store that is away, which is no reason for a new start', async () => {
  supervise(30_000);
  await pass(1_000);
  faults = ['the stream store cannot be reached'];
  await pass(30_000);
  expect(told).toContain('STATUS=not ready: the stream store cannot be reached');
  expect(told.filter((word) => word === 'WATCHDOG=1')).toHaveLength(3);
});

it('gets no signs of life where it has no watchdog', async () => {
  supervise(null);
  await pass(60_000);
  expect(told).toEqual(['READY=1', 'STATUS=ready']);
});

it('is told of the end', async () => {
  supervise(30_000);
  await pass(1_000);
  stop.abort();
  await supervising;
  expect(told.slice(-2)).toEqual(['STOPPING=1', 'STATUS=finishing what is under way']);
});

it('may be out of reach', async () => {
  supervise(30_000, () => Promise.reject(new Error('no such program')));
  await pass(10_000);
  stop.abort();
  await expect(supervising).resolves.toBeUndefined();
});
