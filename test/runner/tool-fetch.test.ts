/** `fetch` from inside of a tool, against real servers on loopback: what is granted, what is not, and limits. */
import type { LookupAddress } from 'node:dns';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createCapabilities } from '../../src/runner/capabilities.ts';
import { createFetchBudget } from '../../src/runner/fetch-budget.ts';
import type { FetchBudget } from '../../src/runner/fetch-budget.ts';
import { isPublicAddress } from '../../src/runner/public-address.ts';
import type { Lookup } from '../../src/runner/tool-fetch.ts';
import { limits, repliesOf, useSandbox } from './tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });

interface Seen {
  method: string | undefined;
  url: string | undefined;
  headers: IncomingMessage['headers'];
  body: string;
}

const seen: Seen[] = [];
let origin: string;
let other: string;

/** Two servers, so that there is another origin to be led to. */
const servers = [createServer(serve), createServer(serve)];

let atOnce = 0;
let mostAtOnce = 0;

function serve(request: IncomingMessage, response: ServerResponse): void {
  let body = '';
  mostAtOnce = Math.max(mostAtOnce, ++atOnce);
  response.on('close', () => atOnce--);
  request.on('data', (chunk: Buffer) => (body += chunk.toString('latin1')));
  request.on('end', () => {
    const { method, url, headers } = request;
    seen.push({ method, url, headers, body });
    const { pathname, searchParams } = new URL(url ?? '/', 'http://localhost');
    if (pathname === '/to') {
      response.writeHead(Number(searchParams.get('status') ?? 302), {
        location: searchParams.get('url') ?? '',
      });
      return response.end('moved');
    }
    if (pathname === '/big') return response.end(Buffer.alloc(11 * 1024 * 1024));
    if (pathname === '/bomb') {
      response.setHeader('content-encoding', 'gzip');
      return response.end(gzipSync(Buffer.alloc(64 * 1024 * 1024)));
    }
    if (pathname === '/never') return undefined;
    if (pathname === '/late') return setTimeout(() => response.end(), 20);
    if (pathname === '/half-a-mebibyte') return response.end(Buffer.alloc(512 * 1024));
    if (pathname === '/broken') return response.destroy();
    response.setHeader('x-served', 'yes');
    return response.end(`${method} ${pathname} ${body}`);
  });
}

beforeAll(async () => {
  const origins = await Promise.all(
    servers.map(async (server) => {
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    }),
  );
  [origin = '', other = ''] = origins;
});
afterAll(() => {
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
});
beforeEach(() => {
  seen.length = 0;
  mostAtOnce = 0;
});

function capabilitiesFor(hosts: string[], options: { lookup?: Lookup; fetchBudget?: FetchBudget } = {}) {
  const attachmentBytes = (): Promise<never> => Promise.reject(new Error('none'));
  return createCapabilities({ settings: { hosts }, secrets: {}, attachmentBytes, ...options });
}

/** The text of `body`, or of the error that it threw. */
async function fetched(body: string, hosts: string[], lookup?: Lookup): Promise<string | undefined> {
  const capabilities = capabilitiesFor(hosts, lookup && { lookup });
  const run = `try { ${body} } catch (error) { return 'error: ' + error.message; }`;
  return repliesOf(await sandbox.runBody(run, capabilities))?.[0]?.text;
}

const get = (url: string): string =>
  `const response = await context.fetch(${JSON.stringify(url)}); return response.status + ' ' + await response.text();`;

