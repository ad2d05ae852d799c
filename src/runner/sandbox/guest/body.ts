/**
 * The body of a `Request` or a `Response`: bytes, which are a stream as soon as somebody asks for one, or a stream
 * that a tool made. It can be read once. The streams are a program of their own (`web-streams.ts`): a body that is
 * read as a whole does without.
 */
import type { ReadableStream } from 'web-streams-polyfill';
import { loadWebStreams } from './lazy-web.ts';
import { joined } from './text-codec.ts';

export type ByteStream = ReadableStream<Uint8Array>;

/** A stream of these bytes, which keeps a copy of its own. */
export function streamOf(bytes: Uint8Array): ByteStream {
  const streams = loadWebStreams().streamGlobals;
  return new streams.ReadableStream({
    type: 'bytes',
    pull(controller) {
      if (bytes.length > 0) controller.enqueue(bytes.slice());
      controller.close();
      controller.byobRequest?.respond(0);
    },
  });
}

export function isStream(value: unknown): value is ByteStream {
  // Who has one has loaded them; nobody else shall, for this question.
  if (typeof value !== 'object' || value === null || !('getReader' in value)) return false;
  return value instanceof loadWebStreams().streamGlobals.ReadableStream;
}

export class Body {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  #stream: ByteStream | null;
  #isTaken = false;

  /** @throws TypeError for a stream that somebody reads, or has read from */
  constructor(source: Uint8Array<ArrayBuffer> | ByteStream) {
    const stream = isStream(source) ? source : null;
    if (stream && (stream.locked || isDisturbed(stream)))
      throw new TypeError('Response body object should not be disturbed or locked');
    this.#bytes = stream ? new Uint8Array(0) : (source as Uint8Array<ArrayBuffer>);
    this.#stream = stream;
  }

  get isUsed(): boolean {
    return this.#isTaken || (this.#stream !== null && isDisturbed(this.#stream));
  }
  get isLocked(): boolean {
    return this.#isTaken || Boolean(this.#stream?.locked);
  }
  get stream(): ByteStream {
    if (this.#stream) return this.#stream;
    this.#stream = streamOf(this.#bytes);
    // What was read as a whole is not there to be read again.
    if (this.#isTaken) this.#stream.getReader();
    return this.#stream;
  }

  /** All of it; it is used from then on. @throws TypeError if it was before, or its stream fails */
  async take(): Promise<Uint8Array<ArrayBuffer>> {
    if (this.isUsed || this.isLocked) throw new TypeError('Body is unusable: Body has already been read');
    this.#isTaken = true;
    return this.#stream ? wholeOf(this.#stream) : this.#bytes.slice();
  }
  /** The same body once more; both can be read. */
  clone(): Body {
    if (!this.#stream) return new Body(this.#bytes);
    const [mine, theirs] = this.#stream.tee();
    this.#stream = mine;
    return new Body(theirs);
  }
  /** The same body in other hands; this one is used from then on. */
  handedOver(): Body {
    if (this.isUsed || this.isLocked)
      throw new TypeError('Cannot construct a Request with a body already used');
    const stream = this.#stream;
    this.#isTaken = true;
    if (!stream) return new Body(this.#bytes);
    const { TransformStream } = loadWebStreams().streamGlobals;
    return new Body(stream.pipeThrough(new TransformStream<Uint8Array, Uint8Array>()));
  }
}

async function wholeOf(stream: ByteStream): Promise<Uint8Array<ArrayBuffer>> {
  const reader = stream.getReader();
  const pieces: Uint8Array[] = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return joined(pieces);
    if (!(value instanceof Uint8Array)) throw new TypeError('Received non-Uint8Array chunk');
    pieces.push(value);
  }
}

/** Whether anything was read from it, or it was cancelled: the polyfill's own note, which the standard shows nobody. */
function isDisturbed(stream: ByteStream): boolean {
  return Boolean((stream as { _disturbed?: boolean })._disturbed);
}
