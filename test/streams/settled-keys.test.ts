/** Settled keys over many checkpoints: none is forgotten within the horizon, and each segment fits a record. */
import { describe, expect, it } from 'vitest';
import { SettledKeys, fingerprint } from '../../src/streams/settled-keys.ts';
import type { KeySegment } from '../../src/streams/settled-keys.ts';
import { limits } from '../../src/streams/stream-store.ts';

const HORIZON_MS = 1_000_000;

/** Saves as a journal would, into `journal`. */
function save(keys: SettledKeys, journal: string[], runningMs: number): void {
  keys.expire(runningMs);
  for (const unsaved of keys.takeUnsaved(runningMs)) {
    expect(unsaved.fingerprints.length).toBeLessThan(limits.batchBytes - 1_000);
    keys.saved(unsaved, journal.push(unsaved.fingerprints) - 1);
  }
}

function restore(segments: readonly KeySegment[], journal: readonly string[]): SettledKeys {
  const keys = new SettledKeys(HORIZON_MS);
  for (const segment of segments) keys.restore(segment, journal[segment.seqNum]!);
  return keys;
}

describe('settled keys', () => {
  it('remembers a key for the whole horizon', () => {
    const keys = new SettledKeys(HORIZON_MS);
    keys.add(fingerprint('a'), 1_400);
    keys.expire(1_400 + HORIZON_MS);
    expect(keys.has(fingerprint('a'))).toBe(true);
    keys.expire(1_400 + HORIZON_MS + 1_000);
    expect(keys.has(fingerprint('a'))).toBe(false);
  });

  // With much set aside there are many outcomes between two checkpoints: their keys outgrew one record.
  it('saves any number of keys in segments that fit into a record', () => {
    const journal: string[] = [];
    const keys = new SettledKeys(HORIZON_MS);
    for (const [round, count] of [100_000, 19_000, 70_000, 1].entries()) {
      for (let n = 0; n < count; n++) keys.add(fingerprint(`${round}/${n}`), round);
      save(keys, journal, round);
    }
    const restored = restore(keys.segments(), journal);
    expect(restored.size).toBe(189_001);
    expect(restored.has(fingerprint('0/99999'))).toBe(true);
    expect(restored.has(fingerprint('4/0'))).toBe(false);
  });

  it('names few segments, however many checkpoints there were, and forgets beyond the horizon', () => {
    const journal: string[] = [];
    const keys = new SettledKeys(HORIZON_MS);
    for (let round = 0; round < 150; round++) {
      for (let n = 0; n < 1_000; n++) keys.add(fingerprint(`${round}/${n}`), round * 20_000);
      save(keys, journal, round * 20_000);
    }
    expect(keys.size).toBe(51_000);
    expect(keys.segments().length).toBeLessThan(40);
    const restored = restore(keys.segments(), journal);
    // The segment at the edge of the horizon is still there as a whole.
    expect(restored.size).toBeLessThan(51_000 + 40_000);
    expect(restored.has(fingerprint('149/999'))).toBe(true);
    expect(restored.has(fingerprint('99/0'))).toBe(true);
    expect(restored.has(fingerprint('10/0'))).toBe(false);
  });
});
