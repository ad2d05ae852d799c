/**
 * The admin API over HTTP: what the command line asks the daemon, which owns the streams. Mounted behind
 * `adminAuth`, whatever provider there is. docs/admin-api.md says what each route takes and gives.
 *
 * - `GET /api/admin/dead-letters`: 200, a page of one stage's dead letters.
 * - `POST /api/admin/redrive`: 200, which dead letters were put back; the same request again puts none back twice.
 * - `POST /api/admin/replay`: 200, which mails run again; 422 where no such inbox is served.
 * - `GET /api/admin/trace`: 200, the whole life of an email; 404.
 * - `GET /api/admin/streams`: 200, a page of names.
 * - `GET /api/admin/streams/records`: 200, records of one stream; an empty list at its tail.
 *
 * All of them: 401 and 421 (`admin-auth.ts`); 422 for parameters that are not right; 503 where the stream store is
 * not to be reached. Those with a body: 403, 413, 415. Every list is bounded, and says where to go on.
 */
import { Hono } from 'hono';
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { deadLettersQuery, redriveBody, replayBody } from './admin-parameters.ts';
import { recordsQuery, streamsQuery, traceQuery } from './look-parameters.ts';
import { answerApiError, checked, jsonBody, readJsonBody } from './api-errors.ts';
import { listDeadLetters } from './dead-letters.ts';
import { redrive } from './redrive.ts';
import { replay } from './replay.ts';
import { createRerun } from './rerun.ts';
import { assertInbox, stageStreams } from './stage-streams.ts';
import { jsonOf } from '../streams/stream-scan.ts';
import { emailIdsOf, traceEmail } from './trace.ts';
import { stepWords } from './trace-text.ts';
import type { EmailTrace } from './trace.ts';

export interface AdminRoutesDeps {
  store: StreamStore;
  /** Names of the inboxes that are served now. */
  inboxes: () => readonly string[];
  clock: Clock;
  log: Log;
}

const MAX_BODY_BYTES = 16 * 1024;

export function createAdminRoutes(deps: AdminRoutesDeps): Hono {
  const { store, clock, log } = deps;
  const rerun = createRerun(deps);
  const app = new Hono();
  app.onError((error, c) => answerApiError(error, c, log));

  app.get('/api/admin/dead-letters', async (c) => {
    const query = checked(deadLettersQuery, c.req.query());
    const isOpen = query.open === 'true';
    const range = { fromSeqNum: query.from, limit: query.limit, isOpen, signal: c.req.raw.signal };
    return c.json(await listDeadLetters({ store, rerun }, stageStreams(stageOf(query)), range));
  });

  app.post('/api/admin/redrive', jsonBody(MAX_BODY_BYTES), async (c) => {
    const { seqNums: range, from, isKnownUnsent, ...which } = checked(redriveBody, await readJsonBody(c));
    const request = { seqNums: range === 'all' ? null : range, from, isKnownUnsent };
    const { signal } = c.req.raw;
    return c.json(await redrive({ store, rerun, clock }, stageStreams(stageOf(which)), { request, signal }));
  });

  app.post('/api/admin/replay', jsonBody(MAX_BODY_BYTES), async (c) => {
    const body = checked(replayBody, await readJsonBody(c));
    const inbox = assertInbox((body.inbox ?? body.unroutedTo)!);
    if (!deps.inboxes().includes(inbox)) throw notServed(inbox);
    const request = {
      id: body.id,
      of: body.unroutedTo === undefined ? { inbox } : { unroutedTo: inbox },
      select: {
        seqNums: body.seqNums,
        sinceMs: body.since === undefined ? undefined : Date.parse(body.since),
        emailId: body.emailId,
      },
      page: body.page,
      isDryRun: body.isDryRun,
    };
    return c.json(await replay({ store, rerun }, request, c.req.raw.signal));
  });

  app.get('/api/admin/trace', async (c) => {
    const { id } = checked(traceQuery, c.req.query());
    const emails: EmailTrace[] = [];
    for (const found of await emailIdsOf(store, id, c.req.raw.signal)) {
      const trace = await traceEmail(store, found, c.req.raw.signal);
      if (trace) emails.push(trace);
    }
    if (emails.length === 0) throw notFound();
    return c.json({ emails: emails.map(inWords) });
  });

  app.get('/api/admin/streams', async (c) => {
    const { prefix, startAfter, limit } = checked(streamsQuery, c.req.query());
    const after = startAfter === undefined ? {} : { startAfter };
    return c.json(await store.list({ prefix, limit, ...after, signal: c.req.raw.signal }));
  });

  app.get('/api/admin/streams/records', async (c) => {
    const { name, from, count } = checked(recordsQuery, c.req.query());
    const stream = store.stream(name);
    const { signal } = c.req.raw;
    const tail = await stream.tail(signal);
    const fromSeqNum = from ?? Math.max(0, tail - count);
    const batch = await stream.read({ fromSeqNum, maxRecords: count, signal });
    const { nextSeqNum, missing = null } = batch;
    return c.json({ name, tail, records: batch.records.map(shownRecord), nextSeqNum, missing });
  });
  return app;
}

/** The steps with what they are in words, for who only shows them. */
function inWords(trace: EmailTrace) {
  return { ...trace, steps: trace.steps.map((step) => ({ ...step, ...stepWords(step) })) };
}

function stageOf(which: { stage?: 'receive' | 'outbox' | undefined; inbox?: string | undefined }) {
  return which.stage === undefined ? { inbox: which.inbox! } : { stage: which.stage };
}

/** The body as JSON where it is some, as text where it is UTF-8, otherwise as base64. */
function shownRecord(record: StreamRecord) {
  const { seqNum: number, timestampMs, headers } = record;
  const base = { seqNum: number, at: new Date(timestampMs).toISOString(), headers };
  const json = jsonOf(record);
  if (json !== undefined) return { ...base, json };
  try {
    return { ...base, text: new TextDecoder('utf-8', { fatal: true }).decode(record.body) };
  } catch {
    return { ...base, base64: Buffer.from(record.body).toString('base64') };
  }
}

function notServed(inbox: string): MillraceError {
  return new MillraceError('invalid', 'rerun.not_served', `no tool serves the inbox ${inbox}`, {
    hint: 'Bring the tool back first, or name an inbox that is served now.',
  });
}

function notFound(): MillraceError {
  return new MillraceError('invalid', 'admin.not_found', 'no stream knows of this email', {
    hint: 'It may have expired (RETENTION_DAYS). Ids of emails and Message-IDs are taken, as `millrace streams read events` shows them.',
  });
}
