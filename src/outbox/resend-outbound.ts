/**
 * Sends one frozen request through Resend, under its idempotency key. It decides nothing: what failed is told
 * apart by kind, and whether the mail may have been accepted all the same by the code `resend.outcome_unknown`.
 *
 * Within 24 h the same key and the same request may be sent again without a second mail. Beyond, only a
 * request whose outcome is known to be a refusal may.
 */
import { Resend } from 'resend';
import type { CreateEmailOptions } from 'resend';
import type { ProviderRequest } from '../mail/email.ts';
import { classifyResendError } from '../mail/resend-errors.ts';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError } from '../platform/errors.ts';
import type { RateGate, ResponseHeaders } from '../platform/rate-gate.ts';
import { retryAfterMs } from '../platform/rate-gate.ts';

export interface ResendOutbound {
  /**
   * @returns Resend's id of the mail
   * @throws MillraceError `resend.outcome_unknown` (transient), or what `classifyResendError` names;
   *   or the signal's reason, after which the outcome is unknown, too
   */
  send(
    request: ProviderRequest,
    idempotencyKey: string,
    signal: AbortSignal,
  ): Promise<{ providerId: string }>;
}

export interface ResendOutboundOptions {
  apiKey: string;
  baseUrl?: string;
  /** For one attempt (default 30 s). */
  timeoutMs?: number;
}

/** Resend's limit is 256 characters; they travel in a header. */
const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,256}$/;
/** Answers of a gateway, which cannot know what became of the request behind it. */
const GATEWAY_STATUSES: readonly unknown[] = [408, 502, 504];

export function createResendOutbound(
  { clock, gate }: { clock: Clock; gate: RateGate },
  options: ResendOutboundOptions,
): ResendOutbound {
  const resend = new Resend(
    options.apiKey,
    options.baseUrl === undefined ? {} : { baseUrl: options.baseUrl },
  );
  const timeoutMs = options.timeoutMs ?? 30_000;
  return {
    async send(request, idempotencyKey, signal) {
      if (!IDEMPOTENCY_KEY.test(idempotencyKey))
        throw new MillraceError(
          'bug',
          'outbox.invalid_key',
          'an idempotency key is 1 to 256 ASCII characters',
        );
      await gate.enter(signal, sendingKey(request));
      using deadline = createDeadline(clock, timeoutMs, signal);
      // The SDK's type wants a union of bodies; a provider request always has a text.
      const { data, error, headers } = await resend.emails.send(request as CreateEmailOptions, {
        idempotencyKey,
        signal: deadline.signal,
      });
      gate.observe(headers, error?.name === 'rate_limit_exceeded');
      if (typeof data?.id === 'string' && data.id !== '') return { providerId: data.id };
      signal.throwIfAborted();
      // No status: no answer, or one that is not JSON. No error either: a 200 without an id.
      if (typeof error?.statusCode !== 'number' || GATEWAY_STATUSES.includes(error.statusCode))
        throw outcomeUnknown(error?.message, headers);
      throw classifyResendError(error, headers);
    },
  };
}

/** By which the calls for an inbox's mail take turns with those for another's, and with those that fetch what comes in. */
export function sendingKey({ from }: Pick<ProviderRequest, 'from'>): string {
  return `sending/${from}`;
}

function outcomeUnknown(said: string | undefined, headers: ResponseHeaders): MillraceError {
  const waitMs = retryAfterMs(headers);
  return new MillraceError(
    'transient',
    'resend.outcome_unknown',
    `Resend gave no clear answer; the mail may have been accepted${said ? `: ${said}` : ''}`,
    waitMs ? { retryAfterMs: waitMs } : {},
  );
}
