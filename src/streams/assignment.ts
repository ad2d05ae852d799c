/**
 * Who does what: rendezvous hashing. Every process computes the same owner of a unit from the same candidates,
 * without asking anybody; when one comes or goes, only the units move that it gets or had.
 */
import { hash } from 'node:crypto';

/** The owner of `unit` among `candidates` (ids, in any order), or null where there is none. */
export function ownerOf(unit: string, candidates: Iterable<string>): string | null {
  let owner: string | null = null;
  let highest = '';
  for (const candidate of candidates) {
    const score = hash('sha256', `${candidate}\n${unit}`, 'hex');
    if (owner !== null && score <= highest) continue;
    owner = candidate;
    highest = score;
  }
  return owner;
}
