/**
 * The public API over HTTP: authentication, the rate limit, faults, and the routes of Resend that Millrace
 * uses. Every request is recorded before anything else happens to it.
 */
import type { HttpBindings } from '@hono/node-server';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import { Hono } from 'hono';
import type { Context } from 'hono';
import { setTimeout as wait } from 'node:timers/promises';
import type { Account } from './account.ts';
import type { Fault, Route } from './contract.ts';
import { ApiError } from './errors.ts';
import type { Receiving } from './receiving.ts';
import type { SecondWindow } from './second-window.ts';
import type { Sending } from './sending.ts';
import type { StandInState } from './state.ts';

export type Env = { Bindings: HttpBindings };

export interface ApiParts {
  readonly state: StandInState;
  readonly sending: Sending;
  readonly receiving: Receiving;
  readonly account: Account;
  readonly window: SecondWindow;
  readonly baseUrl: () => string;
}

type Work = (fault: Fault | undefined, body: string) => Promise<unknown>;

export function createApi(parts: ApiParts): Hono<Env> {
  const { sending, receiving } = parts;
  const api = new Hono<Env>();
  const sendRequest = (c: Context<Env>, fault: Fault | undefined, body: string) => ({
    idempotencyKey: c.req.header('idempotency-key') ?? null,
    body,
    pause: () => pauseFor(fault),
  });

  api.post('/emails', (c) =>
    answer(parts, c, 'send', (fault, body) => sending.send(sendRequest(c, fault, body))),
  );
  api.post('/emails/batch', (c) =>
    answer(parts, c, 'batch', (fault, body) =>
      sending.batch(sendRequest(c, fault, body), c.req.header('x-batch-validation') === 'permissive'),
    ),
  );
  api.get('/emails/receiving', (c) =>
    answer(parts, c, 'receive-list', async (fault) => {
      await pauseFor(fault);
      return receiving.list(c.req.query('after'), pageSize(c));
    }),
  );
  api.get('/emails/receiving/:id', (c) =>
    answer(parts, c, 'receive', async (fault) => {
      await pauseFor(fault);
      return receiving.describe(c.req.param('id'), parts.baseUrl(), fault?.kind === 'expired-link');
    }),
  );
  api.get('/emails', (c) =>
    answer(parts, c, 'list', async (fault) => {
      await pauseFor(fault);
      return sending.list(c.req.query('after'), pageSize(c));
    }),
  );
  api.get('/emails/:id', (c) =>
    answer(parts, c, 'get', async (fault) => {
      await pauseFor(fault);
      return sending.describe(c.req.param('id'));
    }),
  );
  addAccountRoutes(api, parts);
  api.get('/_raw/:id', (c) => download(parts, c));
  api.all('*', async (c) => {
    record(parts.state, c, 'other', await c.req.text());
    return new ApiError(404, 'not_found', 'The requested endpoint does not exist.').toResponse();
  });
  return api;
}

/** Domains and webhooks: what a person does on Resend's pages. */
function addAccountRoutes(api: Hono<Env>, parts: ApiParts): void {
  const { account } = parts;
  const on = (
    [route, method, path]: [Route, 'GET' | 'POST' | 'PATCH' | 'DELETE', string],
    work: (c: Context<Env>, body: string) => unknown,
  ): void => {
    api.on(method, path, (c) =>
      answer(parts, c, route, async (fault, body) => {
        await pauseFor(fault);
        return work(c, body);
      }),
    );
  };
  const id = (c: Context<Env>): string => c.req.param('id') ?? '';
  on(['domains', 'GET', '/domains'], (c) => account.listDomains(c.req.query('after'), pageSize(c)));
  on(['domains', 'GET', '/domains/:id'], (c) => account.describeDomain(id(c)));
  on(['domains', 'PATCH', '/domains/:id'], (c, body) => account.updateDomain(id(c), body));
  on(['domains', 'POST', '/domains/:id/verify'], (c) => account.verifyDomain(id(c)));
  on(['webhooks', 'GET', '/webhooks'], (c) => account.listWebhooks(c.req.query('after'), pageSize(c)));
  on(['webhooks', 'POST', '/webhooks'], (_, body) => account.createWebhook(body));
  on(['webhooks', 'GET', '/webhooks/:id'], (c) => account.describeWebhook(id(c)));
  on(['webhooks', 'PATCH', '/webhooks/:id'], (c, body) => account.updateWebhook(id(c), body));
  on(['webhooks', 'DELETE', '/webhooks/:id'], (c) => account.removeWebhook(id(c)));
  on(['webhooks', 'POST', '/webhooks/:id/signing-secret/rotate'], (c) => account.rotateSecret(id(c)));
}

async function answer(parts: ApiParts, c: Context<Env>, route: Route, work: Work): Promise<Response> {
  const { state } = parts;
  const body = await c.req.text();
  record(state, c, route, body);
  const fault = state.takeFault(route);
  const early = faultBeforeWork(fault, c);
  if (early) return early;
  const limitHeaders = parts.window.take(state.options.requestsPerSecond);
  try {
    if (limitHeaders.exceeded)
      throw new ApiError(
        429,
        'rate_limit_exceeded',
        'Too many requests. Please limit the number of requests.',
      );
    checkKey(state, c, route);
    throwIfFault(fault);
    const result = await work(fault, body);
    return withHeaders(afterWork(fault, c, JSON.stringify(result)), limitHeaders.headers);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return withHeaders(error.toResponse(), { ...limitHeaders.headers, ...error.headers });
  }
}