describe('a granted host', () => {
  it('gets the whole request and gives the whole response', async () => {
    const body = `
      const response = await context.fetch('${origin}/path?q=1', {
        method: 'post', headers: { 'X-Test': 'ä'.length + '' }, body: JSON.stringify({ a: 'ä' }),
      });
      return JSON.stringify([response.status, response.ok, response.headers.get('X-Served'), response.url, response.redirected]);`;
    expect(JSON.parse((await fetched(body, [origin])) ?? '')).toEqual([
      200,
      true,
      'yes',
      `${origin}/path?q=1`,
      false,
    ]);
    expect(seen[0]).toMatchObject({
      method: 'POST',
      url: '/path?q=1',
      body: Buffer.from('{"a":"ä"}').toString('latin1'),
    });
    expect(seen[0]?.headers).toMatchObject({ 'x-test': '1', 'content-type': 'text/plain;charset=UTF-8' });
  });

  it('takes a Request, a URL, and the global fetch', async () => {
    const body = `
      const first = await fetch(new Request(new URL('/a', '${origin}'), { method: 'PUT', body: 'x' }));
      const second = await context.fetch(new URL('${origin}/b'));
      return await first.text() + ' ' + await second.text();`;
    expect(await fetched(body, [origin])).toBe('PUT /a x GET /b ');
  });

  it('is sent PATCH, however it was written, and no method that is none', async () => {
    const by = (method: string): string =>
      `return (await context.fetch('${origin}/', { method: '${method}' })).text();`;
    expect(await fetched(by('patch'), [origin])).toBe('PATCH / ');
    expect(await fetched(by('custom'), [origin])).toContain('a method has 1 to 20 capital letters');
    expect(seen).toHaveLength(1);
  });

  it('sends nothing of ours', async () => {
    await fetched(get(`${origin}/`), [origin]);
    expect(Object.keys(seen[0]?.headers ?? {})).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/cookie|authorization|proxy|forwarded/)]),
    );
  });
});

describe('what is not granted is refused by its origin', () => {
  it.each([
    ['another port', (): string => other],
    ['another host', (): string => 'https://example.com'],
    ['a name of loopback', (): string => origin.replace('127.0.0.1', 'localhost')],
    ['another scheme', (): string => origin.replace('http:', 'https:')],
    ['the address of a cloud’s metadata', (): string => 'http://169.254.169.254'],
    ['another spelling of an address', (): string => 'http://2130706433'],
  ])('%s', async (_name, url) => {
    expect(await fetched(get(`${url()}/x`), [origin])).toMatch(
      /^error: fetch of .* is not granted: name the host/,
    );
    expect(seen).toEqual([]);
  });

  it.each(['file:///etc/passwd', 'data:text/plain,x', 'blob:x', 'about:blank', 'not a url', ''])(
    '%j',
    async (url) => {
      expect(await fetched(get(url), [origin])).toMatch(
        /^error: (?:fetch of (?:file|data|blob|about): is not granted|Invalid URL)/,
      );
    },
  );

  it('a host without a scheme means https', async () => {
    expect(await fetched(get('http://example.com/'), ['example.com'])).toMatch(
      /^error: fetch of http:.* is not granted/,
    );
  });

  it('a URL with credentials, and headers that are not a tool’s', async () => {
    expect(await fetched(get(`${origin.replace('//', '//user:pass@')}/`), [origin])).toContain(
      'includes credentials',
    );
    const host = `return (await context.fetch('${origin}/', { headers: { Host: 'internal' } })).status;`;
    expect(await fetched(host, [origin])).toContain('the header host is not for a tool to set');
    expect(seen).toEqual([]);
  });
});

