/**
 * What a request to S2 throws, as our errors: by class, status and code, never by message. An answer of the server is
 * one of the SDK's errors, whoever sent the request; where none came it is the SDK's or undici's.
 *
 * The question that matters for an append is whether it may have happened. The SDK knows some cases in which
 * it surely did not (`hasNoSideEffects`: refused connections, rate limits, a server that is draining), and a
 * refusal by status 4xx is another. Everything else, such as a lost answer, is in doubt.
 */
import { FencingTokenMismatchError, S2Error, SeqNumMismatchError } from '@s2-dev/streamstore';
import { MillraceError, errorMessage } from '../platform/errors.ts';
import { StreamConditionError } from './stream-store.ts';

/**
 * Our error for a failed request.
 * @param isAppend a failure that may have had its effect is then `streams.append_ambiguous`
 */
export function s2Failure(error: unknown, isAppend: boolean): MillraceError {
  if (error instanceof MillraceError) return error;
  if (error instanceof SeqNumMismatchError) {
    return new StreamConditionError(
      'streams.seq_num_mismatch',
      `the next sequence number is ${error.expectedSeqNum}`,
      error.expectedSeqNum,
      error,
    );
  }
  if (error instanceof FencingTokenMismatchError) {
    // The other owner's token is nobody's business in a log.
    return new StreamConditionError('streams.fenced', 'the stream is held by another fencing token');
  }
  if (isUnauthorized(error)) {
    return new MillraceError('transient', 'streams.unauthorized', 'S2 does not accept the access token', {
      hint: 'Check S2_ACCESS_TOKEN: it must be valid and may create, configure, read and append in S2_BASIN.',
      cause: error,
    });
  }
  if (isRefusal(error)) {
    // What we send is well-formed (`append-rules.ts`), so it is not the fault of a mail, and must not park it.
    return new MillraceError('transient', 'streams.refused', `S2 refused a request: ${errorMessage(error)}`, {
      hint: 'Compare the versions of the S2 server and of this release, and look at what stands between.',
      cause: error,
    });
  }
  if (isAppend && !hadNoEffect(error)) {
    return new MillraceError('transient', 'streams.append_ambiguous', 'an append lost its acknowledgement', {
      cause: error,
    });
  }
  return new MillraceError('transient', 'streams.unavailable', `S2: ${errorMessage(error)}`, {
    hint: 'Check that the S2 endpoints can be reached and that S2_BASIN exists.',
    cause: error,
  });
}

export function isStreamNotFound(error: unknown): boolean {
  return error instanceof S2Error && error.status === 404 && error.code === 'stream_not_found';
}

export function isBasinNotFound(error: unknown): boolean {
  return error instanceof S2Error && error.status === 404 && error.code === 'basin_not_found';
}

/** What we wanted to create is there already. */
export function isAlreadyThere(error: unknown): boolean {
  return error instanceof S2Error && error.status === 409 && error.code === 'resource_already_exists';
}

function isUnauthorized(error: unknown): boolean {
  return error instanceof S2Error && (error.status === 401 || error.status === 403);
}

/**
 * 4xx that other circumstances can turn into a success: time-out, conflict, rate, something not there (yet), and a
 * condition that we did not set.
 */
const RETRYABLE_CLIENT_STATUSES: readonly number[] = [404, 408, 409, 412, 429];

/** The server does not take the request, and would not take it tomorrow unless it, or who stands between, is mended. */
function isRefusal(error: unknown): boolean {
  return isClientError(error) && !RETRYABLE_CLIENT_STATUSES.includes(error.status);
}

/** No connection came about, so that nothing was sent; as undici names it. */
const NOT_CONNECTED: readonly unknown[] = ['ECONNREFUSED', 'ENOTFOUND', 'UND_ERR_CONNECT_TIMEOUT'];

function hadNoEffect(error: unknown): boolean {
  if (!(error instanceof S2Error))
    return error instanceof Error && 'code' in error && NOT_CONNECTED.includes(error.code);
  return error.hasNoSideEffects() || (isClientError(error) && error.status !== 408);
}

function isClientError(error: unknown): error is S2Error {
  return error instanceof S2Error && error.origin === 'server' && error.status >= 400 && error.status < 500;
}