async function download(parts: ApiParts, c: Context<Env>): Promise<Response> {
  record(parts.state, c, 'download', '');
  const fault = parts.state.takeFault('download');
  const early = faultBeforeWork(fault, c);
  if (early) return early;
  await pauseFor(fault);
  try {
    throwIfFault(fault);
    const bytes = parts.receiving.download(
      c.req.param('id') ?? '',
      c.req.query('expires') ?? '',
      c.req.query('signature') ?? '',
    );
    if (fault?.kind === 'truncated' || fault?.kind === 'stall') return halfDownload(c, bytes, fault.kind);
    if (fault?.kind === 'trickle') return trickle(c, bytes, fault.pauseMs);
    return new Response(Uint8Array.from(bytes), { headers: { 'content-type': 'message/rfc822' } });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return error.toResponse();
  }
}

/** Announces all bytes, sends half of them, and then breaks off or stalls. */
function halfDownload(c: Context<Env>, bytes: Uint8Array, kind: 'truncated' | 'stall'): Response {
  const { outgoing } = c.env;
  outgoing.writeHead(200, { 'content-type': 'message/rfc822', 'content-length': bytes.byteLength });
  outgoing.write(bytes.subarray(0, bytes.byteLength >> 1), () => {
    if (kind === 'truncated') outgoing.destroy();
  });
  return RESPONSE_ALREADY_SENT;
}

async function trickle(c: Context<Env>, bytes: Uint8Array, pauseMs: number): Promise<Response> {
  const { outgoing } = c.env;
  outgoing.writeHead(200, { 'content-type': 'message/rfc822', 'content-length': bytes.byteLength });
  const partBytes = Math.ceil(bytes.byteLength / 4);
  for (let sent = 0; sent < bytes.byteLength; sent += partBytes) {
    await wait(pauseMs);
    outgoing.write(bytes.subarray(sent, sent + partBytes));
  }
  outgoing.end();
  return RESPONSE_ALREADY_SENT;
}

/** Faults that keep the request from having any effect, not even on the rate limit. */
function faultBeforeWork(
  fault: Fault | undefined,
  c: Context<Env>,
): Response | Promise<Response> | undefined {
  if (fault?.kind === 'reset') return resetConnection(c);
  // It is ended by the client's own timeout, or by `stop`.
  if (fault?.kind === 'hang') return new Promise<Response>(() => {});
  if (fault?.kind === 'body')
    return new Response(fault.body, {
      status: fault.status,
      headers: { 'content-type': fault.contentType ?? 'application/json' },
    });
  return undefined;
}

function throwIfFault(fault: Fault | undefined): void {
  if (fault?.kind === 'not-found-for') throw new ApiError(404, 'not_found', 'Email not found');
  if (fault?.kind === 'error')
    throw new ApiError(fault.status, fault.name, fault.message ?? `stand-in: ${fault.name}`, fault.headers);
}

function afterWork(fault: Fault | undefined, c: Context<Env>, json: string): Response {
  if (fault?.kind === 'lost-response') return resetConnection(c);
  if (fault?.kind === 'empty') return new Response(null, { status: 200 });
  const body =
    fault?.kind === 'no-id' ? '{}' : fault?.kind === 'truncated' ? json.slice(0, json.length >> 1) : json;
  return new Response(body, { headers: { 'content-type': 'application/json' } });
}

function resetConnection(c: Context<Env>): Response {
  c.env.incoming.socket.resetAndDestroy();
  return RESPONSE_ALREADY_SENT;
}

function checkKey(state: StandInState, c: Context<Env>, route: Route): void {
  const { apiKey, sendingKey } = state.options;
  const key = /^Bearer (.+)$/.exec(c.req.header('authorization') ?? '')?.[1];
  if (key === undefined)
    throw new ApiError(401, 'missing_api_key', 'Missing API key in the authorization header.');
  if (key === apiKey) return;
  if (key !== sendingKey) throw new ApiError(403, 'invalid_api_key', 'API key is invalid');
  if (route !== 'send' && route !== 'batch')
    throw new ApiError(401, 'restricted_api_key', 'This API key is restricted to only send emails');
}

function pageSize(c: Context<Env>): number | undefined {
  const limit = c.req.query('limit');
  return limit === undefined ? undefined : Number(limit);
}

function record(state: StandInState, c: Context<Env>, route: Route | 'other', body: string): void {
  const { method, path } = c.req;
  state.record({ at: state.isoNow(), route, method, path, headers: c.req.header(), body });
}

async function pauseFor(fault: Fault | undefined): Promise<void> {
  if (fault?.kind === 'delay') await wait(fault.ms);
}

function withHeaders(response: Response, headers: Record<string, string>): Response {
  if (response === RESPONSE_ALREADY_SENT) return response;
  for (const [name, value] of Object.entries(headers)) response.headers.set(name, value);
  return response;
}
