/**
 * Puts the Web's globals in place and takes away what only an attacker misses: shared memory and
 * WebAssembly, whose memory no limit counts. What a run may well do without is made when it is first read.
 */
import { console } from './console.ts';
import { fetch } from './fetch.ts';
import { tellHost } from './host.ts';
import { loadWebClasses, loadWebStreams } from './lazy-web.ts';
import { clearTimer, queueMicrotask, setInterval, setTimeout } from './timers.ts';
import type { webGlobals } from './web-classes.ts';
import type { streamGlobals } from './web-streams.ts';

const startedMs = Date.now();

const eager = {
  clearInterval: clearTimer,
  clearTimeout: clearTimer,
  console,
  fetch,
  performance: { now: () => Date.now() - startedMs, timeOrigin: startedMs },
  queueMicrotask,
  self: globalThis,
  setInterval,
  setTimeout,
};

const lazyStreams: readonly (keyof typeof streamGlobals)[] = [
  'ByteLengthQueuingStrategy',
  'CountQueuingStrategy',
  'ReadableStream',
  'TextDecoderStream',
  'TextEncoderStream',
  'TransformStream',
  'WritableStream',
];

const lazyClasses: readonly (keyof typeof webGlobals)[] = [
  'AbortController',
  'AbortSignal',
  'Blob',
  'CryptoKey',
  'DOMException',
  'Event',
  'EventTarget',
  'File',
  'FormData',
  'Headers',
  'Request',
  'Response',
  'TextDecoder',
  'TextEncoder',
  'URL',
  'URLSearchParams',
  'atob',
  'btoa',
  'crypto',
  'reportError',
  'structuredClone',
];

export function installGlobals(): void {
  for (const [name, value] of Object.entries(eager)) define(name, value);
  for (const name of lazyClasses) defineOnRead(name, () => made(name, loadWebClasses().webGlobals[name]));
  for (const name of lazyStreams) defineOnRead(name, () => made(name, loadWebStreams().streamGlobals[name]));
  for (const name of ['WebAssembly', 'SharedArrayBuffer', 'Atomics'])
    Reflect.deleteProperty(globalThis, name);
  reportUseOf('FinalizationRegistry');
}

function define(name: string, value: unknown): void {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
}

function made(name: string, value: unknown): unknown {
  define(name, value);
  return value;
}

function defineOnRead(name: string, get: () => unknown): void {
  const set = (value: unknown): void => define(name, value);
  Object.defineProperty(globalThis, name, { get, set, configurable: true, enumerable: false });
}

/**
 * Its callbacks come when the engine collects garbage, perhaps in the time of another run: the host is told
 * when a tool reaches for it, and does not use this isolate again.
 */
function reportUseOf(name: 'FinalizationRegistry'): void {
  const original = globalThis[name];
  defineOnRead(name, () => (tellHost('retire', ''), original));
}
