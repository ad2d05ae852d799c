/** How receive runs as a stage: `events` → `received`. What it makes of an event: `receive.ts`. */
import { streamNames } from '../streams/records.ts';
import type { StageOptions } from '../streams/stage.ts';
import { arrivalOrder } from './provider-event.ts';
import { createReceive } from './receive.ts';

export function receiveStage(
  deps: Parameters<typeof createReceive>[0],
  options: { domains: readonly string[]; historyMs: number },
): StageOptions {
  const { domains, historyMs } = options;
  return {
    name: 'receive',
    source: streamNames.events,
    journal: streamNames.received,
    historyMs,
    // One inbox never takes all.
    concurrency: 20,
    concurrencyPerKey: 16,
    ...arrivalOrder(domains, () => deps.tools.current()?.inboxes),
    handle: createReceive(deps, { domains }),
    backoff: { baseMs: 500, maxMs: 60_000 },
    maxAttempts: 5_000,
  };
}
