/**
 * One request by Node's own HTTP client, which takes a quarter to a half of what a `fetch` does: for the calls of which
 * every mail costs some (docs/adr/0049). Connections are kept for a few seconds and shared by the whole process, and so
 * are a proxy (`NODE_USE_ENV_PROXY`) and certificates (`NODE_EXTRA_CA_CERTS`). Nothing is decoded, repeated or redirected.
 */
import { addAbortListener } from 'node:events';
import { request as requestHttp } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { request as requestHttps } from 'node:https';

export interface HttpRequest {
  readonly signal: AbortSignal | undefined;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
}

/** The answer as soon as it begins. The signal ends the transfer of its body, too. */
export function sendRequest(
  url: URL,
  { signal, method = 'GET', headers = {}, body }: HttpRequest,
): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const request = (url.protocol === 'https:' ? requestHttps : requestHttp)(
    url,
    // Uncompressed, what is announced is what arrives.
    { method, headers: { ...headers, 'accept-encoding': 'identity' } },
    resolve,
  );
  // The client's own `signal` takes as long as the rest of the request.
  const aborting = signal && addAbortListener(signal, () => request.destroy(signal.reason as Error));
  request.on('error', reject);
  // After an answer that is none, such as 101, there is neither a response nor an error.
  request.on('close', () => {
    aborting?.[Symbol.dispose]();
    reject(new Error('the connection was closed without an answer'));
  });
  request.end(body);
  return promise;
}

/** The whole body. One that breaks off, or is larger, is an error. */
export async function textOf(response: IncomingMessage, maxBytes: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const chunks: Buffer[] = [];
  let bytes = 0;
  response.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > maxBytes) response.destroy(new Error(`an answer above ${maxBytes} bytes`));
  });
  response.on('end', resolve);
  response.on('error', reject);
  response.on('close', () => reject(new Error('the answer broke off')));
  await promise;
  return Buffer.concat(chunks, bytes).toString('utf8');
}
