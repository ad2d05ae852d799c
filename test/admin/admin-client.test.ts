/** The client of the admin API, beside a daemon that ends in the middle of an answer. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { createAdminClient } from '../../src/admin/admin-client.ts';

it('takes half an answer for none', async () => {
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': 100 });
    response.write('{"names":[', () => response.destroy());
  }).listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = createAdminClient({ url, token: 'token' });
  await expect(client.get('/api/admin/streams')).rejects.toMatchObject({
    kind: 'transient',
    code: 'admin.failed',
    message: expect.stringContaining('broke off'),
  });
});
