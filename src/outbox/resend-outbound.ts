/**
 * Sends one frozen request through Resend, under its idempotency key. It decides nothing: what failed is told
 * apart by kind, and whether the mail may have been accepted all the same by the code `resend.outcome_unknown`.
 *
 * Within 24 h the same key and the same request may be sent again without a second mail. Beyond, only a
 * request whose outcome is known to be a refusal may.
 */
import type { CreateEmailOptions } from 'resend';
import type { ProviderRequest } from '../mail/email.ts';
import { classifyResendError, isAnswer } from '../mail/resend-errors.ts';
import type { ResendErrorReport } from '../mail/resend-errors.ts';
import { startStopwatch } from '../platform/clock.ts';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError } from '../platform/errors.ts';
import type { RateGate, ResponseHeaders } from '../platform/rate-gate.ts';
import { answerOf, retryAfterMs } from '../platform/rate-gate.ts';
import { createResendClient } from '../platform/resend-client.ts';

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
/** Of an attempt that has not called yet: far less than the hours that the outbox leaves before a key is forgotten. */
const MAX_AGE_MS = 15 * 60_000;
/** Answers of a gateway, which cannot know what became of the request behind it. */
const GATEWAY_STATUSES: readonly unknown[] = [408, 502, 504];

export function createResendOutbound(
  { clock, gate }: { clock: Clock; gate: RateGate },
  options: ResendOutboundOptions,
): ResendOutbound {
  const resend = createResendClient(options);
  const timeoutMs = options.timeoutMs ?? 30_000;
  return {
    async send(request, idempotencyKey, signal) {
      if (!IDEMPOTENCY_KEY.test(idempotencyKey))
        throw new MillraceError(
          'bug',
          'outbox.invalid_key',
          'an idempotency key is 1 to 256 ASCII characters',
        );
      const ageMs = startStopwatch(clock);
      await gate.enter(signal, sendingKey(request));
      refuseStale(ageMs());
      using deadline = createDeadline(clock, timeoutMs, signal);
      // The SDK's type wants a union of bodies; a provider request always has a text.
      const { data, error, headers } = await resend.emails.send(request as CreateEmailOptions, {
        idempotencyKey,
        signal: deadline.signal,
      });
      gate.observe(headers, answerOf(error));
      if (typeof data?.id === 'string' && data.id !== '') return { providerId: data.id };
      signal.throwIfAborted();
      if (!error || !isClear(error)) throw outcomeUnknown(error?.message, headers);
      throw classifyResendError(error, headers);
    },
  };
}

/**
 * Whoever was stopped for long while it waited for its turn must look again before it sends: another process may have sent
 * the request meanwhile, and the provider have forgotten its key.
 * @throws MillraceError `outbox.attempt_too_old` (transient)
 */
export function refuseStale(ageMs: number): void {
  if (ageMs <= MAX_AGE_MS) return;
  throw new MillraceError(
    'transient',
    'outbox.attempt_too_old',
    `the attempt began ${Math.round(ageMs / 60_000)} minutes ago and is begun again`,
  );
}

/** By which the calls for an inbox's mail take turns with those for another's, and with those that fetch what comes in. */
export function sendingKey({ from }: Pick<ProviderRequest, 'from'>): string {
  return `sending/${from}`;
}

/** Not clear is an error with neither a name of Resend's nor a status, or with that of a gateway. */
function isClear(error: ResendErrorReport): boolean {
  return (
    isAnswer(error) || (typeof error.statusCode === 'number' && !GATEWAY_STATUSES.includes(error.statusCode))
  );
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
