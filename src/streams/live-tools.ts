/**
 * Which inboxes are served: a view of the stream `tools`. It is how receive, in whatever process, knows an
 * inbox from an unknown name, without knowing the runner.
 */
import { orAborted } from '../platform/abort.ts';
import type { Log } from '../platform/log.ts';
import { newestThat } from './newest-record.ts';
import { parseJsonRecord, streamNames, toolsStreamSchema } from './records.ts';
import type { ToolsRecord } from './records.ts';
import type { StreamRecord, StreamStore } from './stream-store.ts';

export interface LiveTools {
  /** The record of the live revision; waits for the first one there ever is. */
  live(signal: AbortSignal): Promise<ToolsRecord>;
  /** The same without waiting. */
  current(): ToolsRecord | undefined;
  /** Follows the stream until the signal is aborted. */
  run(signal: AbortSignal): Promise<void>;
}

/** The catch-all's name. */
export const DEFAULT_INBOX = 'default';

export function createLiveTools(deps: { store: StreamStore; log: Log }): LiveTools {
  const stream = deps.store.stream(streamNames.tools);
  let current: ToolsRecord | undefined;
  const caughtUp = Promise.withResolvers<void>();

  return {
    current: () => current,
    async live(signal) {
      await orAborted(caughtUp.promise, signal);
      return current!;
    },
    async run(signal) {
      const tail = await stream.tail(signal);
      current = (await newestThat(stream, { before: tail, signal }, liveOf)) ?? current;
      if (current) caughtUp.resolve();
      for await (const { records } of stream.follow({ fromSeqNum: tail, signal })) {
        for (const record of records) current = liveOf(record) ?? current;
        if (current) caughtUp.resolve();
      }
    },
  };
}

function liveOf(record: StreamRecord): ToolsRecord | undefined {
  const tools = parseJsonRecord(toolsStreamSchema, record);
  return tools.kind === 'tools' && tools.status === 'live' ? tools : undefined;
}
