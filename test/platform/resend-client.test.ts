/** Our client beside the SDK's own: the same call to the same server has to give the same on both sides. */
import { spawn } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { Resend } from 'resend';
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';
import { createResendClient } from '../../src/platform/resend-client.ts';

interface Seen {
  method: string | undefined;
  url: string | undefined;
  headers: IncomingMessage['headers'];
  body: string;
}

const MAIL = { from: 'bot@agent.example', to: 'ann@sender.example', subject: 'hi ✓', text: 'häuser' };
const EMAIL_ID = '56761188-7520-42d8-8898-ff6fc54ce618';

let server: Server;
let baseUrl: string;
let seen: Seen[];
let listener: RequestListener;

beforeEach(async () => {
  seen = [];
  const take = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { method, url, headers } = request;
    seen.push({ method, url, headers, body: await text(request) });
    listener(request, response);
  };
  server = createServer((request, response) => void take(request, response));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  server.closeAllConnections();
  if (server.listening) await once(server.close(), 'close');
});

const clients = (): Resend[] => [
  createResendClient({ apiKey: 're_key', baseUrl }),
  new Resend('re_key', { baseUrl }),
];

const send = (client: Resend) => client.emails.send(MAIL, { idempotencyKey: 'reply/reverser/7/0' });

/** What both make of the same answer, without what differs from call to call or lies with the connection. */
async function bothGet<T extends { headers: Record<string, string> | null }>(
  call: (client: Resend) => Promise<T>,
): Promise<[ours: T, theirs: T]> {
  const [ours, theirs] = clients();
  const strip = ({ headers, ...rest }: T): T => {
    const { date: _date, connection: _connection, 'keep-alive': _keepAlive, ...told } = headers ?? {};
    return { ...rest, headers: headers && told } as T;
  };
  return [strip(await call(ours!)), strip(await call(theirs!))];
}

const answer =
  (status: number, body: string, headers: Record<string, string | string[]> = {}): RequestListener =>
  (_request, response) =>
    void response.writeHead(status, headers).end(body);

/** Says how long it is, and ends before. */
const brokenOff =
  (status: number): RequestListener =>
  (_request, response) => {
    response.writeHead(status, { 'content-length': '100' });
    response.write('{"id":', () => response.destroy());
  };

test.each<[string, RequestListener]>([
  ['a success', answer(200, '{"id":"é ✓"}', { 'ratelimit-limit': '5', 'x-a': ['1', '2'] })],
  ['a success that is null', answer(200, 'null')],
  ['a success that is no JSON', answer(200, '<html>')],
  ['a success without content', answer(200, '')],
  ['a refusal', answer(422, '{"name":"validation_error","statusCode":422,"message":"no"}')],
  ['a refusal that is null', answer(500, 'null')],
  ['a rate limit', answer(429, '{"name":"rate_limit_exceeded"}', { 'retry-after': '7' })],
  ['no redirect, for want of a place', answer(304, '')],
  ['a success that breaks off', brokenOff(200)],
  ['a connection that is reset', (request) => void request.socket.resetAndDestroy()],
])('%s is the same', async (_name, answering) => {
  listener = answering;
  const [ours, theirs] = await bothGet(send);
  expect(ours).toEqual(theirs);
});

test.each([
  ['a gateway that talks HTML', answer(502, '<html>', { 'content-type': 'text/html' })],
  ['a refusal that breaks off', brokenOff(503)],
])('%s is the same but for its message', async (_name, answering) => {
  listener = answering;
  const [ours, theirs] = await bothGet(send);
  expect(ours).toEqual({ ...theirs, error: { ...theirs.error, message: expect.any(String) } });
});

