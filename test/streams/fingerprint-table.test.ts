/** The table against a plain `Map`, with fingerprints that crowd a few places of it. */
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { FingerprintTable } from '../../src/streams/fingerprint-table.ts';

const FINGERPRINTS = 4_000;

/** Their homes are every third place around the end of a table, of any size: some go to places before that. */
function crowded(n: number): string {
  const bytes = Buffer.alloc(12);
  bytes.writeInt32LE(3 * ((n % 400) - 200), 0);
  bytes.writeUInt32LE(n, 4);
  return bytes.toString('base64url');
}

const steps = fc.array(
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({ add: fc.nat(FINGERPRINTS - 1), count: fc.integer({ min: 1, max: 700 }) }),
    },
    { weight: 1, arbitrary: fc.record({ expire: fc.nat(6) }) },
  ),
  { minLength: 10, maxLength: 30, size: 'max' },
);

describe('the fingerprint table', () => {
  it('holds what a map would hold, in the same order, whatever comes and expires', () => {
    fc.assert(
      fc.property(steps, (all) => {
        const table = new FingerprintTable();
        const model = new Map<string, number>();
        for (const [seconds, step] of all.entries()) {
          if ('add' in step) {
            for (let n = 0; n < step.count; n++) {
              const fingerprint = crowded((step.add + 7 * n) % FINGERPRINTS);
              const isNew = !model.has(fingerprint);
              if (isNew) model.set(fingerprint, seconds);
              if (table.add(fingerprint, seconds) !== isNew) throw new Error(`add of ${fingerprint}`);
            }
          } else {
            table.expire(Math.max(0, seconds - step.expire));
            for (const [fingerprint, at] of model) if (at < seconds - step.expire) model.delete(fingerprint);
          }
          if (table.size !== model.size) throw new Error(`${table.size} in place of ${model.size}`);
        }
        for (let n = 0; n < FINGERPRINTS; n++)
          if (table.has(crowded(n)) !== model.has(crowded(n)))
            throw new Error(`${n} is not where it was put`);
      }),
      { numRuns: 30 },
    );
  });
});
