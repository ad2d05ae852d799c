/**
 * Reads the bodies of requests that nobody has verified yet. A signature covers the whole body, so that any stranger
 * can have us hold one: how much all of them hold together is limited here, beside the limit of each.
 *
 * What counts is what has come, not what was announced. Where there is no more room, the body that has been coming the
 * longest is given up with 503: who stalls is the first to go, and one that comes at any usual pace is whole before that
 * much has come behind it. Small bodies, as nearly all are, are never given up: so many connections as there may be
 * hold little of them.
 */
import { Refusal } from './webhook-body.ts';

export interface BodyReader {
  /**
   * The bytes of the body, unchanged.
   * @throws Refusal 413 as soon as more than `maxBytes` are announced or have come; 400 if it breaks off; 503 if it was
   *   given up for others
   */
  read(request: Request, maxBytes: number): Promise<Buffer>;
  /** By bodies that are not whole yet, but for small ones. */
  readonly heldBytes: number;
}

const MAX_HELD_BYTES = 32 * 1024 * 1024;
/** Announced as no longer than this, a body is not counted. */
const SMALL_BYTES = 16 * 1024;

interface Coming {
  /** Room for more than has come: pieces that are kept as they come can be of one byte each. */
  buffer: Buffer;
  isGivenUp: boolean;
  readonly reader: ReadableStreamDefaultReader<Uint8Array>;
}

export function createBodyReader(maxHeldBytes = MAX_HELD_BYTES): BodyReader {
  /** The one that has been coming the longest first. */
  const coming = new Set<Coming>();
  let heldBytes = 0;

  function release(body: Coming): void {
    if (!coming.delete(body)) return;
    heldBytes -= body.buffer.length;
    body.buffer = Buffer.alloc(0);
    body.reader.cancel().catch(() => {});
  }

  /** @throws Refusal 503 if this is the body to give up */
  function grow(body: Coming, bytes: number): void {
    const added = bytes - body.buffer.length;
    for (const oldest of coming) {
      if (heldBytes + added <= maxHeldBytes) break;
      oldest.isGivenUp = true;
      release(oldest);
    }
    if (body.isGivenUp) throw givenUp();
    heldBytes += added;
    const grown = Buffer.allocUnsafeSlow(bytes);
    body.buffer.copy(grown);
    body.buffer = grown;
  }

  async function readCounted(stream: ReadableStream<Uint8Array>, maxBytes: number): Promise<Buffer> {
    const body: Coming = { buffer: Buffer.alloc(0), isGivenUp: false, reader: stream.getReader() };
    coming.add(body);
    let size = 0;
    try {
      for (;;) {
        const { value, done } = await body.reader.read();
        if (body.isGivenUp) throw givenUp();
        if (done) return body.buffer.subarray(0, size);
        const needed = size + value.byteLength;
        if (needed > maxBytes) throw tooLarge(maxBytes);
        if (needed > body.buffer.length)
          grow(body, Math.min(maxBytes, Math.max(needed, 2 * body.buffer.length, SMALL_BYTES)));
        body.buffer.set(value, size);
        size = needed;
      }
    } catch (error) {
      throw error instanceof Refusal ? error : new Refusal(400, 'the body broke off', error);
    } finally {
      release(body);
    }
  }

  return {
    get heldBytes() {
      return heldBytes;
    },
    async read(request, maxBytes) {
      const announced = request.headers.get('content-length');
      if (announced !== null && Number(announced) > maxBytes) throw tooLarge(maxBytes);
      // The HTTP parser lets through no more bytes than are announced; read whole, they need no web stream.
      if (announced !== null && Number(announced) <= SMALL_BYTES) return readWhole(request);
      return request.body ? readCounted(request.body, maxBytes) : Buffer.alloc(0);
    },
  };
}

async function readWhole(request: Request): Promise<Buffer> {
  try {
    return Buffer.from(await request.arrayBuffer());
  } catch (error) {
    throw new Refusal(400, 'the body broke off', error);
  }
}

function tooLarge(maxBytes: number): Refusal {
  return new Refusal(413, `the body is larger than ${maxBytes} bytes`);
}

function givenUp(): Refusal {
  return new Refusal(503, 'the body was given up: too much comes in at once');
}
