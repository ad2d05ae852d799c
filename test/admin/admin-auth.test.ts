/** Who gets in, by what, and what another site's page cannot do. */
import { request as rawRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { createAdaptorServer } from '@hono/node-server';
import type { Server } from 'node:http';
import { Hono } from 'hono';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { adminAuth } from '../../src/admin/admin-auth.ts';
import type { AdminAuthOptions } from '../../src/admin/admin-auth.ts';

const TOKEN = 'correct-horse-battery';
let server: Server;

async function listen(options?: AdminAuthOptions): Promise<void> {
  const app = new Hono();
  app.use('*', adminAuth(TOKEN, options));
  app.all('*', (c) => c.text(`in: ${c.req.method} ${new URL(c.req.url).search}`));
  server = createAdaptorServer({ fetch: app.fetch }) as Server;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
}

beforeEach(() => listen());
afterEach(() => void server.close());

/** As a client that may say anything, `Host` and `Sec-Fetch-Site` included. */
async function ask(headers: Record<string, string>, { path = '/', method = 'GET' } = {}) {
  const { port } = server.address() as AddressInfo;
  const host = headers['host']?.replace('PORT', String(port));
  const request = rawRequest({
    port,
    host: '127.0.0.1',
    path,
    method,
    headers: { ...headers, ...(host && { host }) },
  });
  request.end();
  const [response] = (await once(request, 'response')) as [import('node:http').IncomingMessage];
  let body = '';
  for await (const chunk of response) body += String(chunk);
  return { status: response.statusCode, headers: response.headers, body };
}

const bearer = { authorization: `Bearer ${TOKEN}` };

async function cookie(): Promise<string> {
  const { headers } = await ask({}, { path: `/?token=${TOKEN}` });
  return headers['set-cookie']?.[0]?.split(';')[0] ?? '';
}

describe('the token', () => {
  it('lets a program in as a bearer', async () => {
    expect(await ask(bearer)).toMatchObject({ status: 200, body: 'in: GET ' });
  });

  it.each([
    ['nothing', {}],
    ['a wrong bearer', { authorization: 'Bearer wrong' }],
    ['a part of it', { authorization: `Bearer ${TOKEN.slice(0, -1)}` }],
    ['more than it', { authorization: `Bearer ${TOKEN}x` }],
    ['an empty bearer', { authorization: 'Bearer ' }],
    ['another scheme', { authorization: `Basic ${TOKEN}` }],
    ['the token as the cookie', { cookie: `millrace=${TOKEN}` }],
  ])('keeps out %s', async (_, headers: Record<string, string>) => {
    const { status, body, headers: answered } = await ask(headers);
    expect(status).toBe(401);
    expect(answered['www-authenticate']).toMatch(/^Bearer/);
    expect(JSON.parse(body)).toMatchObject({ error: { code: 'admin.unauthorized' } });
  });

  it('tells a person what to do', async () => {
    const { status, headers, body } = await ask({ accept: 'text/html' });
    expect(status).toBe(401);
    expect(headers['content-type']).toContain('text/html');
    expect(body).toContain('npm start');
  });

  it('becomes a cookie by the link, which leaves the address', async () => {
    const { status, headers } = await ask({}, { path: `/?token=${TOKEN}&a=b` });
    expect(status).toBe(303);
    expect(headers.location).toBe('/?a=b');
    expect(headers['set-cookie']?.[0]).toMatch(/HttpOnly/);
    expect(headers['set-cookie']?.[0]).toMatch(/SameSite=Strict/);
    expect(headers['set-cookie']?.[0]).not.toContain(TOKEN);
    expect(headers['set-cookie']?.[0]).not.toMatch(/Secure/);
    expect((await ask({ cookie: await cookie() })).status).toBe(200);
  });

  it('becomes a cookie for https alone where it came by https', async () => {
    const { headers } = await ask({ 'x-forwarded-proto': 'https' }, { path: `/?token=${TOKEN}` });
    expect(headers['set-cookie']?.[0]).toMatch(/; Secure/);
  });

  it('does not become a cookie when it is wrong', async () => {
    const { status, headers } = await ask({}, { path: '/?token=wrong' });
    expect(status).toBe(401);
    expect(headers['set-cookie']).toBeUndefined();
  });

  it('redirects to no other host', async () => {
    const { headers } = await ask({}, { path: `//evil.example/?token=${TOKEN}` });
    expect(headers.location).toMatch(/^\/(?!\/)/);
  });
});

describe('another site', () => {
  it.each([
    ['names itself as Origin', { origin: 'https://evil.example' }],
    ['has a null Origin', { origin: 'null' }],
    ['is on the same site', { 'sec-fetch-site': 'same-site' }],
    ['is elsewhere', { 'sec-fetch-site': 'cross-site' }],
    ['is on another port of this host', { origin: 'http://127.0.0.1:1' }],
  ])('that %s changes nothing, even with the cookie', async (_, headers: Record<string, string>) => {
    const answer = await ask({ ...headers, cookie: await cookie() }, { method: 'POST' });
    expect(answer.status).toBe(403);
    expect(JSON.parse(answer.body)).toMatchObject({ error: { code: 'admin.another_site' } });
  });

  it('is not what our own page is', async () => {
    const { port } = server.address() as AddressInfo;
    const headers = {
      cookie: await cookie(),
      origin: `http://127.0.0.1:${port}`,
      'sec-fetch-site': 'same-origin',
    };
    expect((await ask(headers, { method: 'POST' })).status).toBe(200);
    expect(
      (await ask({ cookie: await cookie(), origin: `http://127.0.0.1:${port}` }, { method: 'POST' })).status,
    ).toBe(200);
    expect((await ask(bearer, { method: 'POST' })).status).toBe(200);
  });

  it.each(['evil.example', 'evil.example:PORT', '127.0.0.1.evil.example', 'localhost.evil.example:80'])(
    'cannot rebind %s to us',
    async (host) => {
      const { status, body } = await ask({ ...bearer, host });
      expect([status, JSON.parse(body)]).toMatchObject([421, { error: { code: 'admin.wrong_host' } }]);
    },
  );

  it.each(['127.0.0.1:PORT', 'localhost:PORT', 'LOCALHOST', '[::1]:PORT'])('is not %s', async (host) => {
    expect((await ask({ ...bearer, host })).status).toBe(200);
  });

  it('is not the public name, and names do not matter where we face the outside', async () => {
    server.close();
    await listen({ bindHost: '127.0.0.1', publicUrl: 'https://mail.example.com' });
    expect((await ask({ ...bearer, host: 'mail.example.com' })).status).toBe(200);
    expect((await ask({ ...bearer, host: 'example.com' })).status).toBe(421);
    server.close();
    await listen({ bindHost: '0.0.0.0' });
    expect((await ask({ ...bearer, host: '192.0.2.7:8080' })).status).toBe(200);
  });
});
