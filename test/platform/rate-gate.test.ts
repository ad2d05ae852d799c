import * as fc from 'fast-check';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { createRateGate, retryAfterMs } from '../../src/platform/rate-gate.ts';
import type { Answer, RateGate, ResponseHeaders } from '../../src/platform/rate-gate.ts';

const never = new AbortController().signal;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] });
});
afterEach(() => {
  vi.useRealTimers();
});

/** Sends so many calls to the gate; the array fills with the times at which they start. */
function enterMany(gate: RateGate, count: number): number[] {
  const startedMs: number[] = [];
  for (let call = 0; call < count; call += 1)
    void gate.enter(never, 'a').then(() => startedMs.push(performance.now()));
  return startedMs;
}

test('in no second do more calls start than the provider allows, and all of them start', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 10 }),
      fc.array(fc.integer({ min: 0, max: 700 }), { maxLength: 40 }),
      async (limit, pausesMs) => {
        const gate = createRateGate(systemClock);
        gate.observe({ 'ratelimit-limit': String(limit) }, 'taken');
        const startedMs: number[] = [];
        for (const pauseMs of pausesMs) {
          void gate.enter(never, 'a').then(() => startedMs.push(performance.now()));
          await vi.advanceTimersByTimeAsync(pauseMs);
        }
        await vi.runAllTimersAsync();
        expect(startedMs).toHaveLength(pausesMs.length);
        const distancesMs = startedMs.slice(limit).map((startMs, index) => startMs - (startedMs[index] ?? 0));
        expect(distancesMs.filter((distanceMs) => distanceMs <= 1000)).toEqual([]);
      },
    ),
    { numRuns: 50 },
  );
});

test('two calls start before the provider has told its limit, then as many as it allows', async () => {
  const gate = createRateGate(systemClock);
  const startedMs = enterMany(gate, 8);
  await vi.advanceTimersByTimeAsync(0);
  expect(startedMs).toHaveLength(2);
  gate.observe({ 'ratelimit-limit': '5', 'ratelimit-remaining': '3' }, 'taken');
  await vi.advanceTimersByTimeAsync(0);
  expect(startedMs).toHaveLength(5);
});

test('who answers without telling a limit is not paced, until it refuses', async () => {
  const gate = createRateGate(systemClock);
  const startedMs = enterMany(gate, 50);
  gate.observe(null, 'taken');
  await vi.advanceTimersByTimeAsync(0);
  expect(startedMs).toHaveLength(2);
  gate.observe({ 'content-type': 'application/json' }, 'taken');
  await vi.advanceTimersByTimeAsync(0);
  expect(startedMs).toHaveLength(50);
  gate.observe({ 'retry-after': '3' }, 'refused');
  const laterMs = enterMany(gate, 1);
  await vi.advanceTimersByTimeAsync(2_900);
  expect(laterMs).toHaveLength(0);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(laterMs).toHaveLength(1);
});

test.each<[ResponseHeaders, Answer]>([
  [{ 'content-type': 'text/html' }, 'failed'],
  [{ 'retry-after': '0' }, 'refused'],
  [null, 'taken'],
])('an answer of %j, %s, lifts no limit', async (headers, answer) => {
  const gate = createRateGate(systemClock);
  gate.observe(headers, answer);
  await vi.advanceTimersByTimeAsync(1_000);
  const startedMs = enterMany(gate, 50);
  await vi.advanceTimersByTimeAsync(0);
  expect(startedMs).toHaveLength(2);
});

test('a limit that was told is not lifted by an answer that does not tell it', async () => {
  const gate = createRateGate(systemClock);
  gate.observe({ 'ratelimit-limit': '5' }, 'taken');
  gate.observe({}, 'taken');
  gate.observe({}, 'failed');
  const startedMs = enterMany(gate, 50);
  await vi.advanceTimersByTimeAsync(0);
  expect(startedMs).toHaveLength(5);
});

