/**
 * The Web's classes and functions that few tools use. Making them costs as much as all else that a run needs
 * before its tool, so this module and what only it imports is evaluated when a tool first reaches for one of
 * them: see `globals.ts`.
 */
import { GuestAbortController, GuestAbortSignal } from './abort.ts';
import { GuestBlob, GuestFile, GuestFormData } from './blob.ts';
import { structuredClone } from './clone.ts';
import { GuestDOMException, GuestEvent, GuestEventTarget, reportError } from './dom-exception.ts';
import { GuestHeaders } from './headers.ts';
import { fetchedResponse, GuestRequest, GuestResponse } from './http.ts';
import { atob, btoa, GuestTextDecoder, GuestTextEncoder } from './text-codec.ts';
import { GuestURL, GuestURLSearchParams } from './url.ts';
import { crypto, GuestCryptoKey } from './web-crypto.ts';

export { fetchedResponse };

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

for (const [name, constructor] of Object.entries(classes)) {
  Object.defineProperty(constructor, 'name', { value: name, configurable: true });
  Object.defineProperty(constructor.prototype, Symbol.toStringTag, { value: name, configurable: true });
}

/** By the name of the global. */
export const webGlobals = {
  ...classes,
  atob,
  btoa,
  crypto,
  reportError: (error: unknown) => void reportError(error),
  structuredClone,
};
