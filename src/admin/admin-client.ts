/**
 * The command line's side of the admin API: asks the running daemon of this machine, found by `daemon.json`.
 */
import { z } from 'zod';
import { systemClock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError } from '../platform/errors.ts';
import type { DaemonFile } from './daemon-file.ts';

export interface AdminClient {
  /**
   * What the daemon of the same release answers needs no schema of its own: `T` is what the route gives.
   * @throws MillraceError `admin.daemon_not_running`, or what the daemon refuses (invalid); `admin.failed`
   *   (transient) where it could not do it
   */
  get<T>(path: string, query?: Record<string, string | number | undefined>): Promise<T>;
  /** JSON, or a message as it is. */
  post<T>(path: string, body: unknown): Promise<T>;
}

/** A request reads at most some 100,000 records of several streams. */
const TIMEOUT_MS = 120_000;

const MAX_STREAMS = 100_000;
const STREAMS_PAGE = 500;

const refusalSchema = z.object({
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().nullable() }),
});

export function createAdminClient({ url, token }: Pick<DaemonFile, 'url' | 'token'>): AdminClient {
  async function call<T>(path: string, init: RequestInit, type = 'application/json'): Promise<T> {
    using deadline = createDeadline(systemClock, TIMEOUT_MS);
    let response: Response;
    try {
      const headers = { Authorization: `Bearer ${token}`, 'Content-Type': type };
      response = await fetch(`${url}${path}`, { ...init, headers, signal: deadline.signal });
    } catch (cause) {
      throw new MillraceError('invalid', 'admin.daemon_not_running', `nothing answers at ${url}`, {
        hint: 'The daemon has stopped, or is very busy. Start it with `npm start`.',
        cause,
      });
    }
    const body: unknown = await response.json().catch(() => undefined);
    if (!response.ok) throw refusal(response.status, body);
    if (body === undefined)
      throw new MillraceError('transient', 'admin.failed', `the answer of ${url} broke off`, {
        hint: 'Has the daemon stopped meanwhile? Give the command again.',
      });
    return body as T;
  }

  return {
    get(path, query = {}) {
      const search = new URLSearchParams();
      for (const [name, value] of Object.entries(query))
        if (value !== undefined) search.set(name, String(value));
      return call(`${path}?${search.toString()}`, { method: 'GET' });
    },
    post: (path, body) =>
      body instanceof Uint8Array
        ? call(path, { method: 'POST', body: new Uint8Array(body) }, 'message/rfc822')
        : call(path, { method: 'POST', body: JSON.stringify(body) }),
  };
}

/** The names of streams that begin so, up to `MAX_STREAMS`. */
export async function allStreams(client: AdminClient, prefix: string): Promise<string[]> {
  const names: string[] = [];
  for (let startAfter: string | undefined; names.length < MAX_STREAMS;) {
    const query = { prefix, startAfter, limit: STREAMS_PAGE };
    const page: { names: string[]; hasMore: boolean } = await client.get('/api/admin/streams', query);
    names.push(...page.names);
    startAfter = page.names.at(-1);
    if (!page.hasMore || startAfter === undefined) break;
  }
  return names;
}

/** What the daemon says in the body of a refusal; where it says nothing, its status. */
function refusal(status: number, body: unknown): MillraceError {
  const said = refusalSchema.safeParse(body).data?.error;
  const message = said?.message ?? `the daemon answered ${status}`;
  const details = said?.hint == null ? {} : { hint: said.hint };
  if (status >= 500) return new MillraceError('transient', 'admin.failed', message, details);
  return new MillraceError('invalid', said?.code ?? 'admin.refused', message, details);
}