test('a refusal closes the gate for everybody until its retry-after', async () => {
  const gate = createRateGate(systemClock);
  gate.observe({ 'ratelimit-limit': '10', 'retry-after': '7' }, 'refused');
  const startedMs = enterMany(gate, 3);
  await vi.advanceTimersByTimeAsync(6999);
  expect(startedMs).toHaveLength(0);
  await vi.advanceTimersByTimeAsync(300);
  expect(startedMs).toHaveLength(3);
});

test('the retry-after of an answer that is no refusal closes nothing', async () => {
  const gate = createRateGate(systemClock);
  gate.observe({ 'ratelimit-limit': '10', 'ratelimit-remaining': '9', 'retry-after': '7' }, 'taken');
  const startedMs = enterMany(gate, 3);
  await vi.advanceTimersByTimeAsync(0);
  expect(startedMs).toHaveLength(3);
});

test('a window that others have used up closes the gate until its reset', async () => {
  const gate = createRateGate(systemClock);
  gate.observe({ 'ratelimit-limit': '10', 'ratelimit-remaining': '0', 'ratelimit-reset': '1' }, 'taken');
  const startedMs = enterMany(gate, 1);
  await vi.advanceTimersByTimeAsync(999);
  expect(startedMs).toHaveLength(0);
  await vi.advanceTimersByTimeAsync(1);
  expect(startedMs).toHaveLength(1);
});

test('a refusal without retry-after, or with garbage, is a second', async () => {
  const gate = createRateGate(systemClock);
  gate.observe({ 'ratelimit-limit': '-1', 'retry-after': 'soon' }, 'refused');
  const startedMs = enterMany(gate, 1);
  await vi.advanceTimersByTimeAsync(999);
  expect(startedMs).toHaveLength(0);
  await vi.advanceTimersByTimeAsync(300);
  expect(startedMs).toHaveLength(1);
});

test('however many wait under one key, the next of another is a turn away', async () => {
  const gate = createRateGate(systemClock, { initialLimit: 1 });
  const order: string[] = [];
  const enter = (fairnessKey: string): void =>
    void gate.enter(never, fairnessKey).then(() => order.push(fairnessKey));
  for (let call = 0; call < 20; call += 1) enter('burst');
  await vi.advanceTimersByTimeAsync(0);
  for (const fairnessKey of ['other', 'third', 'other']) enter(fairnessKey);
  await vi.runAllTimersAsync();
  expect(order).toHaveLength(23);
  expect(order.slice(0, 6)).toEqual(['burst', 'burst', 'other', 'third', 'burst', 'other']);
});

test('who is aborted leaves the queue and uses up nothing', async () => {
  const gate = createRateGate(systemClock, { initialLimit: 1 });
  await gate.enter(never, 'a');
  const leaving = new AbortController();
  const left = gate.enter(leaving.signal, 'a');
  const startedMs = enterMany(gate, 1);
  leaving.abort(new Error('stop'));
  await expect(left).rejects.toThrow('stop');
  await expect(gate.enter(AbortSignal.abort(new Error('gone')), 'a')).rejects.toThrow('gone');
  await vi.advanceTimersByTimeAsync(1100);
  expect(startedMs).toHaveLength(1);
});

test('there is a limit to how many wait', async () => {
  const gate = createRateGate(systemClock, { initialLimit: 1, maxWaiters: 2 });
  const startedMs = enterMany(gate, 3);
  await expect(gate.enter(never, 'a')).rejects.toMatchObject({
    code: 'platform.rate_gate_full',
    kind: 'transient',
  });
  await vi.runAllTimersAsync();
  expect(startedMs).toHaveLength(3);
  // Those who passed have made room.
  const later = enterMany(gate, 2);
  await vi.runAllTimersAsync();
  expect(later).toHaveLength(2);
});

test('retry-after is whole seconds, and at most a day', () => {
  expect(retryAfterMs({ 'retry-after': '3' })).toBe(3000);
  expect(retryAfterMs({ 'retry-after': '99999999' })).toBe(86_400_000);
  expect(retryAfterMs({ 'retry-after': 'Wed, 21 Oct 2026 07:28:00 GMT' })).toBeUndefined();
  expect(retryAfterMs(null)).toBeUndefined();
});
