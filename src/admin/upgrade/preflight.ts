/**
 * `millrace preflight`: would this release work here? It reads the configuration and the secrets as the daemon does,
 * loads all of the daemon's code, and looks at the streams without writing to them. An upgrade has the new release
 * asked before it is switched to, and a rollback the old one.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { Clock } from '../../platform/clock.ts';
import { loadConfig } from '../../platform/config.ts';
import type { Config, Secrets } from '../../platform/config.ts';
import { MillraceError } from '../../platform/errors.ts';
import { createDeadline } from '../../platform/deadline.ts';
import type { Log } from '../../platform/log.ts';
import { release } from '../../platform/release.ts';
import { openConfiguredStoreToRead } from '../../streams/configured-store.ts';
import { assertReadable } from '../../streams/format.ts';
import { streamFormat } from '../../streams/record-versions.ts';

/** What a release says of itself; an older one must be able to read it. */
export const preflightSchema = z.object({
  release: z.string(),
  /** Formats of the streams that it reads, and that it writes. */
  format: z.object({ reads: z.number(), writes: z.number() }),
  /** Where its daemon answers, on this machine. */
  healthUrls: z.array(z.string()),
});
export type Preflight = z.infer<typeof preflightSchema>;

const STREAMS_TIMEOUT_MS = 60_000;

/**
 * @param loadDaemon imports what the daemon is made of, and throws what that throws
 * @throws MillraceError `config.invalid`, `streams.newer_format` … (invalid), or what keeps it from the streams
 */
export async function preflight(
  { clock, log }: { clock: Clock; log: Log },
  loadDaemon: () => Promise<unknown>,
): Promise<Preflight> {
  const { config, secrets } = loadConfig();
  await loadDaemon();
  using deadline = createDeadline(clock, STREAMS_TIMEOUT_MS);
  await lookAtStreams({ config, secrets, clock, log }, deadline.signal);
  return { release, format: { ...streamFormat }, healthUrls: healthUrlsOf(config) };
}

async function lookAtStreams(
  deps: { config: Config; secrets: Secrets; clock: Clock; log: Log },
  signal: AbortSignal,
): Promise<void> {
  const { streams, dataDir } = deps.config;
  // A daemon that has never run has no streams yet.
  if (streams.kind === 'local' && !existsSync(join(dataDir, 'streams.db'))) return;
  const store = await openConfiguredStoreToRead(deps);
  try {
    await assertReadable(store, signal);
  } catch (error) {
    if (error instanceof MillraceError || !signal.aborted) throw error;
    const message = 'the streams do not answer';
    throw new MillraceError('transient', 'streams.unavailable', message, { cause: error });
  } finally {
    await store.close();
  }
}

/** A process that listens on all addresses answers on loopback. */
function healthUrlsOf({ host, port }: Config): string[] {
  const reached = ['0.0.0.0', '::', '[::]'].includes(host) ? '127.0.0.1' : host;
  const name = reached.includes(':') ? `[${reached}]` : reached;
  return port === 0 ? [] : [`http://${name}:${port}`];
}
