/**
 * The DNS lookups that tell whether a sender is proven. Strangers name what is looked up, and their DNS may be silent:
 *
 * - a caller, which may hold a place of others, waits for `patienceMs`; the lookup goes on without it;
 * - what was found, or that nothing could be, is kept for a while by name, so that much mail costs few lookups. By name
 *   and not by domain: whoever finds one name below somebody else's domain that fails must not hide the others;
 * - only so many names of a domain are under way at once, and one that has failed has no more than one caller.
 */
import { Resolver } from 'node:dns/promises';
import type { TextRecords } from '../mail/authentication.ts';
import type { Clock } from '../platform/clock.ts';

/** The TXT records of a name, none where there are none. Rejects where nobody could tell. */
export type LookUpText = (name: string) => Promise<string[]>;

const NO_RECORDS = new Set(['ENOTFOUND', 'ENODATA', 'EBADNAME']);
const LOOK_UP_TIMEOUT_MS = 2_000;
const LOOK_UP_TRIES = 2;

const limits = {
  patienceMs: 1_000,
  foundMs: 60_000,
  /** After a failure; twice as long after each that follows it, up to the second. */
  failedMs: 1_000,
  maxFailedMs: 60_000,
  keptNames: 10_000,
  underWay: 2_000,
  underWayOfDomain: 4,
} as const;

interface Kept {
  readonly records: TextRecords;
  readonly untilMs: number;
  /** In a row. */
  readonly failures: number;
}

/** @param servers addresses of DNS servers; none: the system's */
export function createTextLookup(servers: readonly string[]): LookUpText {
  const resolver = new Resolver({ timeout: LOOK_UP_TIMEOUT_MS, tries: LOOK_UP_TRIES });
  if (servers.length > 0) resolver.setServers(servers);
  return async (name) => {
    try {
      const records = await resolver.resolveTxt(name);
      return records.map((parts) => parts.join(''));
    } catch (error) {
      if (NO_RECORDS.has((error as NodeJS.ErrnoException).code ?? '')) return [];
      throw error;
    }
  };
}

export function createSparingLookup(deps: {
  clock: Clock;
  lookUp: LookUpText;
}): (name: string) => Promise<TextRecords> {
  const { clock, lookUp } = deps;
  const kept = new Map<string, Kept>();
  /** What a caller gets of each name that is under way. */
  const underWay = new Map<string, Promise<TextRecords>>();

  function keep(name: string, records: TextRecords): void {
    const failures = records === 'failed' ? (kept.get(name)?.failures ?? 0) + 1 : 0;
    const failedMs = Math.min(limits.maxFailedMs, limits.failedMs * 2 ** Math.min(failures - 1, 40));
    const forMs = failures > 0 ? failedMs : limits.foundMs;
    kept.delete(name);
    kept.set(name, { records, failures, untilMs: clock.monotonicMs() + forMs });
    if (kept.size > limits.keptNames) kept.delete(kept.keys().next().value!);
  }

  async function begin(name: string): Promise<TextRecords> {
    const answer = lookUp(name).catch((): TextRecords => 'failed');
    const impatient = Promise.withResolvers<TextRecords>();
    const stopWaiting = clock.after(limits.patienceMs, () => impatient.resolve('failed'));
    const finished = answer.then((records) => {
      stopWaiting();
      underWay.delete(name);
      keep(name, records);
      return records;
    });
    return Promise.race([finished, impatient.promise]);
  }

  function hasRoom(name: string): boolean {
    const domain = domainOf(name);
    const ofDomain = [...underWay.keys()].filter((other) => domainOf(other) === domain).length;
    return underWay.size < limits.underWay && ofDomain < limits.underWayOfDomain;
  }

  return async (name) => {
    const before = kept.get(name);
    if (before && clock.monotonicMs() < before.untilMs) return before.records;
    const other = underWay.get(name);
    if (other) return before?.records === 'failed' ? 'failed' : other;
    if (!hasRoom(name)) return 'failed';
    const answer = begin(name);
    underWay.set(name, answer);
    return answer;
  };
}

/** Of a key, or of a policy. */
function domainOf(name: string): string {
  return name.replace(/^(?:.*\._domainkey|_dmarc)\./, '');
}
