/**
 * Fingerprints with the time at which each was settled, in the order of settlement, in 24 to 48 bytes each: a
 * `Map` of strings takes 140, and a busy stage remembers millions.
 *
 * Entries stand one after another in a ring, oldest first; an open-addressing table (linear probing, at most
 * half full) finds them by number. Only the oldest can be taken out.
 */
const WORDS = 3;
const MIN_CAPACITY = 1024;

/** 16 characters of base64url: 96 bits of a SHA-256, spread evenly. */
export type Fingerprint = string;

export class FingerprintTable {
  /** A power of two, as every length below. */
  #capacity = MIN_CAPACITY;
  #words = new Uint32Array(MIN_CAPACITY * WORDS);
  #seconds = new Uint32Array(MIN_CAPACITY);
  /** Place in the ring plus 1; 0 for none. */
  #slots = new Uint32Array(MIN_CAPACITY * 2);
  #oldest = 0;
  #size = 0;
  /** The words of the fingerprint that is asked for. */
  readonly #asked = new Uint32Array(WORDS);
  readonly #askedBytes = Buffer.from(this.#asked.buffer);

  get size(): number {
    return this.#size;
  }

  has(fingerprint: Fingerprint): boolean {
    return this.#slots[this.#slotOf(this.#wordsOf(fingerprint))] !== 0;
  }

  /** False where it is there already; then it keeps its time. */
  add(fingerprint: Fingerprint, atSeconds: number): boolean {
    if (this.#size === this.#capacity) this.#grow();
    const words = this.#wordsOf(fingerprint);
    const slot = this.#slotOf(words);
    if (this.#slots[slot] !== 0) return false;
    const place = (this.#oldest + this.#size) & (this.#capacity - 1);
    this.#words.set(words, place * WORDS);
    this.#seconds[place] = atSeconds;
    this.#slots[slot] = place + 1;
    this.#size += 1;
    return true;
  }

  /** Takes out the oldest, as long as they are older. */
  expire(beforeSeconds: number): void {
    while (this.#size > 0 && this.#seconds[this.#oldest]! < beforeSeconds) {
      const start = this.#oldest * WORDS;
      this.#free(this.#slotOf(this.#words.subarray(start, start + WORDS)));
      this.#oldest = (this.#oldest + 1) & (this.#capacity - 1);
      this.#size -= 1;
    }
  }

  #wordsOf(fingerprint: Fingerprint): Uint32Array {
    this.#askedBytes.write(fingerprint, 'base64url');
    return this.#asked;
  }

  /** The slot that holds these words, or the free one where they would go. */
  #slotOf(words: Uint32Array): number {
    const mask = this.#slots.length - 1;
    for (let slot = words[0]! & mask; ; slot = (slot + 1) & mask) {
      const place = this.#slots[slot]! - 1;
      if (place < 0) return slot;
      const at = place * WORDS;
      if (
        this.#words[at] === words[0] &&
        this.#words[at + 1] === words[1] &&
        this.#words[at + 2] === words[2]
      )
        return slot;
    }
  }

  /** Closes the gap, so that what was put behind for lack of room is still found. */
  #free(slot: number): void {
    const mask = this.#slots.length - 1;
    let gap = slot;
    for (let next = (gap + 1) & mask; this.#slots[next] !== 0; next = (next + 1) & mask) {
      const home = this.#words[(this.#slots[next]! - 1) * WORDS]! & mask;
      // It may move into the gap unless its home lies behind it.
      if (((next - home) & mask) >= ((next - gap) & mask)) {
        this.#slots[gap] = this.#slots[next]!;
        gap = next;
      }
    }
    this.#slots[gap] = 0;
  }

  #grow(): void {
    const capacity = this.#capacity * 2;
    const words = new Uint32Array(capacity * WORDS);
    const seconds = new Uint32Array(capacity);
    // The ring is full: it begins anew with its oldest.
    words.set(this.#words.subarray(this.#oldest * WORDS));
    words.set(this.#words.subarray(0, this.#oldest * WORDS), (this.#capacity - this.#oldest) * WORDS);
    seconds.set(this.#seconds.subarray(this.#oldest));
    seconds.set(this.#seconds.subarray(0, this.#oldest), this.#capacity - this.#oldest);
    [this.#words, this.#seconds, this.#capacity, this.#oldest] = [words, seconds, capacity, 0];
    this.#slots = new Uint32Array(capacity * 2);
    for (let place = 0; place < this.#size; place++) {
      const start = place * WORDS;
      this.#slots[this.#slotOf(words.subarray(start, start + WORDS))] = place + 1;
    }
  }
}
