/**
 * The runner: one stage for each inbox that is served or holds mail, all sharing one pool of sandboxes. Of
 * several runners on a basin each does this for the inboxes whose turn it has (`ownership.ts`).
 * An inbox whose tool is gone keeps its stage: its mail is parked as `tool.missing`, not forgotten.
 */
import { aborted, orAborted } from '../platform/abort.ts';
import { createBudget } from '../platform/budget.ts';
import type { Budget } from '../platform/budget.ts';
import type { Log } from '../platform/log.ts';
import { lastRestore } from '../streams/format.ts';
import type { Ownership } from '../streams/ownership.ts';
import { streamNames } from '../streams/records.ts';
import type { StageMeter } from '../streams/stage-meter.ts';
import { createStage } from '../streams/stage.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import { createFetchBudget } from './fetch-budget.ts';
import type { ReplyCaps } from './reply-caps.ts';
import type { RunToolDeps } from './run-tool.ts';
import { createRunTool, inboxLane, mailCausedAtMs } from './run-tool.ts';
import { createThreadHistory } from './thread-history.ts';
import { createToolState } from './tool-state.ts';

export interface RunnerOptions {
  domains: readonly string[];
  /** Runs of one inbox at once. */
  concurrency: number;
  /** How long the outcomes of runs are kept. */
  historyMs: number;
  /** How far ahead a mail may be scheduled. */
  maxDelayMs: number;
}

export interface Runner {
  /** Works until the signal is aborted; rejects when a stage must not go on. */
  run(signal: AbortSignal): Promise<void>;
}

/** Inboxes that are looked after at all: each costs a stage. */
const MAX_INBOXES = 1000;
/**
 * Of large mails that are worked on at once; copies on the way, and what is read from them, take a few times as much of
 * the largest. One inbox never takes all, and the largest mail fits into its share.
 */
const MEMORY_BYTES = 128 * 1024 * 1024;
const INBOX_MEMORY_BYTES = 64 * 1024 * 1024;

export interface RunnerDeps extends Omit<
  RunToolDeps,
  'caps' | 'state' | 'history' | 'fetchBudget' | 'lastRestore' | 'memory'
> {
  /** Bytes of large mails that are worked on, of all inboxes. Default: of its own. */
  memory?: Budget;
  /** Counts for one inbox and one turn: what others answered since our last turn is read back, not added. */
  createCaps: () => ReplyCaps;
  ownership: Ownership;
  log: Log;
  meter?: StageMeter;
}

export function createRunner(deps: RunnerDeps, options: RunnerOptions): Runner {
  const { store, tools, clock, log, memory: memoryOfAll = createBudget(MEMORY_BYTES) } = deps;
  const fetchBudget = createFetchBudget();
  // Asked for all inboxes at once, so by the signal of none: one that loses its turn must not fail the others' mail.
  const restore = succeedOnce(() => lastRestore(store));
  const restoreOfStreams = (signal: AbortSignal): ReturnType<typeof restore> =>
    orAborted(restore(signal), signal);

  async function work(inbox: string, ownedStore: StreamStore, signal: AbortSignal): Promise<void> {
    const caps = deps.createCaps();
    const restored = succeedOnce((signalOfRead) => caps.restore(inbox, signalOfRead));
    const state = createToolState({ store: ownedStore, clock }, { inbox });
    const history = createThreadHistory({ store: ownedStore, clock }, { inbox });
    const memory = createBudget(INBOX_MEMORY_BYTES, memoryOfAll);
    const runTool = createRunTool(
      { ...deps, caps, state, history, fetchBudget, memory, lastRestore: restoreOfStreams },
      { inbox, ...options },
    );
    const stage = createStage(
      { store: ownedStore, clock, log, ...(deps.meter && { meter: deps.meter }) },
      {
        name: `runner/${inbox}`,
        source: streamNames.inbox(inbox),
        journal: streamNames.runs(inbox),
        concurrency: options.concurrency,
        laneOf: inboxLane,
        causedAtMs: mailCausedAtMs,
        async handle(record, attempt) {
          // Not before: what the owner before us decided is on the journal once the stage has begun.
          await restored(attempt.signal);
          return runTool(record, attempt);
        },
        onSettled: (outcome) => history.add(outcome),
        backoff: { baseMs: 500, maxMs: 300_000 },
        maxAttempts: 50,
        historyMs: options.historyMs,
      },
    );
    await stage.run(signal);
  }

  const start = (inbox: string, signal: AbortSignal): Promise<void> =>
    deps.ownership.run(
      { name: `runner/${inbox}`, work: (ownedStore, turn) => work(inbox, ownedStore, turn) },
      signal,
    );

  async function inboxesWithMail(signal: AbortSignal): Promise<string[]> {
    const names: string[] = [];
    for (let startAfter: string | undefined; names.length < MAX_INBOXES;) {
      const page = await store.list({
        prefix: streamNames.inboxPrefix,
        ...(startAfter === undefined ? {} : { startAfter }),
        signal,
      });
      names.push(...page.names);
      startAfter = page.names.at(-1);
      if (!page.hasMore || startAfter === undefined) break;
    }
    return names
      .filter((name) => name !== streamNames.unrouted)
      .map((name) => name.slice(streamNames.inboxPrefix.length));
  }

  return {
    async run(signal) {
      const failed = new AbortController();
      const all = AbortSignal.any([signal, failed.signal]);
      const running: Promise<void>[] = [];
      const ensure = (inboxes: Iterable<string>): void => {
        for (const inbox of inboxes) {
          if (started.has(inbox)) continue;
          if (started.size >= MAX_INBOXES) {
            log.error({ inbox, limit: MAX_INBOXES }, 'runner.too_many_inboxes');
            continue;
          }
          started.add(inbox);
          running.push(start(inbox, all).catch((error: unknown) => failed.abort(error)));
        }
      };
      const started = new Set<string>();
      const unsubscribe = tools.onLive((revision) => ensure(revision.toolOf.keys()));
      try {
        ensure((await tools.live(all)).toolOf.keys());
        ensure(await inboxesWithMail(all));
        await aborted(all);
      } finally {
        unsubscribe();
        await Promise.all(running);
      }
      if (failed.signal.aborted) throw failed.signal.reason;
    },
  };
}

/** What succeeds once is not done again; whoever comes meanwhile waits for it, too. */
function succeedOnce<T>(work: (signal: AbortSignal) => Promise<T>): (signal: AbortSignal) => Promise<T> {
  let done: Promise<T> | null = null;
  return async (signal) => {
    done ??= work(signal);
    try {
      return await done;
    } catch (error) {
      done = null;
      throw error;
    }
  };
}
