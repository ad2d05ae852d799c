/**
 * Finding a time on a stream. There is no index by time, but numbers and times only grow: so it is found by halves,
 * in as many reads as the length has binary digits.
 */
import type { Stream } from './stream-store.ts';

/** The number of the first record that came at this time or later: timestamps of a stream never go back. */
export async function firstSince(stream: Stream, sinceMs: number, signal: AbortSignal): Promise<number> {
  let low = 0;
  let high = await stream.tail(signal);
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const { records } = await stream.read({ fromSeqNum: middle, maxRecords: 1, signal });
    const [record] = records;
    if (!record || record.timestampMs >= sinceMs) high = middle;
    else low = record.seqNum + 1;
  }
  return low;
}
