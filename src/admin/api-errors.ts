/**
 * Errors of the admin API, as every route answers them: JSON `{error: {code, message, hint}}`, the status by the
 * error's kind. What is not ours is answered without a word of it: it may hold anything.
 */
import type { Context } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { z } from 'zod';
import { MillraceError, errorKind } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';

/** Of a path, in a message. */
const MAX_SHOWN = 200;
const STATUSES = { transient: 503, permanent: 500, invalid: 422 } as const;

/** 422 for what was refused, 404 for what is not there, 503 where the store is not to be reached, or 500. */
export function answerApiError(error: Error, c: Context, log: Log): Response {
  const kind = errorKind(error);
  if (!(error instanceof MillraceError) || kind === 'bug') {
    log.error({ error, method: c.req.method, path: c.req.path }, 'admin.request_failed');
    const hint = 'The log says more.';
    return c.json({ error: { code: 'admin.internal', message: 'this should not have happened', hint } }, 500);
  }
  const { code, message, hint } = error;
  const status: ContentfulStatusCode = code === 'admin.not_found' ? 404 : STATUSES[kind];
  return c.json({ error: { code, message, hint: hint ?? null } }, status);
}

/** Behind all routes: 404 for a path or a method that none of them has. */
export function answerNoRoute(c: Context): Response {
  const message = `there is no ${c.req.method} ${c.req.path.slice(0, MAX_SHOWN)}`;
  return c.json(
    { error: { code: 'admin.not_found', message, hint: 'docs/admin-api.md lists the routes.' } },
    404,
  );
}

/**
 * The parameters of a request, checked.
 * @throws MillraceError `admin.invalid_request` (invalid), which lists every fault
 */
export function checked<T>(schema: z.ZodType<T>, parameters: unknown): T {
  const parsed = schema.safeParse(parameters);
  if (parsed.success) return parsed.data;
  throw new MillraceError('invalid', 'admin.invalid_request', z.prettifyError(parsed.error), {
    hint: 'docs/admin-api.md lists what each route takes.',
  });
}

/** @throws MillraceError `admin.not_json` (invalid) */
export async function readJsonBody(c: Context): Promise<unknown> {
  const text = await c.req.text();
  try {
    return JSON.parse(text);
  } catch {
    // Without its cause: that quotes the body.
    throw new MillraceError('invalid', 'admin.not_json', 'the body is not JSON');
  }
}

/** Middleware: 413 beyond so many bytes, 415 for a body that does not say that it is JSON. */
export function jsonBody(maxSize: number) {
  const limit = bodyLimit({
    maxSize,
    onError: (c) => {
      const message = `the body exceeds ${maxSize} bytes`;
      return c.json({ error: { code: 'admin.too_large', message, hint: null } }, 413);
    },
  });
  return async (c: Context, next: () => Promise<void>): Promise<Response | void> => {
    if (/^application\/json\b/i.test(c.req.header('Content-Type') ?? '')) return limit(c, next);
    const message = 'the body is sent as application/json';
    return c.json({ error: { code: 'admin.not_json', message, hint: null } }, 415);
  };
}
