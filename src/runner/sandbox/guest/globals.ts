/**
 * Puts the Web's globals in place and takes away what only an attacker misses: shared memory and
 * WebAssembly, whose memory no limit counts.
 */
import { GuestAbortController, GuestAbortSignal } from './abort.ts';
import { GuestBlob, GuestFile, GuestFormData } from './blob.ts';
import { structuredClone } from './clone.ts';
import { console } from './console.ts';
import { GuestDOMException, GuestEvent, GuestEventTarget, reportError } from './dom-exception.ts';
import { fetch } from './fetch.ts';
import { GuestHeaders } from './headers.ts';
import { tellHost } from './host.ts';
import { GuestRequest, GuestResponse } from './http.ts';
import { atob, btoa, GuestTextDecoder, GuestTextEncoder } from './text-codec.ts';
import { clearTimer, queueMicrotask, setInterval, setTimeout } from './timers.ts';
import { GuestURL, GuestURLSearchParams } from './url.ts';
import { crypto, GuestCryptoKey } from './web-crypto.ts';

const startedMs = Date.now();

const classes = {
  AbortController: GuestAbortController,
  AbortSignal: GuestAbortSignal,
  Blob: GuestBlob,
  CryptoKey: GuestCryptoKey,
  DOMException: GuestDOMException,
  Event: GuestEvent,
  EventTarget: GuestEventTarget,
  File: GuestFile,
  FormData: GuestFormData,
  Headers: GuestHeaders,
  Request: GuestRequest,
  Response: GuestResponse,
  TextDecoder: GuestTextDecoder,
  TextEncoder: GuestTextEncoder,
  URL: GuestURL,
  URLSearchParams: GuestURLSearchParams,
};

const values = {
  atob,
  btoa,
  clearInterval: clearTimer,
  clearTimeout: clearTimer,
  console,
  crypto,
  fetch,
  performance: { now: () => Date.now() - startedMs, timeOrigin: startedMs },
  queueMicrotask,
  reportError: (error: unknown) => void reportError(error),
  self: globalThis,
  setInterval,
  setTimeout,
  structuredClone,
};

export function installGlobals(): void {
  for (const [name, constructor] of Object.entries(classes)) {
    Object.defineProperty(constructor, 'name', { value: name, configurable: true });
    Object.defineProperty(constructor.prototype, Symbol.toStringTag, { value: name, configurable: true });
  }
  for (const [name, value] of Object.entries({ ...classes, ...values })) {
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