describe('a redirect', () => {
  const to = (url: string, status = 302): string =>
    `${origin}/to?status=${status}&url=${encodeURIComponent(url)}`;

  it('is followed to a granted origin, without what was meant for the first', async () => {
    const body = `
      const response = await context.fetch('${to(`${other}/there`)}', { headers: { Authorization: 'Bearer x', 'X-Kept': '1' } });
      return [response.url, response.redirected, await response.text()].join(' ');`;
    expect(await fetched(body, [origin, other])).toBe(`${other}/there true GET /there `);
    expect(seen[0]?.headers).toHaveProperty('authorization');
    expect(seen[1]?.headers).not.toHaveProperty('authorization');
    expect(seen[1]?.headers).toHaveProperty('x-kept');
  });

  it('to an origin that is not granted is refused', async () => {
    expect(await fetched(get(to(`${other}/there`)), [origin])).toContain(`fetch of ${other} is not granted`);
    expect(await fetched(get(to('http://169.254.169.254/latest')), [origin])).toContain('is not granted');
    expect(await fetched(get(to('file:///etc/passwd')), [origin])).toContain('is not granted');
    expect(seen.map(({ url }) => url?.split('?')[0])).toEqual(['/to', '/to', '/to']);
  });

  it('turns into GET where the standard says so', async () => {
    const post = (status: number): string =>
      `return await (await context.fetch('${to('/x', status)}', { method: 'POST', body: 'b' })).text();`;
    expect(await fetched(post(301), [origin])).toBe('GET /x ');
    expect(await fetched(post(303), [origin])).toBe('GET /x ');
    expect(await fetched(post(307), [origin])).toBe('POST /x b');
  });

  it('can be left to the tool, or refused', async () => {
    const manual = `const r = await context.fetch('${to('/x')}', { redirect: 'manual' }); return r.status + r.headers.get('location');`;
    expect(await fetched(manual, [origin])).toBe('302/x');
    const error = `await context.fetch('${to('/x')}', { redirect: 'error' });`;
    expect(await fetched(error, [origin])).toContain('answered with a redirect');
  });

  it('that never ends, ends', async () => {
    const loop = `${origin}/to?url=`;
    const url = `${loop}${encodeURIComponent(`${origin}/to?url=`)}`;
    expect(await fetched(get(url), [origin])).toContain('more than 5 redirects');
  });
});

describe('a name', () => {
  const addresses: string[] = [];
  const resolving =
    (...answers: string[]): Lookup =>
    (hostname, _options, callback) => {
      addresses.push(hostname);
      callback(
        null,
        answers.map((address): LookupAddress => ({ address, family: address.includes(':') ? 6 : 4 })),
      );
    };

  it.each([
    ['127.0.0.1'],
    ['10.1.2.3'],
    ['169.254.169.254'],
    ['::1'],
    ['::ffff:127.0.0.1'],
    ['fd00::1'],
    ['0.0.0.0'],
  ])('that resolves to %s is refused', async (address) => {
    const text = await fetched(get('https://rebind.example/'), ['rebind.example'], resolving(address));
    expect(text).toBe('error: rebind.example does not resolve to a public address');
  });

  it('one of whose addresses is private is refused', async () => {
    const lookup = resolving('93.184.215.14', '192.168.1.1');
    expect(await fetched(get('https://mixed.example/'), ['mixed.example'], lookup)).toContain(
      'public address',
    );
  });

  it('is connected to at the address that was checked', async () => {
    addresses.length = 0;
    const { port } = new URL(origin);
    const url = `http://service.internal:${port}`;
    expect(await fetched(get(`${url}/x`), [url], resolving('127.0.0.1'))).toBe('200 GET /x ');
    expect(addresses).toEqual(['service.internal']);
    expect(seen[0]?.headers.host).toBe(`service.internal:${port}`);
  });

  it('that does not resolve is an error that says so', async () => {
    const failing: Lookup = (hostname, _options, callback) =>
      callback(Object.assign(new Error(`getaddrinfo ENOTFOUND ${hostname}`), { code: 'ENOTFOUND' }), []);
    expect(await fetched(get('https://nowhere.example/'), ['nowhere.example'], failing)).toBe(
      'error: fetch of https://nowhere.example failed: getaddrinfo ENOTFOUND nowhere.example',
    );
  });
});

