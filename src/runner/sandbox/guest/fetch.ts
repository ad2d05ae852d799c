/** `fetch` as a capability of the host: the whole request goes out, the whole response comes back. */
import type { Context } from '../../tool-api.ts';
import { encodeBase64 } from './encoding.ts';
import { abortCall, callCapability } from './host.ts';
import { GuestRequest, GuestResponse } from './http.ts';
import type { GuestRequestInit } from './http.ts';

interface PlainResponse {
  url: string;
  status: number;
  statusText: string;
  redirected: boolean;
  headers: [string, string][];
}

async function guestFetch(input: unknown, init?: GuestRequestInit): Promise<GuestResponse> {
  const request = new GuestRequest(input, init);
  request.signal?.throwIfAborted();
  const body = request._peek();
  const { call, answer } = callCapability('fetch', {
    url: request.url,
    method: request.method,
    headers: [...request.headers],
    redirect: request.redirect,
    body: body && encodeBase64(body),
  });
  request.signal?.addEventListener('abort', () => abortCall(call, request.signal?.reason));
  const { value, bytes } = await answer;
  const plain = value as PlainResponse;
  const response = new GuestResponse(bytes ?? null, plain);
  response.url = plain.url;
  response.redirected = plain.redirected;
  return response;
}

export const fetch = guestFetch as unknown as Context['fetch'];
