/**
 * The stream store on S2: its cloud, or the self-hosted `s2 lite`. It keeps the contract of `stream-store.ts`
 * with plain requests only, so that nothing outlives `close` and the process can exit.
 *
 * `s2-requests.ts` bounds one, `s2-records.ts` sends those on records in the form of `s2-wire.ts`, `s2-errors.ts` says
 * what a failure means, `s2-provision.ts` sees to basin and retention, `s2-appending.ts` settles lost acknowledgements,
 * `s2-groups.ts` lets appends share requests, `s2-reading.ts` follows.
 */
import { S2 } from '@s2-dev/streamstore';
import type { S2EndpointsInit } from '@s2-dev/streamstore';
import type { Clock } from '../platform/clock.ts';
import { MillraceError, errorKind, hasCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import {
  assertBatch,
  assertFencingToken,
  assertSeqNum,
  assertSkip,
  assertStreamName,
} from './append-rules.ts';
import { createS2Appender } from './s2-appending.ts';
import type { S2Appender } from './s2-appending.ts';
import { createS2Provision } from './s2-provision.ts';
import { createS2Reader } from './s2-reading.ts';
import type { ReadingDeps } from './s2-reading.ts';
import { createS2Records } from './s2-records.ts';
import { createRequest } from './s2-requests.ts';
import { fenceCommand, trimCommand } from './s2-wire.ts';
import { limits } from './stream-store.ts';
import type { RetentionFor, Stream, StreamStore } from './stream-store.ts';

export interface S2StoreOptions {
  /** 8 to 48 of lowercase letters, digits and hyphens. */
  basin: string;
  accessToken: string;
  /** For `s2 lite`, such as `http://127.0.0.1:4443`; without them S2's cloud. */
  accountEndpoint?: string;
  basinEndpoint?: string;
  retentionFor: RetentionFor;
  /** Whether a basin that is missing may be created (default true). */
  createBasin?: boolean;
}

const BASIN_NAME = /^[a-z0-9][a-z0-9-]{6,46}[a-z0-9]$/u;

/**
 * Opens the store, also while S2 is out of reach: what could not be looked at now is looked at again with the
 * next append.
 * @throws MillraceError `streams.invalid_name`, `streams.no_basin` (invalid)
 */
export async function openS2Store(
  { clock, log }: { clock: Clock; log: Log },
  options: S2StoreOptions,
): Promise<StreamStore> {
  if (!BASIN_NAME.test(options.basin)) {
    throw new MillraceError('invalid', 'streams.invalid_name', `not a basin's name: ${options.basin}`, {
      hint: 'S2_BASIN has 8 to 48 lowercase letters, digits and hyphens, with no hyphen at either end.',
    });
  }
  const closing = new AbortController();
  const client = createClient(options);
  const basin = client.basin(options.basin);
  const request = createRequest(clock, closing.signal);
  const provision = createS2Provision(
    { client, basin, request, log },
    { retentionFor: options.retentionFor, createBasin: options.createBasin ?? true },
  );
  /** Where the store was out of reach at the start, the basin is seen to as soon as it is back, whoever comes first. */
  const inBasin: typeof request = async (details, work) => {
    await provision.ensureBasin();
    return request(details, work);
  };
  const { basin: name, accessToken } = options;
  const records = createS2Records({ basin: name, accessToken, endpoints: endpointsOf(options) });
  const reading = { records, request: inBasin, clock, log, closing: closing.signal };
  const appender = createS2Appender({ records, request: inBasin, provision, clock });
  try {
    await provision.ensureBasin();
  } catch (error) {
    // At a start a person is near, and what answers so may not be S2 at all.
    if (errorKind(error) !== 'transient' || hasCode(error, 'streams.refused')) throw error;
    log.warn({ basin: options.basin, error }, 'streams.basin_not_checked');
  }

  return {
    stream: (streamName) => createS2Stream({ ...reading, appender }, streamName),
    async list({ prefix, startAfter, limit = limits.batchRecords, signal }) {
      const capped = Math.max(1, Math.min(limit, limits.batchRecords));
      const range = { prefix, limit: capped, ...(startAfter !== undefined && { startAfter }) };
      const { streams, hasMore } = await inBasin({ signal }, (ended) =>
        basin.streams.list(range, { signal: ended }),
      );
      return { names: streams.filter((stream) => !stream.deletedAt).map((stream) => stream.name), hasMore };
    },
    async close() {
      closing.abort();
      await records.close();
    },
  };
}

function createClient(options: S2StoreOptions): S2 {
  return new S2({
    accessToken: options.accessToken,
    endpoints: endpointsOf(options),
    // Its retries would wait without a signal.
    retry: { maxAttempts: 1 },
  });
}

function endpointsOf({ accountEndpoint, basinEndpoint }: S2StoreOptions): S2EndpointsInit {
  return {
    ...(accountEndpoint !== undefined && { account: accountEndpoint }),
    ...(basinEndpoint !== undefined && { basin: basinEndpoint }),
  };
}

function createS2Stream(deps: ReadingDeps & { appender: S2Appender }, name: string): Stream {
  assertStreamName(name);
  const reader = createS2Reader(deps, name);
  const target = { name, reader };
  return {
    name,
    tail: reader.tail,
    async append(records, options) {
      assertBatch(records);
      return deps.appender.append(target, records, options);
    },
    async read({ fromSeqNum, maxRecords = limits.batchRecords, signal }) {
      assertSeqNum(fromSeqNum);
      const capped = Math.max(1, Math.min(maxRecords, limits.batchRecords));
      return reader.read({ fromSeqNum, maxRecords: capped, waitSecs: 0, signal });
    },
    follow(options) {
      assertSeqNum(options.fromSeqNum);
      return reader.follow(options);
    },
    async trim(beforeSeqNum, options) {
      assertSeqNum(beforeSeqNum);
      await deps.appender.commands(target, [trimCommand(beforeSeqNum)], options);
    },
    async skip(numbers, options) {
      assertSkip(numbers);
      // To trim below 0 is to trim nothing.
      const command = trimCommand(0, options?.timestampMs);
      await deps.appender.commands(
        target,
        Array.from({ length: numbers }, () => command),
        options,
      );
    },
    async fence(token, options) {
      assertFencingToken(token);
      return (await deps.appender.commands(target, [fenceCommand(token)], options)).endSeqNum;
    },
  };
}
