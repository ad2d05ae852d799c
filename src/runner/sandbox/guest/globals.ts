/**
 * Puts the Web's globals in place and takes away what only an attacker misses: shared memory and
 * WebAssembly, whose memory no limit counts. What a run may well do without is made when it is first read.
 */
import { console } from './console.ts';
import { fetch } from './fetch.ts';
import { tellHost } from './host.ts';
import { loadWebClasses } from './lazy-web-classes.ts';
import { clearTimer, queueMicrotask, setInterval, setTimeout } from './timers.ts';
import type { webGlobals } from './web-classes.ts';

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

const lazy: readonly (keyof typeof webGlobals)[] = [
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
  for (const name of lazy) {
    defineOnRead(name, () => {
      const value = loadWebClasses().webGlobals[name];
      define(name, value);
      return value;
    });
  }
  for (const name of ['WebAssembly', 'SharedArrayBuffer', 'Atomics'])
    Reflect.deleteProperty(globalThis, name);
  reportUseOf('FinalizationRegistry');
}

function define(name: string, value: unknown): void {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
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
