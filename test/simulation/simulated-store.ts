/**
 * A `StreamStore` as one process sees it: durable streams at the far end of a network. The network decides
 * when a request has its effect, when and whether the answer comes, and which error comes in its place.
 */
import { MillraceError, errorKind } from '../../src/platform/errors.ts';
import {
  assertBatch,
  assertFencingToken,
  assertSeqNum,
  assertSkip,
  assertStreamName,
} from '../../src/streams/append-rules.ts';
import { limits } from '../../src/streams/stream-store.ts';
import type { AppendOptions, Stream, StreamStore } from '../../src/streams/stream-store.ts';
import type { DurableStreams, Write } from './durable-streams.ts';

/** What can be asked of the other side; a `write` without a condition may happen twice when it is repeated. */
export type RequestKind = 'read' | 'write' | 'conditional-write' | 'send' | 'fetch';

export interface Network {
  /** Lets `effect` happen at the other side, and answers with what it returned or threw, or with a fault. */
  request<T>(kind: RequestKind, effect: () => T, signal?: AbortSignal): Promise<T>;
  /** Resolves some time after `subscribe` has called back, or when the signal is aborted. */
  wait(subscribe: (wake: () => void) => () => void, signal: AbortSignal): Promise<void>;
  /** A moment, before a follower looks again. */
  pause(signal: AbortSignal): Promise<void>;
  /** How many records an answer to a follower holds at most. */
  batchRecords(): number;
}

export function createSimulatedStore(durable: DurableStreams, network: Network): StreamStore {
  const closing = new AbortController();

  function assertOpen(): void {
    if (closing.signal.aborted)
      throw new MillraceError('transient', 'streams.unavailable', 'the store is closed');
  }

  async function write(name: string, content: Write, options: AppendOptions = {}) {
    const { signal, ...conditions } = options;
    signal?.throwIfAborted();
    assertOpen();
    const kind = conditions.matchSeqNum === undefined ? 'write' : 'conditional-write';
    return network.request(kind, () => durable.write(name, content, conditions), signal);
  }

  function createStream(name: string): Stream {
    assertStreamName(name);
    return {
      name,
      async append(records, options) {
        assertBatch(records);
        return write(name, { records }, options);
      },
      async tail(signal) {
        assertOpen();
        return network.request('read', () => durable.tail(name), signal);
      },
      async read({ fromSeqNum, maxRecords = limits.batchRecords, signal }) {
        assertSeqNum(fromSeqNum);
        assertOpen();
        const max = Math.max(1, Math.min(maxRecords, limits.batchRecords));
        return network.request('read', () => durable.read(name, fromSeqNum, max), signal);
      },
      async *follow({ fromSeqNum, signal }) {
        assertSeqNum(fromSeqNum);
        const ended = AbortSignal.any([signal, closing.signal]);
        for (let next = fromSeqNum; !ended.aborted;) {
          const from = next;
          const read = () => durable.read(name, from, network.batchRecords());
          const batch = await network.request('read', read, ended).catch((error: unknown) => {
            if (ended.aborted || errorKind(error) === 'transient') return undefined;
            throw error;
          });
          if (!batch) {
            await network.pause(ended);
            continue;
          }
          next = batch.nextSeqNum;
          if (batch.records.length > 0 || batch.missing) yield batch;
          else if (durable.tail(name) <= next)
            await network.wait((wake) => durable.onWrite(name, wake), ended);
        }
      },
      async trim(beforeSeqNum, options) {
        assertSeqNum(beforeSeqNum);
        await write(name, { trimBefore: beforeSeqNum }, options);
      },
      async skip(numbers, options) {
        assertSkip(numbers);
        await write(name, { skip: numbers }, options);
      },
      async fence(token, options) {
        assertFencingToken(token);
        return (await write(name, { fence: token }, options)).endSeqNum;
      },
    };
  }

  return {
    stream: createStream,
    async list({ prefix, startAfter, limit = limits.batchRecords, signal }) {
      assertOpen();
      const names = await network.request('read', () => durable.names(), signal);
      const fitting = names
        .filter((name) => name.startsWith(prefix))
        .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
        .filter(
          (name) =>
            startAfter === undefined || Buffer.compare(Buffer.from(name), Buffer.from(startAfter)) > 0,
        );
      const most = Math.max(1, Math.min(limit, limits.batchRecords));
      return { names: fitting.slice(0, most), hasMore: fitting.length > most };
    },
    async close() {
      closing.abort();
    },
  };
}
