/** The store that the configuration names: for the daemon, which writes, and for commands that look at its streams. */
import type { Clock } from '../platform/clock.ts';
import type { Config, Secrets } from '../platform/config.ts';
import type { Log } from '../platform/log.ts';
import { openLocalStore, openLocalStoreReadOnly } from './local-store.ts';
import { isOfOneMail, retentionFor } from './records.ts';
import type { StreamStore } from './stream-store.ts';

export interface StoreDeps {
  config: Config;
  secrets: Pick<Secrets, 's2AccessToken'>;
  clock: Clock;
  log: Log;
}

/** @throws what `openLocalStore` and `openS2Store` throw */
export function openConfiguredStore(deps: StoreDeps): Promise<StreamStore> {
  const { config, clock, log } = deps;
  if (config.streams.kind === 's2') return openS2(deps, { createBasin: true });
  const options = { directory: config.dataDir, retentionFor: retentionFor(config.retentionDays) };
  return openLocalStore({ clock, log }, { ...options, endsWithItsRecords: isOfOneMail });
}

/**
 * Beside a daemon that runs: on `local` nothing can be written; on S2 the basin is not created.
 * @throws what `openLocalStoreReadOnly` and `openS2Store` throw
 */
export function openConfiguredStoreToRead(deps: StoreDeps): Promise<StreamStore> {
  const { config, clock } = deps;
  if (config.streams.kind === 's2') return openS2(deps, { createBasin: false });
  return openLocalStoreReadOnly({ clock }, { directory: config.dataDir });
}

async function openS2({ config, secrets, clock, log }: StoreDeps, options: { createBasin: boolean }) {
  if (config.streams.kind !== 's2') throw new TypeError('not on S2');
  // Loaded where it is used: its SDK would be a few MB of every daemon.
  const { openS2Store } = await import('./s2-store.ts');
  const { basin, accountEndpoint, basinEndpoint } = config.streams;
  return openS2Store(
    { clock, log },
    {
      ...options,
      basin,
      accessToken: secrets.s2AccessToken!.reveal(),
      ...(accountEndpoint === null ? {} : { accountEndpoint }),
      ...(basinEndpoint === null ? {} : { basinEndpoint }),
      retentionFor: retentionFor(config.retentionDays),
    },
  );
}
