/**
 * Puts the Web's globals in place and takes away what only an attacker misses: shared memory and
 * WebAssembly, whose memory no limit counts.
 */
import { GuestAbortController, GuestAbortSignal, GuestDOMException } from './abort.ts';
import { structuredClone } from './clone.ts';
import { describeError, describeValue } from './describe.ts';
import { decodeBase64, decodeUtf8, encodeBase64, encodeUtf8 } from './encoding.ts';
import { fetch } from './fetch.ts';
import { tellHost } from './host.ts';
import { GuestHeaders, GuestRequest, GuestResponse } from './http.ts';
import { GuestURL, GuestURLSearchParams } from './url.ts';

const MAX_RANDOM_BYTES = 65_536;

const timers = new Map<number, { callback: () => void; everyMs: number | null }>();
let lastTimer = 0;

export function fireTimer(id: number): void {
  const timer = timers.get(id);
  if (!timer) return;
  if (timer.everyMs === null) timers.delete(id);
  else tellHost('timer', { id, ms: timer.everyMs });
  try {
    timer.callback();
  } catch (error) {
    const { message, stack } = describeError(error);
    tellHost('failed', { reason: 'threw', message, stack });
  }
}

function startTimer(callback: unknown, options: { ms: unknown; repeats: boolean; args: unknown[] }): number {
  if (typeof callback !== 'function') throw new TypeError('the callback is not a function');
  const ms = Math.max(Number(options.ms) || 0, 1);
  const id = ++lastTimer;
  timers.set(id, {
    callback: () => void Reflect.apply(callback, undefined, options.args),
    everyMs: options.repeats ? ms : null,
  });
  tellHost('timer', { id, ms });
  return id;
}

const clearTimer = (id: unknown): void => {
  if (timers.delete(Number(id))) tellHost('clear-timer', String(Number(id)));
};

const logLine = (...values: unknown[]): void => void tellHost('log', values.map(describeValue).join(' '));

class GuestTextEncoder {
  readonly encoding = 'utf-8';
  encode(text = ''): Uint8Array {
    return encodeUtf8(String(text));
  }
}

class GuestTextDecoder {
  readonly encoding = 'utf-8';
  readonly fatal: boolean;
  constructor(label = 'utf-8', options: { fatal?: boolean } = {}) {
    if (!/^\s*utf-?8\s*$/i.test(label))
      throw new RangeError(`the encoding ${label} is not supported: only utf-8`);
    this.fatal = options.fatal ?? false;
  }
  decode(input?: ArrayBuffer | ArrayBufferView): string {
    if (input === undefined) return '';
    const bytes = ArrayBuffer.isView(input)
      ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength)
      : new Uint8Array(input);
    return decodeUtf8(bytes, this.fatal);
  }
}

function randomBytes(count: number): Uint8Array {
  return decodeBase64(tellHost('random', String(count)));
}

const crypto = {
  getRandomValues<T extends ArrayBufferView>(array: T): T {
    if (array.byteLength > MAX_RANDOM_BYTES) {
      throw new GuestDOMException(`at most ${MAX_RANDOM_BYTES} bytes at once`, 'QuotaExceededError');
    }
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(randomBytes(array.byteLength));
    return array;
  },
  randomUUID(): string {
    const bytes = randomBytes(16);
    bytes[6] = (bytes[6]! & 0x0f) | 0x40;
    bytes[8] = (bytes[8]! & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  },
};

export function installGlobals(): void {
  const provided = {
    AbortController: GuestAbortController,
    AbortSignal: GuestAbortSignal,
    DOMException: GuestDOMException,
    Headers: GuestHeaders,
    Request: GuestRequest,
    Response: GuestResponse,
    TextDecoder: GuestTextDecoder,
    TextEncoder: GuestTextEncoder,
    URL: GuestURL,
    URLSearchParams: GuestURLSearchParams,
    atob: (text: unknown) => binaryString(decodeBase64(String(text))),
    btoa: (text: unknown) => encodeBase64(latin1(String(text))),
    clearInterval: clearTimer,
    clearTimeout: clearTimer,
    console: { debug: logLine, error: logLine, info: logLine, log: logLine, trace: logLine, warn: logLine },
    crypto,
    fetch,
    queueMicrotask: (callback: () => void) => void Promise.resolve().then(callback),
    setInterval: (callback: unknown, ms: unknown, ...args: unknown[]) =>
      startTimer(callback, { ms, repeats: true, args }),
    setTimeout: (callback: unknown, ms: unknown, ...args: unknown[]) =>
      startTimer(callback, { ms, repeats: false, args }),
    structuredClone,
  };
  for (const [name, value] of Object.entries(provided)) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  }
  for (const name of ['WebAssembly', 'SharedArrayBuffer', 'Atomics'])
    Reflect.deleteProperty(globalThis, name);
  reportUseOf('FinalizationRegistry');
}

/**
 * Its callbacks come when the engine collects garbage, perhaps in the time of another run: the host is told
 * when a tool reaches for it, and does not use this isolate again.
 */
function reportUseOf(name: 'FinalizationRegistry'): void {
  const original = globalThis[name];
  Object.defineProperty(globalThis, name, {
    configurable: true,
    get: () => (tellHost('retire', ''), original),
    set: (value: unknown) => {
      Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
    },
  });
}

function latin1(text: string): Uint8Array {
  if (/[^\0-\xff]/.test(text)) {
    throw new GuestDOMException(
      'The string to be encoded has characters outside Latin-1',
      'InvalidCharacterError',
    );
  }
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** One character a byte; in pieces, as a call takes only so many arguments. */
function binaryString(bytes: Uint8Array): string {
  let text = '';
  for (let start = 0; start < bytes.length; start += 8_192) {
    text += String.fromCharCode(...bytes.subarray(start, start + 8_192));
  }
  return text;
}
