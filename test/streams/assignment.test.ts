/** Rendezvous hashing: everybody names the same owner, the load is spread, and little moves. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ownerOf } from '../../src/streams/assignment.ts';

const ids = fc.uniqueArray(fc.uuid(), { minLength: 1, maxLength: 12 });
const unitNames = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 20 }), { maxLength: 30 });

it('names the same owner in whatever order the candidates come, and one of them', () => {
  fc.assert(
    fc.property(fc.string(), ids, (unit, candidates) => {
      const owner = ownerOf(unit, candidates);
      expect(candidates).toContain(owner);
      expect(ownerOf(unit, candidates.toReversed())).toBe(owner);
    }),
  );
});

it('names nobody where there is nobody', () => {
  expect(ownerOf('receive', [])).toBeNull();
});

it('moves nothing but what a newcomer gets, and back again when it goes', () => {
  fc.assert(
    fc.property(unitNames, ids, fc.uuid(), (units, candidates, newcomer) => {
      for (const unit of units) {
        const after = ownerOf(unit, [...candidates, newcomer]);
        expect([newcomer, ownerOf(unit, candidates)]).toContain(after);
      }
    }),
  );
});

it.each([2, 3, 10])('gives each of %i about its share', (count) => {
  const candidates = Array.from({ length: count }, (_, i) => `member-${i}`);
  const shares = new Map(candidates.map((id) => [id, 0]));
  const units = 10_000;
  for (let i = 0; i < units; i++) {
    const owner = ownerOf(`runner/inbox-${i}`, candidates)!;
    shares.set(owner, shares.get(owner)! + 1);
  }
  for (const share of shares.values()) {
    expect(share).toBeGreaterThan((units / count) * 0.85);
    expect(share).toBeLessThan((units / count) * 1.15);
  }
});
