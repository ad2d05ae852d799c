import { once } from 'node:events';
import { createServer } from 'node:http';
import type { RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { sendRequest, textOf } from '../../src/platform/http-request.ts';

async function serve(listener: RequestListener): Promise<URL> {
  const server = createServer(listener);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  onTestFinished(async () => {
    server.closeAllConnections();
    await once(server.close(), 'close');
  });
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
}

test('a body up to the limit is text, and one that is larger is not read to its end', async () => {
  const closed = Promise.withResolvers<void>();
  const url = await serve((request, response) => {
    if (request.url === '/small') response.end('ä'.repeat(50));
    // Without an end.
    else response.once('close', closed.resolve).write('x'.repeat(101));
  });
  const small = await sendRequest(new URL('/small', url), { signal: undefined });
  expect(await textOf(small, 100)).toBe('ä'.repeat(50));
  const large = await sendRequest(url, { signal: undefined });
  await expect(textOf(large, 100)).rejects.toThrow('above 100 bytes');
  await closed.promise;
});

test('what the server says in place of an answer is an error', async () => {
  const url = await serve((request) => {
    request.socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n');
  });
  await expect(sendRequest(url, { signal: undefined })).rejects.toThrow('without an answer');
});

test('a signal ends the request and the transfer of its body, with its reason', async () => {
  const url = await serve((request, response) => {
    if (request.url === '/begins') response.write('x');
  });
  const early = new AbortController();
  const silent = sendRequest(url, { signal: early.signal });
  early.abort(new Error('enough'));
  await expect(silent).rejects.toThrow('enough');
  const late = new AbortController();
  const response = await sendRequest(new URL('/begins', url), { signal: late.signal });
  const body = textOf(response, 100);
  late.abort(new Error('enough'));
  await expect(body).rejects.toThrow('aborted');
  await expect(sendRequest(url, { signal: late.signal })).rejects.toThrow('enough');
});
