/**
 * Serves the console's page: files written by hand, without a build, a framework or anything external.
 *
 * The policy lets only our own scripts run. Styles may stand inline, because the HTML of a reply is shown in a
 * frame that inherits this policy (`srcdoc`); the page itself never makes HTML from anything that it was sent.
 */
import { readFileSync } from 'node:fs';
import type { Hono } from 'hono';

const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "frame-src 'none'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

/** In the page: nothing can be written there. */
const REAL_MAIL = 'data-mail="real"';

const FILES: readonly (readonly [name: string, contentType: string])[] = [
  ['icon.svg', 'image/svg+xml'],
  ...['page.css', 'composer.css', 'thread.css', 'panel.css'].map(
    (name) => [name, 'text/css; charset=utf-8'] as const,
  ),
  ...[
    'page.js',
    'thread.js',
    'flow.js',
    'composer.js',
    'panel.js',
    'trace.js',
    'redrive.js',
    'api.js',
    'element.js',
  ].map((name) => [name, 'text/javascript; charset=utf-8'] as const),
];

/** Adds `GET /` and `GET /mailbox/<file>`; what is missing is noticed here, at start. */
export function addMailboxPage(app: Hono, { isLocal }: { isLocal: boolean }): void {
  const page = readPart('page.html').replace(REAL_MAIL, isLocal ? 'data-mail="local"' : REAL_MAIL);
  app.get('/', (c) => {
    c.header('Content-Security-Policy', CONTENT_SECURITY_POLICY);
    c.header('Cross-Origin-Opener-Policy', 'same-origin');
    return c.html(page);
  });
  for (const [name, contentType] of FILES) {
    const content = readPart(name);
    app.get(`/mailbox/${name}`, (c) =>
      c.body(content, 200, { 'Content-Type': contentType, 'X-Content-Type-Options': 'nosniff' }),
    );
  }
}

function readPart(name: string): string {
  return readFileSync(new URL(`mailbox-page/${name}`, import.meta.url), 'utf8');
}
