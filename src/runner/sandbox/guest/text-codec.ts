/** `TextEncoder`, `TextDecoder`, `atob` and `btoa`. UTF-8 is done here; other encodings are the host's to decode. */
import { GuestDOMException } from './dom-exception.ts';
import { decodeBase64, decodeUtf8, encodeBase64, encodeUtf8 } from './encoding.ts';
import { fromJson, tellHost } from './host.ts';

/** https://encoding.spec.whatwg.org/#names-and-labels */
const UTF8_LABEL =
  /^[\t\n\f\r ]*(?:utf-?8|unicode-1-1-utf-8|unicode11utf8|(?:x-)?unicode20utf8)[\t\n\f\r ]*$/i;

/** Bytes of what the Web calls a BufferSource. @throws TypeError for anything else */
export function bytesOf(source: unknown): Uint8Array<ArrayBuffer> {
  if (ArrayBuffer.isView(source)) {
    return new Uint8Array(source.buffer as ArrayBuffer, source.byteOffset, source.byteLength);
  }
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  throw new TypeError('expected an ArrayBuffer or a view of one');
}

export class GuestTextEncoder {
  readonly encoding = 'utf-8';

  encode(text: unknown = ''): Uint8Array {
    return encodeUtf8(String(text));
  }
  /** Whole characters alone are written. */
  encodeInto(text: unknown, target: Uint8Array): { read: number; written: number } {
    if (!(target instanceof Uint8Array)) throw new TypeError('expected a Uint8Array');
    let read = 0;
    let written = 0;
    for (const character of String(text)) {
      const bytes = encodeUtf8(character);
      if (written + bytes.length > target.length) break;
      target.set(bytes, written);
      written += bytes.length;
      read += character.length;
    }
    return { read, written };
  }
}

interface DecoderOptions {
  fatal?: boolean;
  ignoreBOM?: boolean;
}

export class GuestTextDecoder {
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  /** Of a stream: what belongs to the next piece. */
  #held = new Uint8Array(0);
  #isAtStart = true;

  constructor(label: unknown = 'utf-8', options: DecoderOptions = {}) {
    this.encoding = encodingFrom(String(label));
    this.fatal = Boolean(options.fatal);
    this.ignoreBOM = Boolean(options.ignoreBOM);
  }

  decode(input?: unknown, { stream = false }: { stream?: boolean } = {}): string {
    const added = input === undefined ? new Uint8Array(0) : bytesOf(input);
    const bytes = this.#held.length === 0 ? added : joined([this.#held, added]);
    if (this.encoding !== 'utf-8') return this.#decodeByHost(bytes, stream);
    const end = stream ? bytes.length - unfinishedLength(bytes) : bytes.length;
    this.#held = bytes.slice(end);
    const isAtStart = this.#isAtStart;
    if (end > 0) this.#isAtStart = false;
    if (!stream) this.#reset();
    const text = decodeUtf8(bytes.subarray(0, end), this.fatal, isAtStart && !this.ignoreBOM);
    return text;
  }

  /** Such an encoding cannot be cut anywhere, so a stream comes at its end. */
  #decodeByHost(bytes: Uint8Array, stream: boolean): string {
    if (stream) {
      this.#held = bytes.slice();
      return '';
    }
    this.#reset();
    const { encoding: label, fatal, ignoreBOM } = this;
    const answer = tellHost('decode', { label, fatal, ignoreBOM, bytes: encodeBase64(bytes) });
    const text = fromJson(answer) as string | null;
    if (text === null) throw new TypeError(`The encoded data was not valid for encoding ${label}`);
    return text;
  }

  #reset(): void {
    this.#held = new Uint8Array(0);
    this.#isAtStart = true;
  }
}

function encodingFrom(label: string): string {
  if (UTF8_LABEL.test(label)) return 'utf-8';
  const encoding = tellHost('encoding', label);
  if (encoding === '') throw new RangeError(`The "${label}" encoding is not supported`);
  return encoding;
}

/** How many bytes at the end begin a character whose rest may follow. */
function unfinishedLength(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back]!;
    if (byte >= 0x80 && byte < 0xc0) continue;
    const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return needed > back ? back : 0;
  }
  return 0;
}

export function joined(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let offset = 0;
  for (const piece of pieces) {
    whole.set(piece, offset);
    offset += piece.length;
  }
  return whole;
}

export function atob(...parameters: unknown[]): string {
  if (parameters.length === 0) throw new TypeError('The "data" argument must be specified');
  try {
    return binaryString(decodeBase64(String(parameters[0])));
  } catch {
    throw new GuestDOMException(
      'The string to be decoded is not correctly encoded.',
      'InvalidCharacterError',
    );
  }
}

export function btoa(...parameters: unknown[]): string {
  if (parameters.length === 0) throw new TypeError('The "data" argument must be specified');
  const text = String(parameters[0]);
  if (/[^\0-\xff]/.test(text)) throw new GuestDOMException('Invalid character', 'InvalidCharacterError');
  return encodeBase64(Uint8Array.from(text, (character) => character.charCodeAt(0)));
}

/** One character a byte; in pieces, as a call takes only so many arguments. */
function binaryString(bytes: Uint8Array): string {
  let text = '';
  for (let start = 0; start < bytes.length; start += 8_192) {
    text += String.fromCharCode(...bytes.subarray(start, start + 8_192));
  }
  return text;
}
