/**
 * The requests of which every mail costs several: append to a stream, read it, look at its tail. They are sent
 * by undici: the SDK's, with `fetch`, take four times the CPU (docs/adr/0045). What is rare
 * (basins, streams, their configuration) is the SDK's.
 *
 * Each is sent once. A failure is thrown as the SDK would throw it, so that `s2-errors.ts` has one kind to
 * judge, or, where no answer came, as undici throws it.
 */
import { addAbortListener } from 'node:events';
import { FencingTokenMismatchError, S2Endpoints, S2Error, SeqNumMismatchError } from '@s2-dev/streamstore';
import type { S2EndpointsInit } from '@s2-dev/streamstore';
import { Pool } from 'undici';
import type { Dispatcher } from 'undici';
import { z } from 'zod';
import { wireRecordSchema } from './s2-wire.ts';
import type { NewWireRecord, WireRecord } from './s2-wire.ts';
import type { AppendAck, Retention } from './stream-store.ts';

const readBatchSchema = z.object({ records: z.array(wireRecordSchema) });
const positionSchema = z.object({ seq_num: z.number().int().nonnegative() });
const tailSchema = z.object({ tail: positionSchema });
const appendAckSchema = z.object({ start: positionSchema, end: positionSchema });

export interface S2AppendInput {
  readonly records: readonly NewWireRecord[];
  readonly matchSeqNum?: number | undefined;
  readonly fencingToken?: string | undefined;
  /** For a stream that is not there: it comes into being with this, where the basin allows that. */
  readonly createWith?: Retention | undefined;
}

export interface S2ReadInput {
  readonly fromSeqNum: number;
  readonly maxRecords: number;
  /** How long the server waits for a first record; 0 answers at once. */
  readonly waitSecs: number;
}

export interface S2Records {
  append(stream: string, input: S2AppendInput, signal: AbortSignal): Promise<AppendAck>;
  /** Null at or beyond the tail, where the server does not wait. */
  read(stream: string, input: S2ReadInput, signal: AbortSignal): Promise<readonly WireRecord[] | null>;
  tail(stream: string, signal: AbortSignal): Promise<number>;
  /** Ends what is on its way, and lets go of the connections. */
  close(): Promise<void>;
}

interface Exchange<T> {
  method: 'GET' | 'POST';
  path: string;
  headers?: Record<string, string>;
  body?: string;
  schema: z.ZodType<T>;
  signal: AbortSignal;
  /** That the request carries. */
  conditions?: Conditions;
}

type Conditions = Pick<S2AppendInput, 'matchSeqNum' | 'fencingToken'>;

