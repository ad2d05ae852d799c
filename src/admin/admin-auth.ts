/**
 * Who may use the console and the admin API: whoever holds `ADMIN_TOKEN`, as `Authorization: Bearer`, or as a
 * cookie that is set when the link `/?token=…` is opened. Middleware for everything that is not public.
 *
 * Statuses: 303 from the link to the same address without the token; 401 without the token or with a wrong
 * one; 403 for a change that another site asks for (`Origin`, `Sec-Fetch-Site`); 421 for a name in `Host` that
 * is not ours, with which another site could have rebound its own name to our address (DNS rebinding).
 *
 * The cookie holds a digest of the token, not the token: cookies do not tell ports apart, so another program
 * on the same host may see it. Its name differs by token, so that two daemons on one host do not log each
 * other's people out.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import type { Context, MiddlewareHandler } from 'hono';
import { getCookie, setCookie } from 'hono/cookie';
import { unauthorizedPage } from './unauthorized-page.ts';

export interface AdminAuthOptions {
  /** The address that the daemon listens on; only for a loopback one is `Host` checked. */
  bindHost?: string;
  /** Where a proxy in front of us is reached, such as `https://mail.example.com`. */
  publicUrl?: string | null;
}

const COOKIE_LIFETIME_SECONDS = 30 * 86_400;
const SAFE_METHODS: readonly string[] = ['GET', 'HEAD', 'OPTIONS'];
const LOOPBACK_NAMES: readonly string[] = ['localhost', '127.0.0.1', '[::1]'];

export function adminAuth(token: string, options: AdminAuthOptions = {}): MiddlewareHandler {
  const session = digest(`millrace session ${token}`).toString('base64url');
  const cookieName = `millrace_${digest(`millrace cookie ${token}`).toString('hex').slice(0, 8)}`;
  const hosts = allowedHosts(options);

  return async (c, next) => {
    c.header('Cache-Control', 'no-store');
    c.header('Referrer-Policy', 'no-referrer');
    c.header('X-Content-Type-Options', 'nosniff');
    const url = new URL(c.req.url);
    if (hosts !== null && !hosts.includes(hostName(c)))
      return refused(c, 421, {
        code: 'admin.wrong_host',
        message: 'this is not the host you are looking for',
      });
    if (!SAFE_METHODS.includes(c.req.method) && isCrossOrigin(c))
      return refused(c, 403, {
        code: 'admin.another_site',
        message: 'a page of another site may not change anything here',
      });

    const given = url.searchParams.get('token');
    if (given !== null && c.req.method === 'GET') {
      if (!isEqual(given, token)) return unauthorized(c);
      url.searchParams.delete('token');
      setCookie(c, cookieName, session, {
        httpOnly: true,
        sameSite: 'Strict',
        secure: isHttps(c),
        path: '/',
        maxAge: COOKIE_LIFETIME_SECONDS,
      });
      return c.redirect(`${url.pathname.replace(/^\/+/, '/')}${url.search}`, 303);
    }
    const bearer = /^Bearer +(\S+) *$/i.exec(c.req.header('Authorization') ?? '')?.[1];
    const isKnown =
      bearer === undefined ? isEqual(getCookie(c, cookieName) ?? '', session) : isEqual(bearer, token);
    if (!isKnown) return unauthorized(c);
    return next();
  };
}

/** Takes the same time wherever the two differ, and whatever their lengths. */
function isEqual(given: string, expected: string): boolean {
  return timingSafeEqual(digest(given), digest(expected));
}

function digest(value: string): Buffer {
  return createHash('sha256').update(value).digest();
}

function allowedHosts({ bindHost = '127.0.0.1', publicUrl }: AdminAuthOptions): string[] | null {
  if (!isLoopback(bindHost)) return null;
  const own = isIP(bindHost) === 6 ? `[${bindHost}]` : bindHost.toLowerCase();
  return [...LOOPBACK_NAMES, own, ...(publicUrl ? [new URL(publicUrl).hostname] : [])];
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** Without its port, lower case. */
function hostName(c: Context): string {
  return (c.req.header('Host') ?? '').toLowerCase().replace(/:\d+$/, '');
}

/** Browsers name the asking site on every change; programs with a bearer token name none. */
function isCrossOrigin(c: Context): boolean {
  const site = c.req.header('Sec-Fetch-Site');
  if (site !== undefined) return site !== 'same-origin' && site !== 'none';
  const origin = c.req.header('Origin');
  if (origin === undefined) return false;
  return !URL.canParse(origin) || new URL(origin).host !== (c.req.header('Host') ?? '').toLowerCase();
}

function isHttps(c: Context): boolean {
  return new URL(c.req.url).protocol === 'https:' || c.req.header('X-Forwarded-Proto') === 'https';
}

function refused(c: Context, status: 403 | 421, error: { code: string; message: string }): Response {
  return c.json({ error: { ...error, hint: null } }, status);
}

function unauthorized(c: Context): Response {
  c.header('WWW-Authenticate', 'Bearer realm="millrace"');
  if (!c.req.header('Accept')?.includes('text/html')) {
    const error = { code: 'admin.unauthorized', message: 'the admin token is missing or wrong' };
    const hint = 'Send it as "Authorization: Bearer <ADMIN_TOKEN>".';
    return c.json({ error: { ...error, hint } }, 401);
  }
  c.header(
    'Content-Security-Policy',
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
  );
  return c.html(unauthorizedPage, 401);
}