test('the same requests are made, under the same names', async () => {
  listener = answer(200, '{"id":"1"}');
  await bothGet(send);
  await bothGet((client) => client.emails.receiving.get(EMAIL_ID, { html_format: 'cid' }));
  await bothGet((client) => client.emails.list({ limit: 100, after: EMAIL_ID }));
  // Said by every `fetch`, and of no use to a program.
  const { 'accept-language': _language, 'sec-fetch-mode': _mode, ...expected } = seen[1]!.headers;
  expect(seen[0]?.headers).toEqual({ ...expected, 'accept-encoding': 'identity' });
  expect(seen[0]?.headers).toMatchObject({
    authorization: 'Bearer re_key',
    'idempotency-key': 'reply/reverser/7/0',
    'content-type': 'application/json',
  });
  const withoutHeaders = seen.map(({ headers: _headers, ...rest }) => rest);
  expect(withoutHeaders.filter((_, i) => i % 2 === 0)).toEqual(withoutHeaders.filter((_, i) => i % 2 === 1));
});

test.each([302, 307, 308])('a redirect (%i) is followed as the SDK does', async (status) => {
  listener = (request, response) =>
    request.url === '/emails'
      ? response.writeHead(status, { location: '/moved' }).end()
      : response.end(JSON.stringify({ id: request.method }));
  const [ours, theirs] = await bothGet(send);
  expect(ours).toEqual(theirs);
  expect(ours.data?.id).toBe(status === 302 ? 'GET' : 'POST');
});

test('a path that climbs is refused by the SDK, before any call', async () => {
  const [ours, theirs] = await bothGet((client) => client.emails.get('../domains'));
  expect(ours).toEqual(theirs);
  expect(seen).toHaveLength(0);
});

test('a server that is not there is the same', async () => {
  await once(server.close(), 'close');
  const [ours, theirs] = await bothGet(send);
  expect(ours).toEqual(theirs);
});

/** Published by Node's HTTP client and by `fetch` when an answer begins. */
const ANSWER_BEGINS = ['http.client.response.finish', 'undici:request:headers'] as const;

test.each<[string, RequestListener | null]>([
  ['before the answer', null],
  ['in the midst of a success', (_, response) => void response.writeHead(200).write('{')],
  ['in the midst of a refusal', (_, response) => void response.writeHead(500).write('{')],
])('a call that is aborted %s is the same, and lets go of the connection', async (_name, answering) => {
  const closed: Promise<unknown>[] = [];
  let abort = new AbortController();
  const abortSoon = (): void => void setImmediate(() => abort.abort(new Error('enough')));
  for (const channel of ANSWER_BEGINS) subscribe(channel, abortSoon);
  onTestFinished(() => ANSWER_BEGINS.forEach((channel) => unsubscribe(channel, abortSoon)));
  listener = (request, response) => {
    closed.push(new Promise((resolve) => request.socket.once('close', resolve)));
    if (answering) answering(request, response);
    else abortSoon();
  };
  const [ours, theirs] = await bothGet((client) => {
    abort = new AbortController();
    return client.emails.send(MAIL, { signal: abort.signal });
  });
  expect(ours).toEqual(theirs);
  await Promise.all(closed);
  expect(closed).toHaveLength(2);
});

test('calls one after another share a connection', async () => {
  const connections = new Set<unknown>();
  listener = (request, response) => {
    connections.add(request.socket);
    answer(200, '{"id":"1"}')(request, response);
  };
  const [ours] = clients();
  for (let call = 0; call < 3; call++) await send(ours!);
  expect(connections.size).toBe(1);
});

test('a proxy of the environment is used', async () => {
  listener = answer(200, '{"id":"by the proxy"}');
  const module = fileURLToPath(new URL('../../src/platform/resend-client.ts', import.meta.url));
  const program = `const { createResendClient } = await import(${JSON.stringify(module)});
    const client = createResendClient({ apiKey: 're_key', baseUrl: 'http://resend.example' });
    console.log((await client.emails.get('${EMAIL_ID}')).data.id);`;
  const env = { NODE_USE_ENV_PROXY: '1', HTTP_PROXY: baseUrl };
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { env, stdio: 'pipe' });
  expect(await text(child.stdout)).toBe('by the proxy\n');
  expect(seen[0]?.url).toBe(`http://resend.example/emails/${EMAIL_ID}`);
});
