/**
 * `context.random`: numbers that look random and are the same when the run is repeated, because they come from a
 * seed that belongs to the email. The generator is sfc32 (PractRand).
 */
/** Until every bit of the seed has reached every number. */
const MIXING_ROUNDS = 12;

export function createRandom(seed: string): () => number {
  const part = (start: number): number => parseInt(seed.slice(start, start + 8), 16) | 0;
  let [a, b, c, d] = [part(0), part(8), part(16), part(24)];
  const next = (): number => {
    const sum = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let round = 0; round < MIXING_ROUNDS; round++) next();
  return next;
}
