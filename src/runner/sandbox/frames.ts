/**
 * Frames on a pipe: four bytes of length (big endian), then that many bytes of UTF-8 JSON.
 * A frame above the limit is a protocol error; the reader stops there and never buffers more than one.
 */
export const MAX_FRAME_BYTES = 64 * 1024 * 1024;
const HEADER_BYTES = 4;

export function frameOf(payload: string): Buffer {
  const length = Buffer.byteLength(payload);
  const frame = Buffer.allocUnsafe(HEADER_BYTES + length);
  frame.writeUInt32BE(length, 0);
  frame.write(payload, HEADER_BYTES);
  return frame;
}

/**
 * Feeds chunks as they come and calls `onFrame` with each whole payload, in order.
 * @returns a function that takes a chunk; it returns false once a frame was above the limit, and then for good.
 */
export function createFrameReader(onFrame: (payload: string) => void): (chunk: Buffer) => boolean {
  let chunks: Buffer[] = [];
  let buffered = 0;
  let broken = false;

  return (chunk) => {
    if (broken) return false;
    chunks.push(chunk);
    buffered += chunk.length;
    while (buffered >= HEADER_BYTES) {
      if (chunks[0]!.length < HEADER_BYTES) chunks = [Buffer.concat(chunks)];
      const length = chunks[0]!.readUInt32BE(0);
      if (length > MAX_FRAME_BYTES) {
        broken = true;
        chunks = [];
        return false;
      }
      if (buffered < HEADER_BYTES + length) break;
      const whole = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
      const rest = whole.subarray(HEADER_BYTES + length);
      chunks = rest.length === 0 ? [] : [rest];
      buffered = rest.length;
      onFrame(whole.toString('utf8', HEADER_BYTES, HEADER_BYTES + length));
    }
    return true;
  };
}
