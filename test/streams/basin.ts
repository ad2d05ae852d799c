/**
 * Several processes on one basin, in one test process: one real local store, and for each process its own clock
 * and its own way to the store, which can be cut. Nothing happens by itself: `pass` lets time go by.
 */

import { aborted } from '../../src/platform/abort.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import { membershipTiming } from '../../src/streams/membership-pace.ts';
import { createMembership } from '../../src/streams/membership.ts';
import type { Membership } from '../../src/streams/membership.ts';
import { createSharedOwnership } from '../../src/streams/ownership.ts';
import type { Ownership } from '../../src/streams/ownership.ts';
import type { ReadBatch, StreamStore } from '../../src/streams/stream-store.ts';
import { createManualClock } from './manual-clock.ts';
import type { ManualClock } from './manual-clock.ts';

export interface BasinProcess {
  readonly clock: ManualClock;
  readonly membership: Membership;
  readonly ownership: Ownership;
  readonly store: StreamStore;
  /** Each request takes so long to get to the store, until told otherwise. */
  slow(ms: number): void;
  /** Nothing gets through to the store, nor from it; time goes on. Appends are told so, or get this error. */
  cut(error?: MillraceError): void;
  /** What it reads now hangs for ever, as on a connection whose other end is gone; a new one works. */
  deafen(): void;
  /** Nothing runs and nothing gets through; on `mend`, all the time that went by has gone by at once. */
  freeze(): void;
  mend(): void;
  /** As after SIGTERM; resolves when it has left. */
  leave(): Promise<void>;
  /** As after SIGKILL on this machine: it is silent for ever, and found to be gone. */
  die(): void;
}

export interface Basin {
  start(): BasinProcess;
  pass(ms: number): Promise<void>;
  stop(): Promise<void>;
}

const STEP_MS = 25;
/** Turns of the event loop in which the local store settles all that a step has started. */
const TURNS = 12;

export function createBasin(store: StreamStore): Basin {
  const log = createLog('silent');
  const running: { advance(ms: number): void; process: BasinProcess; end(): void }[] = [];
  const gone = new Set<string>();

  function start(): BasinProcess {
    const clock = createManualClock();
    const way = createWay(store, clock);
    const own = `process-${running.length}`;
    let frozenMs: number | undefined;
    const membership = createMembership({
      store: way.store,
      clock,
      log,
      processes: { own, isGone: (identity) => gone.has(identity) },
    });
    const stop = new AbortController();
    const left = membership.run(stop.signal);
    left.catch(() => {});
    const process: BasinProcess = {
      clock,
      membership,
      ownership: createSharedOwnership({ store: way.store, membership, clock, log }),
      store: way.store,
      slow: (ms) => way.slow(ms),
      cut: (error) => way.cut(error),
      deafen: () => way.deafen(),
      freeze() {
        frozenMs = 0;
        way.cut();
      },
      mend() {
        const missedMs = frozenMs ?? 0;
        frozenMs = undefined;
        clock.advance(missedMs);
        way.mend();
      },
      leave() {
        stop.abort();
        return left;
      },
      die() {
        process.freeze();
        gone.add(own);
      },
    };
    running.push({
      process,
      end: () => stop.abort(),
      advance(ms) {
        if (frozenMs === undefined) clock.advance(ms);
        else frozenMs += ms;
      },
    });
    return process;
  }

  async function pass(ms: number): Promise<void> {
    for (let passedMs = 0; passedMs < ms; passedMs += STEP_MS) {
      for (const { advance } of running) advance(STEP_MS);
      for (let turn = 0; turn < TURNS; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  return {
    start,
    pass,
    async stop() {
      for (const { process, end } of running) {
        process.slow(0);
        process.mend();
        end();
      }
      await pass(membershipTiming.leaveWithinMs + 5_000);
    },
  };
}

/** The store at the end of a way that can be cut: appends fail, and what is read does not arrive. */
function createWay(store: StreamStore, clock: Clock) {
  let mended: PromiseWithResolvers<void> | undefined;
  let refusal: MillraceError;
  let connections = 0;
  let deafBelow = 0;
  let slowMs = 0;
  async function* arriving(batches: AsyncIterable<ReadBatch>, signal: AbortSignal) {
    const connection = connections++;
    for await (const batch of batches) {
      if (connection < deafBelow) await aborted(signal);
      if (slowMs > 0) await clock.sleep(slowMs, signal).catch(() => {});
      while (mended) await Promise.race([mended.promise, aborted(signal)]);
      if (signal.aborted) return;
      yield batch;
    }
  }
  const way: StreamStore = {
    ...store,
    stream(name) {
      const stream = store.stream(name);
      return {
        ...stream,
        async append(records, options) {
          if (slowMs > 0) await clock.sleep(slowMs, options?.signal);
          if (mended) throw refusal;
          return stream.append(records, options);
        },
        follow: (options) => arriving(stream.follow(options), options.signal),
      };
    },
  };
  return {
    store: way,
    deafen() {
      deafBelow = connections;
    },
    slow(ms: number) {
      slowMs = ms;
    },
    cut(answer = new MillraceError('transient', 'streams.unavailable', 'the way is cut')) {
      refusal = answer;
      mended ??= Promise.withResolvers<void>();
    },
    mend() {
      mended?.resolve();
      mended = undefined;
    },
  };
}
