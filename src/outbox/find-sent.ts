/**
 * Looks whether Resend has sent a request already: for an attempt whose outcome stayed unknown for longer than
 * Resend remembers idempotency keys. Sent mail is listed, once for all who look (`sent-list.ts`); what fits by recipient
 * and subject is asked for its tags, which carry the fingerprint of the key. It needs a key that may read.
 */
import type { ProviderRequest } from '../mail/email.ts';
import { classifyResendError } from '../mail/resend-errors.ts';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { answerOf } from '../platform/rate-gate.ts';
import type { RateGate } from '../platform/rate-gate.ts';
import { createResendClient } from '../platform/resend-client.ts';
import { fingerprint } from '../streams/settled-keys.ts';
import { sendingKey } from './resend-outbound.ts';
import { createSentList, unknownOutcome } from './sent-list.ts';
import type { SentMail } from './sent-list.ts';

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
/** Mails to the same person under the same subject that one search asks for their tags. */
const MAX_CANDIDATES = 200;
const TIMEOUT_MS = 30_000;
/** Resend's clock and ours may differ, and ours may have jumped by hours since. */
export const CLOCK_MARGIN_MS = 4 * 3_600_000;

/** @throws MillraceError `outbox.outcome_unknown` (permanent) when the search is too long, or what `classifyResendError` names. */
export function createFindSent(
  { clock, gate }: { clock: Clock; gate: RateGate },
  options: FindSentOptions,
): FindSent {
  const resend = createResendClient(options);
  const sentList = createSentList({ clock });

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

  return async (request, sinceMs, signal) => {
    const mails = await sentList.since(sinceMs - CLOCK_MARGIN_MS, (after) =>
      call({ request, signal }, (init) =>
        resend.emails.list({ limit: PAGE_SIZE, ...(after === undefined ? {} : { after }) }, init),
      ),
    );
    const subject = fingerprint(request.subject);
    let asked = 0;
    for (const mail of mails) {
      const isFit = [request.to].flat().every((address) => mail.to.includes(address));
      if (!isFit || mail.subject !== subject) continue;
      if (!mail.tags && ++asked > MAX_CANDIDATES)
        throw unknownOutcome('it has sent too many like it since to look');
      mail.tags ??= (await call({ request, signal }, (init) => resend.emails.get(mail.id, init))).tags ?? [];
      if (hasTagsOf(request, mail)) return { providerId: mail.id };
    }
    return null;
  };
}

function hasTagsOf({ tags = [] }: ProviderRequest, mail: SentMail): boolean {
  return tags.every((tag) => mail.tags?.some(({ name, value }) => name === tag.name && value === tag.value));
}
