/**
 * A reverse proxy on loopback that fails in the ways networks and servers do: it loses answers, cuts
 * connections, hangs, or answers something else.
 */
import { once } from 'node:events';
import { createServer, request as httpRequest } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';

/** What happens to a request. `lose-answer`: the server has done it, and nobody hears of it. */
export type Fate = 'forward' | 'lose-answer' | 'cut' | 'hang' | { status: number; body?: string };

export interface ProxiedRequest {
  readonly method: string;
  readonly path: string;
  readonly isAppend: boolean;
  readonly isLongPoll: boolean;
}

export interface FaultyProxy {
  readonly url: string;
  /** Every request that came in, in order. */
  readonly requests: readonly ProxiedRequest[];
  /** Requests that are being answered. */
  inFlight(): number;
  /** Connections that are open now, idle ones among them. */
  connections(): Promise<number>;
  /** Decides the fate of each request from now on. */
  decide(fate: (request: ProxiedRequest) => Fate | Promise<Fate>): void;
  /** Cuts all connections that are open now. */
  cutConnections(): void;
  close(): Promise<void>;
}

export async function startFaultyProxy(targetUrl: string): Promise<FaultyProxy> {
  const requests: ProxiedRequest[] = [];
  let fateOf: (request: ProxiedRequest) => Fate | Promise<Fate> = () => 'forward';
  let inFlight = 0;

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    inFlight += 1;
    response.on('close', () => (inFlight -= 1));
    const proxied = describeRequest(request);
    requests.push(proxied);
    const fate = await fateOf(proxied);
    if (fate === 'cut') request.socket.destroy();
    else if (fate === 'forward' || fate === 'lose-answer') forward(targetUrl, { request, response, fate });
    else if (typeof fate === 'object') response.writeHead(fate.status, JSON_TYPE).end(fate.body);
  }

  const server = createServer((request, response) => void handle(request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    inFlight: () => inFlight,
    connections: promisify(server.getConnections.bind(server)),
    decide(fate) {
      fateOf = fate;
    },
    cutConnections: () => server.closeAllConnections(),
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

const JSON_TYPE = { 'content-type': 'application/json' };

function describeRequest(request: IncomingMessage): ProxiedRequest {
  const url = new URL(request.url ?? '/', 'http://proxy');
  return {
    method: request.method ?? '',
    path: url.pathname,
    isAppend: request.method === 'POST' && url.pathname.endsWith('/records'),
    isLongPoll: url.searchParams.has('wait'),
  };
}

function forward(
  targetUrl: string,
  { request, response, fate }: { request: IncomingMessage; response: ServerResponse; fate: Fate },
): void {
  const { method, headers } = request;
  const upstream = httpRequest(new URL(request.url ?? '/', targetUrl), {
    ...(method && { method }),
    headers,
  });
  upstream.on('response', (answer) => {
    if (fate === 'lose-answer') {
      answer.resume().on('end', () => request.socket.destroy());
    } else {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    }
  });
  upstream.on('error', () => request.socket.destroy());
  response.on('close', () => upstream.destroy());
  request.pipe(upstream);
}
