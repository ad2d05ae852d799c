/**
 * Which roles of a deployment nobody does: each process offers its roles to the others as it offers its stages.
 * A role that was there and is gone is missing at once; one that was never there, a minute after our own start,
 * which leaves the others time to come up.
 */
import type { Clock } from '../platform/clock.ts';
import type { Role } from '../platform/roles.ts';
import type { Membership } from './membership.ts';

export interface RolePresence {
  /** Empty while this process cannot know. */
  missing(): Role[];
}

/** Those that mail needs all the time. */
const NEEDED: readonly Role[] = ['ingest', 'runner', 'outbox'];
const START_UP_MS = 60_000;

const offerOf = (role: Role): string => `role/${role}`;

/** Makes the own roles known, and looks out for those of others. */
export function createRolePresence(
  { membership, clock }: { membership: Membership; clock: Clock },
  own: readonly Role[],
): RolePresence {
  const startedMs = clock.monotonicMs();
  const seen = new Set<Role>();
  const isThere = (role: Role): boolean =>
    membership.members().some(({ offers }) => offers.has(offerOf(role)));
  const look = (): void => {
    for (const role of NEEDED) if (isThere(role)) seen.add(role);
  };
  for (const role of own) membership.offers.add(offerOf(role));
  membership.onChange(look);
  return {
    missing() {
      if (!membership.isCurrent()) return [];
      look();
      const isOverdue = clock.monotonicMs() - startedMs > START_UP_MS;
      return NEEDED.filter((role) => !isThere(role) && (isOverdue || seen.has(role)));
    },
  };
}
