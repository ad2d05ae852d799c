/**
 * One owner for each unit of work (`receive`, `outbox`, `runner/<inbox>`): a stage runs here while it is this
 * process's turn. Whoever offers a unit is a candidate; `assignment.ts` names the one whose turn it is.
 *
 * - *Handing over*: when the turn moves on, the stage drains, and its new owner waits until it is let go. A
 *   leaving process does the same with all it holds. So nothing is done twice, and what is idle moves at once.
 * - *Taking over*: what does not end in time is given up by its owner itself, and what a dead process held is
 *   taken. Should it be alive after all, the journal's fencing token makes it fail at its next commit.
 * - *Losing*: who finds a unit that it holds held by somebody else, too, gives it up on the spot and waits for its
 *   next turn, longer each time: two processes that disagree cannot take a unit from each other in quick turns.
 * - While this process is blind (`membership.ts`) nothing is taken, given up or committed: an append is refused
 *   as transient, and tried again by whoever wants it. So an owner that slept past its lease does not add
 *   outputs to what its successor does.
 *
 * On the local store one process holds everything: `createSoleOwnership` costs nothing.
 */
import { orAborted } from '../platform/abort.ts';
import type { Clock } from '../platform/clock.ts';
import { MillraceError, errorKind, hasCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { backoffMs } from '../platform/retry.ts';
import { ownerOf } from './assignment.ts';
import { membershipTiming } from './membership-pace.ts';
import type { Membership } from './membership.ts';
import type { Stream, StreamStore } from './stream-store.ts';

/** What exactly one process should be doing. */
export interface OwnedUnit {
  readonly name: string;
  /** Works on this store until the signal is aborted; called again at each turn. */
  work(store: StreamStore, signal: AbortSignal): Promise<void>;
}

export interface Ownership {
  /** Does the work whenever it is this process's turn, until the signal is aborted. */
  run(unit: OwnedUnit, signal: AbortSignal): Promise<void>;
}

/** After losing a unit, or a failure that may pass; doubled while that goes on. */
const LOSS_BACKOFF = { baseMs: 500, maxMs: 10_000 };
/** Who kept a unit for so long begins again with short waits. */
const STEADY_MS = 60_000;

export function createSoleOwnership(store: StreamStore): Ownership {
  return { run: (unit, signal) => unit.work(store, signal) };
}

export interface SharedOwnershipDeps {
  store: StreamStore;
  membership: Membership;
  clock: Clock;
  log: Log;
}

export function createSharedOwnership({ store, membership, clock, log }: SharedOwnershipDeps): Ownership {
  function isOurTurn(unit: string): boolean {
    if (!membership.isCurrent()) return false;
    const candidates = membership.members().filter(({ offers }) => offers.has(unit));
    const ids = candidates.map(({ id }) => id);
    return ownerOf(unit, ids) === membership.id;
  }

  const isHeldElsewhere = (unit: string): boolean =>
    membership.members().some(({ id, holds }) => id !== membership.id && holds.has(unit));

  /** Resolves when the unit is to be taken here, or the signal is aborted. */
  async function waitForTurn(unit: string, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && (!isOurTurn(unit) || isHeldElsewhere(unit))) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const unsubscribe = membership.onChange(resolve);
      await orAborted(promise, signal).catch(() => {});
      unsubscribe();
    }
  }

  /** Works until the turn moves on: true when the unit was handed over in order, false when it was lost. */
  async function workForATurn(unit: OwnedUnit, signal: AbortSignal): Promise<boolean> {
    const moved = new AbortController();
    const lost = new AbortController();
    const ended = AbortSignal.any([signal, moved.signal]);
    const lose = (): void => {
      lost.abort(ownershipLost(unit.name));
      moved.abort();
      // Not ours to claim, even while what is left of the work comes to its end.
      membership.holds.delete(unit.name);
    };
    const unsubscribe = membership.onChange(() => {
      if (!membership.isCurrent()) return;
      if (isHeldElsewhere(unit.name)) lose();
      else if (!isOurTurn(unit.name)) moved.abort();
    });
    let cancelLimit: (() => void) | undefined;
    const limit = (): void => {
      cancelLimit = clock.after(membershipTiming.leaveWithinMs, lose);
    };
    ended.addEventListener('abort', limit, { once: true });
    membership.holds.add(unit.name);
    log.info({ unit: unit.name }, 'ownership.taken');
    try {
      await unit.work(storeOfOwner(store, { membership, lost: lost.signal }), ended);
      log.info({ unit: unit.name }, 'ownership.released');
      return true;
    } catch (error) {
      const isOver = ended.aborted && error === ended.reason;
      if (!isOver && !lost.signal.aborted && !isLoss(error)) throw error;
      if (isOver && !lost.signal.aborted) return true;
      log[errorKind(error) === 'transient' ? 'warn' : 'info']({ unit: unit.name, error }, 'ownership.lost');
      return false;
    } finally {
      unsubscribe();
      // A turn that was lost is over before its signal is: that one lives as long as the process.
      ended.removeEventListener('abort', limit);
      cancelLimit?.();
      membership.holds.delete(unit.name);
    }
  }

  return {
    async run(unit, signal) {
      membership.offers.add(unit.name);
      try {
        for (let losses = 0; ;) {
          await waitForTurn(unit.name, signal);
          if (signal.aborted) return;
          const takenMs = clock.monotonicMs();
          const wasHandedOver = await workForATurn(unit, signal);
          if (signal.aborted) return;
          if (wasHandedOver || clock.monotonicMs() - takenMs > STEADY_MS) losses = 0;
          if (wasHandedOver) continue;
          await clock.sleep(backoffMs(++losses, LOSS_BACKOFF, clock.random), signal).catch(() => {});
        }
      } finally {
        membership.offers.delete(unit.name);
      }
    },
  };
}

/** Somebody else's turn, or a moment to try again; anything else is for the supervisor to decide. */
function isLoss(error: unknown): boolean {
  return hasCode(error, 'stage.ownership_lost') || errorKind(error) === 'transient';
}

function ownershipLost(unit: string): MillraceError {
  return new MillraceError('permanent', 'stage.ownership_lost', `another process took over ${unit}`);
}

/** The store as an owner may use it: appends only while it knows that it is the owner, and none once it is not. */
function storeOfOwner(
  store: StreamStore,
  { membership, lost }: { membership: Membership; lost: AbortSignal },
): StreamStore {
  async function asOwner<O extends { signal?: AbortSignal }, R>(
    options: O | undefined,
    send: (options: O | { signal: AbortSignal }) => Promise<R>,
  ): Promise<R> {
    lost.throwIfAborted();
    if (!membership.isCurrent()) {
      throw new MillraceError(
        'transient',
        'ownership.unknown',
        'this process is cut off from the others and does not know what it owns',
      );
    }
    const signal = options?.signal ? AbortSignal.any([options.signal, lost]) : lost;
    return send({ ...options, signal });
  }
  return {
    ...store,
    stream(name) {
      const stream: Stream = store.stream(name);
      return {
        ...stream,
        append: (records, options) => asOwner(options, (owned) => stream.append(records, owned)),
        trim: (beforeSeqNum, options) => asOwner(options, (owned) => stream.trim(beforeSeqNum, owned)),
        fence: (token, options) => asOwner(options, (owned) => stream.fence(token, owned)),
      };
    },
  };
}
