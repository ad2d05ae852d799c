/** How the lists of a checkpoint are written: in shares that fit into a record, and numbers as ranges. */

/** Of each list, in one part of a checkpoint. */
const SHARE_BYTES = 256 * 1024;

/** Consecutive shares of at most `SHARE_BYTES` as JSON. */
export function sharesOf<T>(values: readonly T[]): T[][] {
  const shares: T[][] = [];
  let bytes = SHARE_BYTES;
  for (const value of values) {
    const size = Buffer.byteLength(JSON.stringify(value)) + 1;
    if (bytes + size > SHARE_BYTES) {
      shares.push([]);
      bytes = 0;
    }
    shares.at(-1)!.push(value);
    bytes += size;
  }
  return shares;
}

/** Half-open ranges that cover these numbers. */
export function rangesOf(seqNums: number[]): [number, number][] {
  const ranges: [number, number][] = [];
  for (const seqNum of seqNums.sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last && last[1] === seqNum) last[1]++;
    else ranges.push([seqNum, seqNum + 1]);
  }
  return ranges;
}
