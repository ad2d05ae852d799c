/**
 * Resend's SDK, with the requests sent by Node's HTTP client in place of `fetch` (docs/adr/0049). The SDK makes the
 * requests; what it makes of answers and failures is repeated here, and a test holds it against the SDK's own.
 * What is not one of the plain calls of our own, and an answer that redirects, is left to the SDK whole.
 */
import type { IncomingMessage } from 'node:http';
import { Resend } from 'resend';
import type { ErrorResponse, Response } from 'resend';
import { sendRequest, textOf } from './http-request.ts';

/** What the SDK asks `fetchRequest` for. */
interface SdkRequest {
  readonly method?: string;
  readonly headers?: Headers;
  readonly body?: unknown;
  readonly signal?: AbortSignal;
}

/** Several times the largest mail that Resend takes, whose texts come in an answer. */
const MAX_ANSWER_BYTES = 128 * 1024 * 1024;
/** Without what would be resolved, escaped or refused. */
const PLAIN_PATH = /^\/[\w/-]+(?:\?[\w=&-]*)?$/;
/** As the SDK has it where no answer came, or none that can be read. */
const UNRESOLVED: ErrorResponse = {
  name: 'application_error',
  statusCode: null,
  message: 'Unable to fetch data. The request could not be resolved.',
};

export function createResendClient({ apiKey, baseUrl }: { apiKey: string; baseUrl?: string }): Resend {
  return new ResendOverHttp(apiKey, baseUrl === undefined ? {} : { baseUrl });
}

class ResendOverHttp extends Resend {
  override async fetchRequest<T>(path: string, options: SdkRequest = {}): Promise<Response<T>> {
    const { method = 'GET', headers = new Headers(), body, signal } = options;
    const isPlain = PLAIN_PATH.test(path) && (body === undefined || typeof body === 'string');
    if (!isPlain) return super.fetchRequest<T>(path, options);
    try {
      const response = await sendRequest(new URL(`${this.baseUrl}${path}`), {
        method,
        // As `fetch` has it.
        headers: { accept: '*/*', ...Object.fromEntries(headers) },
        body,
        signal,
      });
      if (!isRedirect(response)) return await answerOf<T>(response, signal);
      response.destroy();
    } catch {
      return { data: null, error: UNRESOLVED, headers: null };
    }
    return super.fetchRequest<T>(path, options);
  }
}

function isRedirect({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 300 && statusCode <= 399;
}

/** @throws what leaves the outcome open */
async function answerOf<T>(response: IncomingMessage, signal: AbortSignal | undefined): Promise<Response<T>> {
  const { statusCode = 0 } = response;
  const headers = headersOf(response);
  if (statusCode >= 200 && statusCode <= 299)
    return { data: JSON.parse(await textOf(response, MAX_ANSWER_BYTES)) as T, error: null, headers };
  try {
    const error = JSON.parse(await textOf(response, MAX_ANSWER_BYTES)) as ErrorResponse;
    return { data: null, error, headers };
  } catch (failure) {
    if (signal?.aborted) throw failure;
    const message = failure instanceof Error ? failure.message : 'an answer that cannot be read';
    return { data: null, error: { name: 'application_error', statusCode, message }, headers };
  }
}

function headersOf({ headers }: IncomingMessage): Record<string, string> {
  const told: Record<string, string> = {};
  for (const [name, value = ''] of Object.entries(headers))
    told[name] = typeof value === 'string' ? value : value.join(', ');
  return told;
}
