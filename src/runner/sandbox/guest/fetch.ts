/** `fetch` as a capability of the host: the whole request goes out, the whole response comes back. */
import type { Context } from '../../tool-api.ts';
import { encodeBase64 } from './encoding.ts';
import { abortCall, callCapability } from './host.ts';
import { loadWebClasses } from './lazy-web.ts';
import type { GuestRequestInit, GuestResponse } from './http.ts';
import type { fetchedResponse } from './web-classes.ts';

async function guestFetch(input: unknown, init?: GuestRequestInit): Promise<GuestResponse> {
  const web = loadWebClasses();
  const request = new web.webGlobals.Request(input, init);
  const { signal } = request;
  const body = request._body() && (await request.bytes());
  signal.throwIfAborted();
  const { call, answer } = callCapability('fetch', {
    url: request.url,
    // The standard leaves it as it was written, which hardly a server knows.
    method: /^patch$/i.test(request.method) ? 'PATCH' : request.method,
    headers: [...request.headers],
    redirect: request.redirect,
    body: body && encodeBase64(body),
  });
  signal.addEventListener('abort', () => abortCall(call, signal.reason));
  const { value, bytes } = await answer;
  return web.fetchedResponse(bytes, value as Parameters<typeof fetchedResponse>[1]);
}

export const fetch = guestFetch as unknown as Context['fetch'];