/** A batch of 1 MiB in Base64 and JSON, several times over. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
const RANGE_NOT_SATISFIABLE = 416;
const PRECONDITION_FAILED = 412;

export function createS2Records(options: {
  basin: string;
  accessToken: string;
  endpoints: S2EndpointsInit;
}): S2Records {
  const endpoints = new S2Endpoints(options.endpoints);
  const base = new URL(endpoints.basinBaseUrl(options.basin));
  const root = base.pathname.replace(/\/$/u, '');
  // HTTP/1.1, so that a request that fails takes no other one with it.
  const pool = new Pool(base.origin, { allowH2: false });
  const common = {
    authorization: `Bearer ${options.accessToken}`,
    's2-format': 'base64',
    ...(endpoints.includeBasinHeader && { 's2-basin': options.basin }),
  };
  const pathOf = (stream: string, rest = ''): string =>
    `${root}/streams/${encodeURIComponent(stream)}/records${rest}`;

  async function exchange<T>(request: Exchange<T>): Promise<T> {
    const { method, path, headers, body, schema, signal } = request;
    const answer = await answerTo(
      pool,
      { method, path, headers: { ...common, ...headers }, ...(body !== undefined && { body }) },
      signal,
    );
    if (answer.status >= 200 && answer.status < 300) return schema.parse(JSON.parse(answer.text));
    throw failureOf(answer.status, answer.text, request.conditions);
  }

  return {
    async append(stream, { records, matchSeqNum, fencingToken, createWith }, signal) {
      const { start, end } = await exchange({
        method: 'POST',
        path: pathOf(stream),
        headers: {
          'content-type': 'application/json',
          ...(createWith !== undefined && { 's2-stream-config': streamConfigOf(createWith) }),
        },
        body: JSON.stringify({ records, match_seq_num: matchSeqNum, fencing_token: fencingToken }),
        schema: appendAckSchema,
        signal,
        conditions: { matchSeqNum, fencingToken },
      });
      return { startSeqNum: start.seq_num, endSeqNum: end.seq_num };
    },
    async read(stream, { fromSeqNum, maxRecords, waitSecs }, signal) {
      const wait = waitSecs > 0 ? `&wait=${waitSecs}` : '';
      const path = pathOf(stream, `?seq_num=${fromSeqNum}&count=${maxRecords}${wait}`);
      try {
        return (await exchange({ method: 'GET', path, schema: readBatchSchema, signal })).records;
      } catch (error) {
        if (error instanceof S2Error && error.status === RANGE_NOT_SATISFIABLE) return null;
        throw error;
      }
    },
    async tail(stream, signal) {
      const path = pathOf(stream, '/tail');
      return (await exchange({ method: 'GET', path, schema: tailSchema, signal })).tail.seq_num;
    },
    close: () => pool.destroy(),
  };
}

/** Sends it, and gathers the answer; the body without a stream of its own, which would cost as much as the rest. */
async function answerTo(
  pool: Pool,
  request: Dispatcher.DispatchOptions,
  signal: AbortSignal,
): Promise<{ status: number; text: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
  const chunks: Buffer[] = [];
  let status = 0;
  let bytes = 0;
  let exchange: Dispatcher.DispatchController | undefined;
  using _aborting = addAbortListener(signal, () => {
    reject(signal.reason);
    exchange?.abort(signal.reason as Error);
  });
  pool.dispatch(request, {
    onRequestStart(controller) {
      exchange = controller;
      // It waited for a connection meanwhile.
      if (signal.aborted) controller.abort(signal.reason as Error);
    },
    onResponseStart(_controller, statusCode) {
      status = statusCode;
    },
    onResponseData(controller, chunk) {
      bytes += chunk.length;
      chunks.push(chunk);
      if (bytes > MAX_ANSWER_BYTES) controller.abort(new Error(`an answer above ${MAX_ANSWER_BYTES} bytes`));
    },
    onResponseEnd: () => resolve({ status, text: Buffer.concat(chunks, bytes).toString('utf8') }),
    onResponseError: (_controller, error) => reject(error),
  });
  return await promise;
}

function streamConfigOf(retention: Retention): string {
  return JSON.stringify({
    retention_policy: retention === 'forever' ? { infinite: {} } : { age: retention },
  });
}

/** What S2 says with a status that is no success; a proxy in between may say anything. */
const failureSchema = z.looseObject({
  message: z.string().optional(),
  code: z.string().optional(),
  seq_num_mismatch: z.number().optional(),
  fencing_token_mismatch: z.string().optional(),
});

/**
 * A condition has failed only where the request had it, and had it otherwise than the answer says. Any other 412 is a
 * failure like a 500: of a server that is restarted, or of whoever stands between.
 */
function failureOf(status: number, text: string, conditions: Conditions = {}): S2Error {
  const { message = `HTTP status ${status}`, code, ...mismatch } = parseFailure(text);
  const { seq_num_mismatch: expectedSeqNum, fencing_token_mismatch: expectedFencingToken } = mismatch;
  const { matchSeqNum = expectedSeqNum, fencingToken = expectedFencingToken } = conditions;
  if (status === PRECONDITION_FAILED && expectedSeqNum !== undefined && matchSeqNum !== expectedSeqNum)
    return new SeqNumMismatchError({ message, status, expectedSeqNum });
  if (
    status === PRECONDITION_FAILED &&
    expectedFencingToken !== undefined &&
    fencingToken !== expectedFencingToken
  )
    return new FencingTokenMismatchError({ message, status, expectedFencingToken });
  return new S2Error({ message, status, origin: 'server', ...(code !== undefined && { code }) });
}

function parseFailure(text: string): z.infer<typeof failureSchema> {
  try {
    return failureSchema.safeParse(JSON.parse(text)).data ?? {};
  } catch {
    return {};
  }
}
