/**
 * Looks whether Resend has sent a request already: for an attempt whose outcome stayed unknown for longer than
 * Resend remembers idempotency keys. Sent mail is listed newest first; what fits by recipient and subject is
 * asked for its tags, which carry the fingerprint of the key. It needs a key that may read.
 */
import type { ProviderRequest } from '../mail/email.ts';
import { classifyResendError } from '../mail/resend-errors.ts';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError } from '../platform/errors.ts';
import { answerOf } from '../platform/rate-gate.ts';
import type { RateGate } from '../platform/rate-gate.ts';
import { createResendClient } from '../platform/resend-client.ts';
import { sendingKey } from './resend-outbound.ts';

export interface FindSentOptions {
  apiKey: string;
  baseUrl?: string;
}

export type FindSent = (
  request: ProviderRequest,
  sinceMs: number,
  signal: AbortSignal,
) => Promise<{ providerId: string } | null>;

const PAGE_SIZE = 100;
/** More mail than this since the attempt, and the search gives up. */
const MAX_PAGES = 100;
const MAX_CANDIDATES = 200;
const TIMEOUT_MS = 30_000;
/** Resend's clock and ours may differ, and ours may have jumped by an hour since. */
export const CLOCK_MARGIN_MS = 2 * 3_600_000;

/** @throws MillraceError `outbox.outcome_unknown` (permanent) when the search is too long, or what `classifyResendError` names. */
export function createFindSent(
  { clock, gate }: { clock: Clock; gate: RateGate },
  options: FindSentOptions,
): FindSent {
  const resend = createResendClient(options);

  async function call<T>(
    { request, signal }: { request: ProviderRequest; signal: AbortSignal },
    method: (options: {
      signal: AbortSignal;
    }) => Promise<{ data: T | null; error: unknown; headers: unknown }>,
  ): Promise<T> {
    await gate.enter(signal, sendingKey(request));
    using deadline = createDeadline(clock, TIMEOUT_MS, signal);
    const answer = await method({ signal: deadline.signal });
    const headers = answer.headers as Parameters<RateGate['observe']>[0];
    const error = answer.error as Parameters<typeof classifyResendError>[0] | null;
    gate.observe(headers, answerOf(error));
    signal.throwIfAborted();
    // A key that may only send never can: waiting would not help.
    if (error?.name === 'restricted_api_key') throw unknownOutcome('the key may not read');
    if (answer.data === null || error !== null) throw classifyResendError(error ?? {}, headers);
    return answer.data;
  }

  async function hasTags(id: string, request: ProviderRequest, signal: AbortSignal): Promise<boolean> {
    const mail = await call({ request, signal }, (init) => resend.emails.get(id, init));
    return (request.tags ?? []).every((tag) =>
      mail.tags?.some(({ name, value }) => name === tag.name && value === tag.value),
    );
  }

  return async (request, sinceMs, signal) => {
    let candidates = 0;
    let after: string | undefined;
    for (let page = 0; page < MAX_PAGES && candidates <= MAX_CANDIDATES; page++) {
      const list = await call({ request, signal }, (init) =>
        resend.emails.list({ limit: PAGE_SIZE, ...(after === undefined ? {} : { after }) }, init),
      );
      for (const mail of list.data) {
        if (Date.parse(mail.created_at) < sinceMs - CLOCK_MARGIN_MS) return null;
        const isFit = [request.to].flat().every((address) => mail.to.includes(address));
        if (!isFit || mail.subject !== request.subject) continue;
        candidates++;
        if (await hasTags(mail.id, request, signal)) return { providerId: mail.id };
      }
      after = list.data.at(-1)?.id;
      if (!list.has_more || after === undefined) return null;
    }
    throw unknownOutcome('it has sent too many since to look');
  };
}

function unknownOutcome(why: string): MillraceError {
  return new MillraceError(
    'permanent',
    'outbox.outcome_unknown',
    `it is not known whether Resend has sent this mail, and ${why}`,
    { hint: 'Look for the mail in Resend. If it is not there, redrive the dead letter with --not-sent.' },
  );
}
