/**
 * The host's side of a tool's `fetch`: whole requests to granted origins, whole responses back.
 *
 * A grant is an origin. What it leads to is checked again at each redirect and at each connection: a name that
 * resolves to an address that is not public is refused, unless the grant was written as an origin with its
 * scheme or as an IP address, which says that this is meant. The address that was checked is the one that is
 * connected to. Nothing of ours goes along: no cookies, no credentials, no proxy. How much of it all is in memory at
 * once is up to `fetch-budget.ts`.
 */
import { lookup as systemLookup } from 'node:dns';
import type { LookupAddress, LookupOptions } from 'node:dns';
import { isIP } from 'node:net';
import type { Agent, Response } from 'undici';
import { z } from 'zod';
import type { Budget } from '../platform/budget.ts';
import { errorMessage, MillraceError } from '../platform/errors.ts';
import { createFetchBudget, UNCOUNTED_BYTES } from './fetch-budget.ts';
import type { FetchBudget } from './fetch-budget.ts';
import { isPublicAddress } from './public-address.ts';
import { faultOf } from './sandbox/guest-json.ts';
import type { Capability, CapabilityAnswer } from './sandbox/sandbox.ts';
import { originOf, settableLimits } from './tool-settings.ts';

export type Lookup = (
  hostname: string,
  options: LookupOptions & { all: true },
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

const MAX_REDIRECTS = 5;
const MAX_URL_CHARS = 8_192;
const MAX_HEADERS = 100;
const MAX_REQUEST_BYTES = 10 * 1024 * 1024;
const MAX_RESPONSE_BYTES = 10 * 1024 * 1024;
/** A connection serves a burst of calls of one run, no longer. */
const KEEP_ALIVE_MS = 1_000;
const REDIRECT_STATUSES = [301, 302, 303, 307, 308];
/** They are the connection's, not the request's. */
const REFUSED_HEADERS =
  /^(?:host|connection|content-length|expect|keep-alive|te|trailer|transfer-encoding|upgrade|proxy-.*)$/;
/** They were meant for the first origin alone. */
const ORIGIN_HEADERS = ['authorization', 'cookie'];

const requestSchema = z.object({
  url: z.string().max(MAX_URL_CHARS),
  method: z.string().regex(/^[A-Z]{1,20}$/, 'a method has 1 to 20 capital letters'),
  // Their number is checked before each is.
  headers: z
    .array(z.unknown())
    .max(MAX_HEADERS)
    .pipe(z.array(z.tuple([z.string(), z.string()]))),
  redirect: z.enum(['follow', 'manual', 'error']),
  body: z.base64().nullable(),
});

interface Request {
  url: URL;
  method: string;
  headers: [string, string][];
  body: Buffer | null;
}

type ToolRequest = Request & { redirect: string };

/** What a response has to be read with. */
interface Reading {
  budget: Budget;
  signal: AbortSignal;
}

/** Loaded by the first tool that fetches: it would be a few MB of every daemon. */
const loadUndici = (): Promise<typeof import('undici')> => import('undici');

/** A `fetch` for one run. */
export function createToolFetch(options: {
  hosts: readonly string[];
  maxFetches?: number | undefined;
  lookup?: Lookup | undefined;
  /** Of the process. Default: one of its own. */
  budget?: FetchBudget | undefined;
}): Capability {
  const granted = new Set(options.hosts.map(originOf));
  const trusted = new Set(options.hosts.filter(isExplicit).map(originOf));
  const { lookup = systemLookup, maxFetches = settableLimits.maxFetches.default } = options;
  // Made when they are asked for: most runs fetch nothing.
  let anywhere: Promise<Agent> | undefined;
  let publicOnly: Promise<Agent> | undefined;
  const agentOf = (isTrusted: boolean): Promise<Agent> =>
    isTrusted
      ? (anywhere ??= agentFor(lookup, () => true))
      : (publicOnly ??= agentFor(lookup, isPublicAddress));
  const budget = (options.budget ?? createFetchBudget()).ofRun();
  let calls = 0;

  function nextRequest(argument: unknown): ToolRequest {
    calls += 1;
    if (calls > maxFetches)
      throw refused(`at most ${maxFetches} calls of fetch in one run (settings: maxFetches)`);
    return parsedRequest(argument);
  }

  async function fetchOne(
    { redirect, ...first }: ToolRequest,
    signal: AbortSignal,
  ): Promise<CapabilityAnswer> {
    using _call = await budget.calls.take(1, signal);
    using _sent = await budget.requests.take(counted(first.body?.length ?? 0), signal);
    let request: Request = first;
    for (let redirects = 0; ; redirects++) {
      const { origin } = request.url;
      if (!granted.has(origin)) {
        const shown = origin === 'null' ? request.url.protocol : origin;
        throw refused(`fetch of ${shown} is not granted: name the host in the tool's settings.hosts`);
      }
      const response = await send(request, {
        dispatcher: await agentOf(trusted.has(origin)),
        signal,
      });
      const location = REDIRECT_STATUSES.includes(response.status) ? response.headers.get('location') : null;
      if (location === null || redirect === 'manual') {
        const seen = { url: request.url, redirected: redirects > 0 };
        return answerOf(response, seen, { budget: budget.responses, signal });
      }
      await response.body?.cancel();
      if (redirect === 'error') throw refused(`${origin} answered with a redirect`);
      if (redirects === MAX_REDIRECTS) throw refused(`more than ${MAX_REDIRECTS} redirects`);
      request = redirectedRequest(request, { status: response.status, location });
    }
  }

  // The argument, with the body in base64, is not held while the host takes its time: nothing below names it.
  return (argument, signal) =>
    new Promise<ToolRequest>((resolve) => resolve(nextRequest(argument))).then((request) =>
      fetchOne(request, signal),
    );
}

function counted(bytes: number): number {
  return bytes <= UNCOUNTED_BYTES ? 0 : bytes;
}

/** A scheme, or an address instead of a name, says that the author knows where this leads. */
function isExplicit(host: string): boolean {
  const { hostname = '' } = URL.parse(originOf(host) ?? '') ?? {};
  return host.includes('://') || isIP(hostname.replace(/^\[|\]$/g, '')) !== 0;
}

/** An agent that connects only to addresses that are allowed, whatever a name resolves to at that moment. */
async function agentFor(lookup: Lookup, isAllowed: (address: string) => boolean): Promise<Agent> {
  const { Agent } = await loadUndici();
  return new Agent({
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
    maxResponseSize: MAX_RESPONSE_BYTES,
    connect: {
      lookup: (hostname, options, callback) =>
        lookup(hostname, { ...options, all: true }, (error, addresses) => {
          if (error) return callback(error, []);
          const refusedAddress = addresses.find(({ address }) => !isAllowed(address));
          if (refusedAddress || addresses.length === 0) {
            return callback(refused(`${hostname} does not resolve to a public address`), []);
          }
          const [first] = addresses;
          return options.all ? callback(null, addresses) : callback(null, first!.address, first!.family);
        }),
    },
  });
}

function parsedRequest(argument: unknown): ToolRequest {
  const parsed = requestSchema.safeParse(argument);
  if (!parsed.success) throw refused(`this is no request: ${faultOf(parsed.error)}`);
  const { redirect, method, headers } = parsed.data;
  const url = URL.parse(parsed.data.url);
  if (!url) throw refused(`${parsed.data.url} is no URL`);
  if (url.username !== '' || url.password !== '') throw refused('a URL with a password is not fetched');
  const body = parsed.data.body === null ? null : Buffer.from(parsed.data.body, 'base64');
  if (body && body.length > MAX_REQUEST_BYTES)
    throw refused(`a request has at most ${MAX_REQUEST_BYTES} bytes`);
  const bad = headers.find(([name]) => REFUSED_HEADERS.test(name.toLowerCase()));
  if (bad) throw refused(`the header ${bad[0]} is not for a tool to set`);
  return { url, method, headers, body, redirect };
}

async function send(
  { url, method, headers, body }: Request,
  options: { dispatcher: Agent; signal: AbortSignal },
): Promise<Response> {
  try {
    const { fetch } = await loadUndici();
    return await fetch(url.href, { method, headers, body, redirect: 'manual', ...options });
  } catch (error) {
    throw failed(url, error);
  }
}

/** The next request, as the Fetch standard has it (4.4, HTTP-redirect fetch). */
function redirectedRequest(request: Request, to: { status: number; location: string }): Request {
  const url = URL.parse(to.location, request.url.href);
  if (!url || url.username !== '' || url.password !== '') throw refused('a redirect leads to what is no URL');
  const isGet =
    (to.status === 303 && request.method !== 'HEAD') || (to.status <= 302 && request.method === 'POST');
  const isDropped = (name: string): boolean =>
    (isGet && name.startsWith('content-')) ||
    (url.origin !== request.url.origin && ORIGIN_HEADERS.includes(name));
  return {
    url,
    method: isGet ? 'GET' : request.method,
    headers: request.headers.filter(([name]) => !isDropped(name.toLowerCase())),
    body: isGet ? null : request.body,
  };
}

async function answerOf(
  response: Response,
  seen: { url: URL; redirected: boolean },
  reading: Reading,
): Promise<CapabilityAnswer> {
  const { status, statusText, headers } = response;
  const value = {
    url: seen.url.href,
    redirected: seen.redirected,
    status,
    statusText,
    headers: [...headers],
  };
  return { value, ...(await bodyOf(response, seen.url, reading)) };
}

/** The body after decompression, up to the limit. What it takes of the budget stays taken until its `release`. */
async function bodyOf(
  response: Response,
  url: URL,
  { budget, signal }: Reading,
): Promise<Required<Pick<CapabilityAnswer, 'bytes' | 'release'>>> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  let taken: Disposable | undefined;
  try {
    for await (const chunk of response.body ?? []) {
      length += (chunk as Uint8Array).length;
      if (length > MAX_RESPONSE_BYTES) throw refused(`a response has at most ${MAX_RESPONSE_BYTES} bytes`);
      if (counted(length) > 0) taken ??= await budget.take(largestSizeOf(response), signal);
      chunks.push(chunk as Uint8Array);
    }
  } catch (error) {
    taken?.[Symbol.dispose]();
    throw failed(url, error);
  }
  return { bytes: Buffer.concat(chunks), release: () => taken?.[Symbol.dispose]() };
}

/** What its body may come to, as far as its headers say. */
function largestSizeOf({ headers }: Response): number {
  const declared = Number(headers.get('content-length') ?? Infinity);
  const isPlain = headers.get('content-encoding') === null && declared > 0;
  return isPlain ? Math.min(declared, MAX_RESPONSE_BYTES) : MAX_RESPONSE_BYTES;
}

function refused(message: string): MillraceError {
  return new MillraceError('permanent', 'capability.refused', message);
}

/** undici wraps what stopped it, our own refusals too. */
function failed(url: URL, error: unknown): MillraceError {
  if (error instanceof MillraceError) return error;
  const cause = error instanceof Error ? error.cause : undefined;
  if (cause instanceof MillraceError) return cause;
  const message = `fetch of ${url.origin} failed: ${errorMessage(cause ?? error)}`;
  return new MillraceError('transient', 'capability.failed', message, { cause: error });
}
