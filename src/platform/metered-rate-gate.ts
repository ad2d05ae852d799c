/**
 * A rate gate that counts how often, and how long, callers wait for a provider's limit. Those who pass at once
 * are not counted.
 */
import { Counter } from 'prom-client';
import type { Registry } from 'prom-client';
import type { Clock } from './clock.ts';
import type { RateGate } from './rate-gate.ts';

/** What is shorter is the way through the event loop, not the provider's limit. */
const LEAST_WAIT_MS = 5;

export function createMeteredRateGate({
  gate,
  clock,
  registry,
}: {
  gate: RateGate;
  clock: Clock;
  registry: Registry;
}): RateGate {
  const registers = [registry];
  const waits = new Counter({
    name: 'millrace_rate_limit_waits_total',
    help: 'Calls to the provider that had to wait for its rate limit.',
    registers,
  });
  const seconds = new Counter({
    name: 'millrace_rate_limit_wait_seconds_total',
    help: 'How long these calls waited in all.',
    registers,
  });
  return {
    ...gate,
    async enter(signal, fairnessKey) {
      const startedMs = clock.monotonicMs();
      await gate.enter(signal, fairnessKey);
      const waitedMs = clock.monotonicMs() - startedMs;
      if (waitedMs < LEAST_WAIT_MS) return;
      waits.inc();
      seconds.inc(waitedMs / 1000);
    },
  };
}
