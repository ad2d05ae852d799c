/**
 * The HTTP server: an app behind a socket, with a limit on everything that a stranger controls. It stands
 * behind Caddy, but does not count on it.
 *
 * Node itself answers 408 to a request that does not arrive in time, 431 to headers above the limit and 400
 * to what is not HTTP. Beyond the limit of connections, a new one takes the place of the one that has been idle the
 * longest; where none is idle, of the one that has been sending its request the longest. A request that has arrived is
 * never cut off for others: where there are only such, the new connection is closed.
 */
import { createAdaptorServer } from '@hono/node-server';
import { createServer } from 'node:http';
import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { systemClock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';

export interface HttpServer {
  readonly url: string;
  readonly port: number;
  /** Takes no more requests, lets those under way end for `drainMs`, then cuts them off. Idempotent. */
  close(drainMs: number): Promise<void>;
}

export interface HttpServerOptions {
  fetch: (request: Request) => Response | Promise<Response>;
  host: string;
  /** 0 picks a free one. */
  port: number;
  /** A socket that listens already, handed over by a service manager: then host and port are its. */
  fd?: number | null;
  log: Log;
  /** For a request to arrive whole, headers and body (default 30 s). */
  requestTimeoutMs?: number;
  /** Default 1000. */
  maxConnections?: number;
}

const MAX_HEADER_BYTES = 16 * 1024;
const HEADERS_TIMEOUT_MS = 10_000;
const DEFAULT_REQUEST_TIMEOUT_MS = 30_000;
/** How often Node looks for requests that are over their time. */
const TIMEOUT_CHECK_MS = 1000;
/** Above Caddy's two minutes, so that it is never us who close a connection that it is about to use. */
const KEEP_ALIVE_TIMEOUT_MS = 150_000;
const DEFAULT_MAX_CONNECTIONS = 1000;
/** For the first request of a connection that was accepted just before the end: it is on its way. */
const FIRST_REQUEST_GRACE_MS = 1000;

/** @throws MillraceError `ingest.cannot_listen` (invalid) */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const requestTimeoutMs = options.requestTimeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS;
  const server = createAdaptorServer({
    fetch: options.fetch,
    createServer,
    serverOptions: {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: Math.min(HEADERS_TIMEOUT_MS, requestTimeoutMs),
      requestTimeout: requestTimeoutMs,
      connectionsCheckingInterval: Math.min(TIMEOUT_CHECK_MS, requestTimeoutMs),
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    },
  }) as Server;
  const unused = trackUnused(server);
  limitConnections(server, { unused, maxConnections: options.maxConnections ?? DEFAULT_MAX_CONNECTIONS });
  await listen(server, options);
  server.on('error', (error) => options.log.error({ error }, 'http-server-failed'));
  const { address, port } = server.address() as AddressInfo;
  const name = options.fd == null ? options.host : address;
  const host = name.includes(':') ? `[${name}]` : name;
  let closed: Promise<void> | undefined;
  return {
    url: `http://${host}:${port}`,
    port,
    close(drainMs) {
      // Sockets run on the system's time, whatever the rest runs on.
      closed ??= drain(
        server,
        unused,
        systemClock.after(drainMs, () => server.closeAllConnections()),
      );
      return closed;
    },
  };
}

function listen(server: Server, { host, port, fd }: HttpServerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (cause: Error): void => {
      const message = `cannot listen on ${fd == null ? `${host}:${port}` : `the socket that was handed over`}`;
      const hint =
        'Another process may have the port: set PORT (or METRICS_PORT) to another. Or HOST is no address of this machine.';
      reject(new MillraceError('invalid', 'ingest.cannot_listen', message, { cause, hint }));
    };
    server.once('error', onError);
    server.listen(fd == null ? { port, host } : { fd }, () => {
      server.off('error', onError);
      resolve();
    });
  });
}

/** Of each connection that serves no request now: whether it ever has served one. */
type UnusedConnections = ReadonlyMap<Socket, 'idle' | 'fresh'>;

/**
 * Node's own `closeIdleConnections` leaves those open that have not sent a request yet, such as a browser's spare
 * ones, and a drain would wait for them to the last.
 */
function trackUnused(server: Server): UnusedConnections {
  const unused = new Map<Socket, 'idle' | 'fresh'>();
  server.on('connection', (socket) => {
    unused.set(socket, 'fresh');
    socket.once('close', () => unused.delete(socket));
  });
  server.on('request', ({ socket }, response) => {
    unused.delete(socket);
    response.once('close', () => {
      if (!server.listening) socket.destroySoon();
      else if (!socket.destroyed) unused.set(socket, 'idle');
    });
  });
  return unused;
}

/** Node's own `maxConnections` refuses new connections, so that idle ones would shut everybody out. */
function limitConnections(
  server: Server,
  { unused, maxConnections }: { unused: UnusedConnections; maxConnections: number },
): void {
  const open = new Set<Socket>();
  /** The newest request of each connection that serves one; the one that has been served the longest first. */
  const serving = new Map<Socket, IncomingMessage>();
  const toClose = (added: Socket): Socket => {
    for (const socket of unused.keys()) if (open.has(socket) && socket !== added) return socket;
    for (const [socket, { complete }] of serving) if (open.has(socket) && !complete) return socket;
    return added;
  };
  server.on('connection', (added) => {
    open.add(added);
    added.once('close', () => open.delete(added));
    if (open.size <= maxConnections) return;
    const closed = toClose(added);
    // It counts no more from now on: others may come before the system has closed it.
    open.delete(closed);
    closed.destroy();
  });
  server.on('request', (request, response) => {
    const { socket } = request;
    serving.delete(socket);
    serving.set(socket, request);
    response.once('close', () => {
      if (serving.get(socket) === request) serving.delete(socket);
    });
  });
}

async function drain(server: Server, unused: UnusedConnections, cancelCut: () => void): Promise<void> {
  const ended = new Promise<void>((resolve) => server.close(() => resolve()));
  const cut = (state: 'idle' | 'fresh'): void => {
    for (const [socket, found] of unused) if (found === state) socket.destroy();
  };
  cut('idle');
  const cancelGrace = systemClock.after(FIRST_REQUEST_GRACE_MS, () => cut('fresh'));
  await ended;
  cancelGrace();
  cancelCut();
}
