/**
 * The keys that a stage has settled within its horizon: what makes "nothing twice" survive a restart.
 *
 * The horizon counts the stage's own running time, not the calendar: a daemon that was off for a week has
 * forgotten nothing. Keys are kept as 96 bits of their SHA-256. For recovery they are saved in segments:
 * each checkpoint saves the keys since the one before; small segments are merged into larger ones, and a
 * segment whose keys are all beyond the horizon is no longer named. So a recovery reads a bounded number of
 * records, whatever the length of the history.
 */
import { createHash } from 'node:crypto';
import { FingerprintTable } from './fingerprint-table.ts';
import type { Fingerprint } from './fingerprint-table.ts';

const FINGERPRINT_CHARS = 16;

export function fingerprint(key: string): Fingerprint {
  return createHash('sha256').update(key).digest('base64url').slice(0, FINGERPRINT_CHARS);
}

/** A saved segment: where on the journal, and the running time at which its newest key was settled. */
export interface KeySegment {
  readonly seqNum: number;
  readonly newestMs: number;
  readonly count: number;
}

/** Keys to be saved as one segment: their fingerprints, one after the other. */
export interface UnsavedKeys {
  readonly fingerprints: string;
  readonly newestMs: number;
  readonly count: number;
}

/** Small segments are merged when so many have gathered: 32 times about a thousand keys of 16 bytes is half a record. */
const MERGE_SEGMENTS = 32;
const MERGED_KEYS = 40_000;

export class SettledKeys {
  readonly #settled = new FingerprintTable();
  readonly #horizonMs: number;
  #unsaved: Fingerprint[] = [];
  #merged: KeySegment[] = [];
  /** The small segments keep their keys at hand for the merge. */
  #small: { segment: KeySegment; fingerprints: string }[] = [];

  constructor(horizonMs: number) {
    this.#horizonMs = horizonMs;
  }

  get size(): number {
    return this.#settled.size;
  }

  has(key: Fingerprint): boolean {
    return this.#settled.has(key);
  }

  /** Remembers a key as settled at this running time. */
  add(key: Fingerprint, runningMs: number): void {
    if (this.#settled.add(key, wholeSeconds(runningMs))) this.#unsaved.push(key);
  }

  /** Forgets what was settled longer ago than the horizon. */
  expire(runningMs: number): void {
    const oldestMs = runningMs - this.#horizonMs;
    this.#settled.expire(Math.max(0, oldestMs / 1000));
    this.#merged = this.#merged.filter((segment) => segment.newestMs >= oldestMs);
    this.#small = this.#small.filter(({ segment }) => segment.newestMs >= oldestMs);
  }

  /**
   * The keys that the next checkpoint saves, as segments that fit into a record each: those since the last
   * one, merged with small segments when there are many.
   */
  takeUnsaved(runningMs: number): UnsavedKeys[] {
    if (this.#unsaved.length === 0) return [];
    let all = this.#unsaved.join('');
    this.#unsaved = [];
    const smallKeys = this.#small.reduce((sum, { segment }) => sum + segment.count, 0);
    if (this.#small.length >= MERGE_SEGMENTS || smallKeys >= MERGED_KEYS / 2) {
      all = this.#small.map((small) => small.fingerprints).join('') + all;
      this.#small = [];
    }
    const chars = MERGED_KEYS * FINGERPRINT_CHARS;
    return Array.from({ length: Math.ceil(all.length / chars) }, (_, i) => {
      const fingerprints = all.slice(i * chars, (i + 1) * chars);
      return { fingerprints, newestMs: runningMs, count: fingerprints.length / FINGERPRINT_CHARS };
    });
  }

  /** Notes where the journal keeps what `takeUnsaved` gave. */
  saved(keys: UnsavedKeys, seqNum: number): void {
    const segment = { seqNum, newestMs: keys.newestMs, count: keys.count };
    if (keys.count >= MERGED_KEYS / 2) this.#merged.push(segment);
    else this.#small.push({ segment, fingerprints: keys.fingerprints });
  }

  /** The segments that a checkpoint names, oldest first. */
  segments(): KeySegment[] {
    return [...this.#merged, ...this.#small.map(({ segment }) => segment)].sort(
      (a, b) => a.newestMs - b.newestMs,
    );
  }

  /** Takes over a saved segment at recovery; call in the order of `segments()`. */
  restore(segment: KeySegment, fingerprints: string): void {
    for (let i = 0; i < fingerprints.length; i += FINGERPRINT_CHARS) {
      this.#settled.add(fingerprints.slice(i, i + FINGERPRINT_CHARS), wholeSeconds(segment.newestMs));
    }
    this.saved({ fingerprints, newestMs: segment.newestMs, count: segment.count }, segment.seqNum);
  }
}

/** Rounded up: a key may be remembered a second longer, never shorter. */
function wholeSeconds(runningMs: number): number {
  return Math.ceil(runningMs / 1000);
}