describe('limits', () => {
  it('of a response, also after decompression', async () => {
    expect(await fetched(get(`${origin}/big`), [origin])).toMatch(/^error: .*(?:10485760|exceeded)/);
    expect(await fetched(get(`${origin}/bomb`), [origin])).toContain('at most 10485760 bytes');
  });

  it('of calls in one run', async () => {
    const body = `for (let call = 0; call < 50; call++) await (await context.fetch('${origin}/')).text();
      await context.fetch('${origin}/');`;
    expect(await fetched(body, [origin])).toBe(
      'error: at most 50 calls of fetch in one run (settings: maxFetches)',
    );
    expect(seen).toHaveLength(50);
  });

  it('of time: the run ends, and the connection with it', async () => {
    const capabilities = capabilitiesFor([origin]);
    const closed = new Promise((resolve) =>
      servers[0]!.once('connection', (socket) => socket.once('close', resolve)),
    );
    const result = await sandbox.runBody(get(`${origin}/never`), {
      ...capabilities,
      limits: { ...limits, timeoutMs: 300 },
    });
    expect(result).toMatchObject({ status: 'failed', reason: 'timeout' });
    await closed;
  });

  it('of calls at once: the others wait, and are not refused', async () => {
    const body = `const all = Array.from({ length: 40 }, () => fetch('${origin}/late'));
      return (await Promise.all(all)).filter(({ ok }) => ok).length + ' answered';`;
    expect(await fetched(body, [origin])).toBe('40 answered');
    expect(mostAtOnce).toBeLessThanOrEqual(6);
  });

  it('of bytes that are sent at once: the others wait, and are not refused', async () => {
    const budget = createFetchBudget();
    const answered = await sandbox.runBody(
      `const body = new Uint8Array(4 * 1024 * 1024);
      const post = () => fetch('${origin}/late', { method: 'POST', body });
      return (await Promise.all(Array.from({ length: 3 }, post))).filter(({ ok }) => ok).length + ' answered';`,
      {
        ...capabilitiesFor([origin], { fetchBudget: budget }),
        limits: { ...limits, memoryLimitMb: 256, timeoutMs: 30_000 },
      },
    );
    expect(repliesOf(answered)?.[0]?.text).toBe('3 answered');
    expect(mostAtOnce).toBeLessThanOrEqual(2);
    expect(budget.requests.taken).toBe(0);
  });

  it('of bytes that are read at once, which are given back', async () => {
    const budget = createFetchBudget();
    const body = `const all = Array.from({ length: 30 }, () => fetch('${origin}/half-a-mebibyte'));
      const sizes = await Promise.all(all.map(async (one) => (await (await one).arrayBuffer()).byteLength));
      return sizes.reduce((sum, size) => sum + size) + ' bytes';`;
    const result = await sandbox.runBody(body, capabilitiesFor([origin], { fetchBudget: budget }));
    expect(repliesOf(result)?.[0]?.text).toBe(`${30 * 512 * 1024} bytes`);
    expect([budget.requests.taken, budget.responses.taken]).toEqual([0, 0]);
  });

  it('that the tool sets itself', async () => {
    const body = `await context.fetch('${origin}/never', { signal: AbortSignal.timeout(50) });`;
    expect(await fetched(body, [origin])).toBe('error: The operation was aborted due to timeout');
  });
});

it('a connection that breaks is an error of the tool, without the host’s stack', async () => {
  const text = await fetched(get(`${origin}/broken`), [origin]);
  expect(text).toMatch(new RegExp(`^error: fetch of ${origin} failed: `));
  expect(text).not.toMatch(/\bat \b|node:|\/src\//);
});

it('public addresses are those that anyone may reach', () => {
  const open = '93.184.215.14 1.1.1.1 172.32.0.1 100.128.0.1 2606:4700::1'.split(' ');
  const special4 =
    '127.1.2.3 10.0.0.1 172.16.0.1 192.168.0.1 169.254.1.1 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255';
  const special6 = '::1 :: fe80::1 fc00::1 ::ffff:1.1.1.1 64:ff9b::1 2001:db8::1 2002:7f00:1:: ff02::1';
  const all = [...open, ...special4.split(' '), ...special6.split(' '), 'localhost', ''];
  expect(all.filter(isPublicAddress)).toEqual(open);
});
