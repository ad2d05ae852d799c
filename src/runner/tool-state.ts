/**
 * The state that tools keep: one small document for an inbox, and one for each of its conversations. A document
 * is written whole, as a record of its own stream with a revision that counts up; the highest revision is what holds.
 *
 * It is committed together with the run: the record is an output of an outcome that is atomic (`stage.ts`), so
 * that either all of a run happens, state and mail, or it is run again as if it had not been. Why it is done so:
 * docs/adr/0011-state-of-tools.md.
 *
 * - A conversation's document needs no lock: its mails are handled one after another.
 * - An inbox's document does, because its mails run side by side. As soon as a run has touched it, the runs of
 *   this inbox take turns; those that were under way at that moment are run again if another one came first.
 * - What a run has committed the next one sees at once, although it may not be durable yet: the journal keeps
 *   their order, and if the first is lost, so is the second.
 *
 * One of these serves one inbox for one turn of its owner; the owner before us was fenced before we read.
 */
import { z } from 'zod';
import { orAborted } from '../platform/abort.ts';
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import { jsonRecord, parseJsonRecord, stateRecordSchema, streamNames } from '../streams/records.ts';
import type { Output } from '../streams/stage.ts';
import type { StreamStore } from '../streams/stream-store.ts';
import type { StateChanges, StateEntries, StateScope } from './sandbox/sandbox.ts';
import { stateLimits } from './sandbox/state-limits.ts';

/** How a run sees the state. */
export interface StateSession {
  /** The same each time. */
  read(scope: StateScope): Promise<StateEntries>;
  /**
   * The records that make these changes durable, none where there are no changes; null where another run came
   * first, and this one must be run again. What comes after it must be committed.
   * @throws MillraceError `state.too_large` (permanent)
   */
  commit(changes: StateChanges, signal: AbortSignal): Promise<Output[] | null>;
  /** Lets the next run have its turn. */
  end(): void;
}

export interface ToolState {
  /** Waits for its turn, where runs take turns. */
  begin(thread: string, signal: AbortSignal): Promise<StateSession>;
}

interface Document {
  readonly revision: number;
  readonly entries: StateEntries;
}

const NONE: Document = { revision: 0, entries: [] };
/** An owner that was overtaken can add old revisions behind newer ones, at most a commit full of them. */
const LOOK_BACK_RECORDS = 500;
/** So often old revisions of an inbox are let go of. */
const TRIM_EVERY = 500;

const entriesSchema = z
  .array(z.tuple([z.string().min(1).max(stateLimits.keyChars), z.unknown()]))
  .max(stateLimits.keys);

export function createToolState(
  { store, clock }: { store: StreamStore; clock: Clock },
  { inbox }: { inbox: string },
): ToolState {
  let ofInbox: Document | undefined;
  let takesTurns = false;
  let lastTurn: Promise<void> = Promise.resolve();

  async function load(name: string, signal: AbortSignal): Promise<Document> {
    const stream = store.stream(name);
    const tail = await stream.tail(signal);
    let newest = NONE;
    for (let next = Math.max(0, tail - LOOK_BACK_RECORDS); next < tail;) {
      const { records, nextSeqNum } = await stream.read({ fromSeqNum: next, signal });
      for (const record of records) {
        const found = parseJsonRecord(stateRecordSchema, record);
        if (found.revision > newest.revision) newest = found;
      }
      if (nextSeqNum === next) break;
      next = nextSeqNum;
    }
    return newest;
  }

  async function currentOf(scope: StateScope, thread: string, signal: AbortSignal): Promise<Document> {
    if (scope === 'thread') return load(streamNames.threadState(inbox, thread), signal);
    takesTurns = true;
    // Of two that load at once the second must not undo what the first has committed meanwhile.
    const loaded = ofInbox ?? (await load(streamNames.state(inbox), signal));
    return (ofInbox ??= loaded);
  }

  /** Resolves to how to end the turn. */
  async function turn(signal: AbortSignal): Promise<() => void> {
    if (!takesTurns) return () => {};
    const before = lastTurn;
    const { promise, resolve } = Promise.withResolvers<void>();
    lastTurn = before.then(() => promise);
    try {
      await orAborted(before, signal);
    } catch (error) {
      resolve();
      throw error;
    }
    return resolve;
  }

  async function trim(signal: AbortSignal): Promise<void> {
    const stream = store.stream(streamNames.state(inbox));
    const tail = await stream.tail(signal);
    await stream.trim(Math.max(0, tail - LOOK_BACK_RECORDS), { signal });
  }

  function output(scope: StateScope, thread: string, { revision, entries }: Document): Output {
    const at = new Date(clock.nowMs()).toISOString();
    const name = scope === 'inbox' ? streamNames.state(inbox) : streamNames.threadState(inbox, thread);
    return { stream: name, record: jsonRecord({ kind: 'state', version: 1, revision, entries, at }) };
  }

  return {
    async begin(thread, signal) {
      const end = await turn(signal);
      const seen = new Map<StateScope, Promise<Document>>();
      const look = (scope: StateScope): Promise<Document> => {
        const found = seen.get(scope) ?? currentOf(scope, thread, signal);
        seen.set(scope, found);
        return found;
      };
      return {
        end,
        read: async (scope) => (await look(scope)).entries,
        async commit(changes, signalOfCommit) {
          const next: [StateScope, Document][] = [];
          for (const scope of ['inbox', 'thread'] as const) {
            if (changes[scope] === undefined) continue;
            const entries = checkedEntries(changes[scope]);
            const { revision } = await look(scope);
            next.push([scope, { revision: revision + 1, entries }]);
          }
          const ours = next.find(([scope]) => scope === 'inbox')?.[1];
          if (ours && ours.revision % TRIM_EVERY === 0) await trim(signalOfCommit);
          // From here on nothing is awaited: what is compared now still holds when it is committed.
          if (ours && ours.revision !== ofInbox!.revision + 1) return null;
          if (ours) ofInbox = ours;
          return next.map(([scope, changed]) => output(scope, thread, changed));
        },
      };
    },
  };
}

/** The same limits as in the guest, which the host need not believe. */
function checkedEntries(entries: StateEntries): StateEntries {
  const parsed = entriesSchema.safeParse(entries);
  const bytes = Buffer.byteLength(JSON.stringify(entries));
  if (parsed.success && bytes <= stateLimits.bytes) return parsed.data;
  const { keys, bytes: most } = stateLimits;
  throw new MillraceError(
    'permanent',
    'state.too_large',
    `the state of a tool is more than ${most} bytes or ${keys} keys`,
    {
      hint: 'Keep less in it, then redrive this email.',
    },
  );
}
