/** How far behind each stage is, read from the streams alone: it does not matter who does its work, or whether anybody does. */
import { readProgress } from '../streams/journal.ts';
import { streamNames } from '../streams/records.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import { stageStreams } from './stage-streams.ts';
import type { StageStreams } from './stage-streams.ts';

export interface StageLag {
  readonly stage: StageStreams['stage'];
  readonly inbox: string | null;
  /** Records without a final outcome, those that are set aside among them. */
  readonly waiting: number;
  /** Of the oldest that is neither settled nor set aside; null where there is none. */
  readonly oldestAt: string | null;
  /** Set aside after several attempts. */
  readonly retried: number;
}

const MAX_INBOXES = 500;
const STAGES_AT_ONCE = 8;
const MANY_ATTEMPTS = 3;

export async function stageLags(store: StreamStore, signal: AbortSignal): Promise<StageLag[]> {
  const stages = await allStages(store, signal);
  const lags: StageLag[] = [];
  for (let first = 0; first < stages.length; first += STAGES_AT_ONCE) {
    const some = stages.slice(first, first + STAGES_AT_ONCE);
    lags.push(...(await Promise.all(some.map((stage) => stageLag(store, stage, signal)))));
  }
  return lags;
}

/** Those of inboxes by name, between receive and the outbox. */
export async function allStages(store: StreamStore, signal: AbortSignal): Promise<StageStreams[]> {
  const { names } = await store.list({ prefix: streamNames.inboxPrefix, limit: MAX_INBOXES, signal });
  const inboxes = names.filter((name) => name !== streamNames.unrouted);
  return [
    stageStreams({ stage: 'receive' }),
    ...inboxes.map((name) => stageStreams({ inbox: name.slice(streamNames.inboxPrefix.length) })),
    stageStreams({ stage: 'outbox' }),
  ];
}

export async function stageLag(
  store: StreamStore,
  stage: StageStreams,
  signal: AbortSignal,
): Promise<StageLag> {
  const progress = await readProgress(store.stream(stage.journal), signal);
  const source = store.stream(stage.source);
  const tail = await source.tail(signal);
  let oldest = progress.low;
  while (oldest < tail && (progress.settled.has(oldest) || progress.aside.has(oldest))) oldest++;
  const { records } = await source.read({ fromSeqNum: oldest, maxRecords: 1, signal });
  return {
    stage: stage.stage,
    inbox: stage.inbox,
    waiting: Math.max(0, tail - progress.low - progress.settled.size),
    oldestAt: records[0] ? new Date(records[0].timestampMs).toISOString() : null,
    retried: [...progress.aside.values()].filter(({ attempts }) => attempts > MANY_ATTEMPTS).length,
  };
}
