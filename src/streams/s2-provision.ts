/**
 * Makes sure that what is appended to is there, and is kept as long as it should be: S2 keeps records for only
 * 7 days where nobody says otherwise.
 *
 * - The basin is looked for once, and created where it is missing and we may: as one in which an append makes
 *   the stream that it needs.
 * - A stream is created with its retention before the first append of this process, or, where it exists with
 *   another retention, reconfigured. Everything else about it (storage class, timestamps) is the basin's default
 *   or the operator's choice, and is left alone.
 * - An append that is the first of its stream by its own condition brings the retention along and makes the
 *   stream. In a basin in which it does not, streams are created beforehand from then on.
 */
import type { RetentionPolicy, S2, S2Basin } from '@s2-dev/streamstore';
import { MillraceError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { isAlreadyThere, isBasinNotFound } from './s2-errors.ts';
import type { Request } from './s2-requests.ts';
import type { Retention, RetentionFor } from './stream-store.ts';

/** Streams whose retention is known to be right; with more, the oldest are looked at again when appended to. */
const MAX_KNOWN_STREAMS = 10_000;

/** Should a server not heed what an append says of a new stream, its records stay for ever rather than for 7 days. */
const newBasinConfig = {
  createStreamOnAppend: true,
  defaultStreamConfig: { retentionPolicy: { infinite: {} } },
} as const;

export interface S2Provision {
  /** @throws MillraceError `streams.no_basin` (invalid) where it is missing and not to be created */
  ensureBasin(): Promise<void>;
  ensureStream(name: string): Promise<void>;
  /** The stream turned out not to be there after all. */
  forgetStream(name: string): void;
  /** What a first append is to make this stream with; undefined where it must be there beforehand. */
  madeByFirstAppend(name: string): Retention | undefined;
  /** An append turned out not to make the stream that it needs. */
  makeStreamsBeforehand(): void;
}

interface ProvisionDeps {
  client: S2;
  basin: S2Basin;
  request: Request;
  log: Log;
}

export function createS2Provision(
  { client, basin, request, log }: ProvisionDeps,
  options: { retentionFor: RetentionFor; createBasin: boolean },
): S2Provision {
  const known = new Map<string, Promise<void>>();
  let isBasinThere = false;
  let doAppendsMakeStreams = true;

  async function ensureBasin(): Promise<void> {
    if (isBasinThere) return;
    const isMissing = await request({}, async (signal) => {
      const found = await outcomeOf(basin.streams.list({ limit: 1 }, { signal }), isBasinNotFound);
      return found === undefined;
    });
    if (isMissing) await createBasin();
    isBasinThere = true;
  }

  async function createBasin(): Promise<void> {
    if (!options.createBasin) {
      throw new MillraceError('invalid', 'streams.no_basin', `there is no basin ${basin.name}`, {
        hint: `Create it (s2 create-basin ${basin.name}) or correct S2_BASIN.`,
      });
    }
    await request({}, (signal) =>
      outcomeOf(
        client.basins.create({ basin: basin.name, config: newBasinConfig }, { signal }),
        isAlreadyThere,
      ),
    );
    log.info({ basin: basin.name }, 'streams.basin_created');
  }

  async function provisionStream(name: string): Promise<void> {
    await ensureBasin();
    const retentionPolicy = policyOf(options.retentionFor(name));
    const created = await request({}, (signal) =>
      outcomeOf(
        basin.streams.create({ stream: name, config: { retentionPolicy } }, { signal }),
        isAlreadyThere,
      ),
    );
    if (created) return;
    const { retentionPolicy: current } = await request({}, (signal) =>
      basin.streams.getConfig({ stream: name }, { signal }),
    );
    if (isSamePolicy(current, retentionPolicy)) return;
    await request({}, (signal) => basin.streams.reconfigure({ stream: name, retentionPolicy }, { signal }));
    log.info({ stream: name, before: current, after: retentionPolicy }, 'streams.retention_changed');
  }

  return {
    ensureBasin,
    ensureStream(name) {
      const earlier = known.get(name);
      if (earlier) return earlier;
      const [oldest] = known.keys();
      if (oldest !== undefined && known.size >= MAX_KNOWN_STREAMS) known.delete(oldest);
      const provisioned = provisionStream(name).catch((error: unknown) => {
        known.delete(name);
        throw error;
      });
      known.set(name, provisioned);
      return provisioned;
    },
    forgetStream(name) {
      known.delete(name);
    },
    madeByFirstAppend: (name) =>
      doAppendsMakeStreams && !known.has(name) ? options.retentionFor(name) : undefined,
    makeStreamsBeforehand() {
      doAppendsMakeStreams = false;
    },
  };
}

/** What the promise resolves to; undefined for an error that is expected. */
async function outcomeOf<T>(
  promise: Promise<T>,
  isExpected: (error: unknown) => boolean,
): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (isExpected(error)) return undefined;
    throw error;
  }
}

function policyOf(retention: Retention): RetentionPolicy {
  return retention === 'forever' ? { infinite: {} } : { ageSecs: retention };
}

function isSamePolicy(a: RetentionPolicy | null | undefined, b: RetentionPolicy): boolean {
  if (!a) return false;
  if ('ageSecs' in a && 'ageSecs' in b) return a.ageSecs === b.ageSecs;
  return 'infinite' in a && 'infinite' in b;
}
