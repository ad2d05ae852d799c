/**
 * One process of the simulation: a clock and a network of its own, which can be cut off. A process that is
 * killed gets no answer and no timer any more, so its promises stand where they are for ever: that is a crash
 * at whichever await they had reached. A paused one gets all of it later: that is a zombie.
 */
import type { Clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import type { Network, RequestKind } from './simulated-store.ts';
import type { World } from './world.ts';

/** How the far ends behave; changed while the simulation runs. */
export interface Weather {
  /** Probability that a request fails or loses its answer. */
  faultRate: number;
  /** Probability that an answer takes seconds. */
  slowRate: number;
  isStoreDown: boolean;
  /** How far the machine's wall clock is off. */
  wallOffsetMs: number;
}

export interface DaemonProcess {
  readonly name: string;
  readonly clock: Clock;
  readonly network: Network;
  readonly isAlive: () => boolean;
  readonly isPaused: () => boolean;
  kill(): void;
  pause(): void;
  resume(): void;
}

type Fate = 'answered' | 'refused' | 'answer-lost' | 'request-lost' | 'late';

export function createDaemonProcess(world: World, weather: Weather, name: string): DaemonProcess {
  let state: 'running' | 'paused' | 'dead' = 'running';
  /** A kill loses what was on its way, or lets it arrive. */
  let losesRequests = false;
  let withheld: (() => void)[] = [];
  const bornMs = world.nowMs();

  /** Runs inside the process, as soon as it runs at all. */
  function inside(happen: () => void): void {
    if (state === 'paused') withheld.push(happen);
    else if (state === 'running') happen();
  }

  function after(ms: number, happen: () => void): () => void {
    let isOpen = true;
    const cancel = world.after(ms, () =>
      inside(() => {
        if (isOpen) happen();
      }),
    );
    return () => {
      isOpen = false;
      cancel();
    };
  }

  function sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = (): void => {
        cancel();
        reject(signal?.reason);
      };
      const cancel = after(ms, () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  const latencyMs = (): number =>
    world.chance(weather.slowRate) ? world.int(world.pick([500, 5_000, 30_000])) : 1 + world.int(10);

  function request<T>(kind: RequestKind, effect: () => T, signal?: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = (): void => reject(signal?.reason);
      signal?.addEventListener('abort', onAbort, { once: true });
      const answer = (ms: number, give: () => void): void => {
        world.after(ms, () =>
          inside(() => {
            signal?.removeEventListener('abort', onAbort);
            give();
          }),
        );
      };
      const happen = (): void => {
        if (state === 'dead' && losesRequests) return;
        try {
          const result = effect();
          if (fate === 'answered') answer(latencyMs(), () => resolve(result));
        } catch (error) {
          if (fate === 'answered') answer(latencyMs(), () => reject(error));
        }
      };
      const fate = drawFate(kind);
      if (fate !== 'answered') world.trace(`${name} ${kind} ${fate}`);
      if (fate === 'answered' || fate === 'answer-lost') world.after(latencyMs(), happen);
      if (fate === 'late') world.after(world.int(30_000), happen);
      if (fate !== 'answered') answer(latencyMs() * 2, () => reject(faultOf(kind, fate)));
    });
  }

  function drawFate(kind: RequestKind): Fate {
    const isStore = kind !== 'send' && kind !== 'fetch';
    const isDown = isStore && weather.isStoreDown;
    if (!isDown && !world.chance(weather.faultRate)) return 'answered';
    // Nearly all writes with a condition are told apart by the store itself; after half a minute it gives up.
    if (kind === 'write' || kind === 'send' || (kind === 'conditional-write' && world.chance(0.3)))
      return world.pick(['refused', 'answer-lost', 'request-lost', 'late']);
    return 'refused';
  }

  return {
    name,
    isAlive: () => state !== 'dead',
    isPaused: () => state === 'paused',
    clock: {
      nowMs: () => world.nowMs() + weather.wallOffsetMs,
      monotonicMs: () => world.nowMs() - bornMs,
      random: world.random,
      uuid: world.uuid,
      after,
      sleep,
    },
    network: {
      request,
      wait: (subscribe, signal) =>
        new Promise((resolve) => {
          const unsubscribe = subscribe(() => after(world.chance(0.05) ? 10_000 : 1, resolve));
          signal.addEventListener(
            'abort',
            () => {
              unsubscribe();
              resolve();
            },
            { once: true },
          );
        }),
      pause: (signal) => sleep(1_000, signal).catch(() => undefined),
      batchRecords: () => world.pick([1, 3, 10, 1000]),
    },
    kill() {
      state = 'dead';
      withheld = [];
      losesRequests = world.chance(0.5);
    },
    pause() {
      state = 'paused';
    },
    resume() {
      if (state !== 'paused') return;
      state = 'running';
      const due = withheld;
      withheld = [];
      // Each in an event of its own, as the loop of a real process would take them.
      for (const happen of due) world.after(0, () => inside(happen));
    },
  };
}

function faultOf(kind: RequestKind, fate: Fate): MillraceError {
  if (kind === 'fetch') return new MillraceError('transient', 'resend.unavailable', 'simulated');
  if (kind === 'send')
    return fate === 'refused'
      ? new MillraceError('transient', 'resend.rate_limited', 'simulated', { retryAfterMs: 1_000 })
      : new MillraceError('transient', 'resend.outcome_unknown', 'simulated');
  return fate === 'refused'
    ? new MillraceError('transient', 'streams.unavailable', 'simulated')
    : new MillraceError('transient', 'streams.append_ambiguous', 'simulated');
}
