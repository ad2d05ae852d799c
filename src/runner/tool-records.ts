/**
 * Writing on the stream `tools`: what became live, and what was refused, each once. A restart, another process
 * or the next look at the same thing adds no record; and of two writers at the same time the second looks again.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../platform/clock.ts';
import { errorKind, errorMessage, hasCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { jsonRecord, parseJsonRecord, streamNames, toolsStreamSchema } from '../streams/records.ts';
import type { ToolsRecord } from '../streams/records.ts';
import type { StreamStore } from '../streams/stream-store.ts';

type Commit = NonNullable<ToolsRecord['commit']>;

export interface ToolRecords {
  /** Resolves when it is durable; tries again for as long as the store is away. */
  live(
    fields: Pick<ToolsRecord, 'revision' | 'inboxes' | 'unreachable' | 'commit' | 'bundle' | 'builder'>,
    signal: AbortSignal,
  ): Promise<ToolsRecord>;
  refuse(error: unknown, commit: Commit | undefined, signal: AbortSignal): Promise<ToolsRecord>;
  /** Makes what a record says the newest again. */
  again(record: ToolsRecord, signal: AbortSignal): Promise<ToolsRecord>;
}

const RETRY_MS = 2_000;
const MAX_ERROR_CHARS = 20_000;
/** How far back the newest record is looked for behind mere requests. */
const LOOK_BACK_RECORDS = 200;

export function createToolRecords(deps: { store: StreamStore; clock: Clock; log: Log }): ToolRecords {
  const { store, clock, log } = deps;
  const stream = store.stream(streamNames.tools);

  async function record(
    fields: Omit<ToolsRecord, 'kind' | 'version' | 'at'>,
    signal: AbortSignal,
  ): Promise<ToolsRecord> {
    const at = new Date(clock.nowMs()).toISOString();
    const written: ToolsRecord = { kind: 'tools', version: 1, ...fields, at };
    for (;;) {
      try {
        const { newest, tail } = await newestRecord(signal);
        if (newest && isDeepStrictEqual({ ...newest, at }, written)) return newest;
        await stream.append([jsonRecord(written)], { matchSeqNum: tail, signal });
        return written;
      } catch (error) {
        signal.throwIfAborted();
        if (hasCode(error, 'streams.seq_num_mismatch')) continue;
        if (errorKind(error) !== 'transient') throw error;
        log.warn({ error }, 'tools.record_failed');
        await clock.sleep(RETRY_MS, signal);
      }
    }
  }

  async function newestRecord(signal: AbortSignal): Promise<{ newest?: ToolsRecord; tail: number }> {
    const tail = await stream.tail(signal);
    let newest: ToolsRecord | undefined;
    for (let fromSeqNum = Math.max(0, tail - LOOK_BACK_RECORDS); fromSeqNum < tail;) {
      const { records, nextSeqNum } = await stream.read({ fromSeqNum, signal });
      for (const stored of records) {
        const parsed = parseJsonRecord(toolsStreamSchema, stored);
        if (parsed.kind === 'tools') newest = parsed;
      }
      if (nextSeqNum <= fromSeqNum) break;
      fromSeqNum = nextSeqNum;
    }
    return { ...(newest && { newest }), tail };
  }

  return {
    live: (fields, signal) => record({ ...defined(fields), status: 'live', error: null }, signal),
    refuse(error, commit, signal) {
      log.error({ commit: commit?.id, error }, 'tools.refused');
      const message = errorMessage(error).slice(0, MAX_ERROR_CHARS);
      const fields = { revision: 'none', status: 'refused' as const, inboxes: [], error: message };
      const isTransient = errorKind(error) === 'transient';
      return record({ ...fields, ...(isTransient && { isTransient }), ...(commit && { commit }) }, signal);
    },
    again: ({ kind: _kind, version: _version, at: _at, ...fields }, signal) => record(fields, signal),
  };
}

/** Without what is undefined: JSON leaves it out, and equal records shall be equal. */
function defined<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}
