/**
 * The owner's account at Resend, as far as setting up needs it: what the key may do, the domain and its DNS
 * records, and the webhook. Every call has a time limit and is repeated while its failure is transient;
 * whoever calls gets an answer or a `MillraceError`.
 *
 * Nothing here is Millrace's flow of mail: it runs when a person sets a server up, or asks how it stands.
 */
import type { DomainRecords, GetDomainResponseSuccess, Resend } from 'resend';
import { classifyResendError } from '../mail/resend-errors.ts';
import type { ResendErrorReport } from '../mail/resend-errors.ts';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import type { ResponseHeaders } from '../platform/rate-gate.ts';
import { createResendClient } from '../platform/resend-client.ts';
import { backoffMs } from '../platform/retry.ts';

/** `full` reads and manages; `sending` is of use to the outbox alone. */
export type KeyScope = 'full' | 'sending' | 'refused';

export interface AccountDomain {
  readonly id: string;
  readonly name: string;
  readonly status: GetDomainResponseSuccess['status'];
  readonly receives: boolean;
  readonly records: readonly DomainRecords[];
}

export interface AccountWebhook {
  readonly id: string;
  readonly endpoint: string;
  readonly isEnabled: boolean;
  readonly events: readonly string[];
  readonly signingSecret: string;
}

export interface ResendAccount {
  /** What the key may do, by the cheapest question that only a full one may ask. */
  keyScope(): Promise<KeyScope>;
  /** Null where the account has no domain of this name. */
  findDomain(name: string): Promise<AccountDomain | null>;
  enableReceiving(domainId: string): Promise<void>;
  /** Asks Resend to look at the domain's DNS records again. */
  verifyDomain(domainId: string): Promise<void>;
  findWebhook(endpoint: string): Promise<AccountWebhook | null>;
  /** All for this endpoint: two while its signing secret is being replaced. */
  findWebhooks(endpoint: string): Promise<AccountWebhook[]>;
  removeWebhook(id: string): Promise<void>;
  createWebhook(endpoint: string, events: WebhookEvents): Promise<AccountWebhook>;
  /** Makes it post these events again, whatever it did before. */
  updateWebhook(id: string, events: WebhookEvents): Promise<void>;
}

export type WebhookEvents = Parameters<Resend['webhooks']['create']>[0]['events'];

interface Answer<T> {
  data: T | null;
  error: ResendErrorReport | null;
  headers: ResponseHeaders;
}

const CALL_TIMEOUT_MS = 15_000;
const MAX_ATTEMPTS = 5;
const BACKOFF = { baseMs: 500, maxMs: 8_000 };
const PAGE_SIZE = 100;
/** A page holds a hundred: an account with more domains or webhooks than this is not what we set up for. */
const MAX_PAGES = 20;

export function createResendAccount(
  clock: Clock,
  options: { apiKey: string; baseUrl?: string },
): ResendAccount {
  const resend = createResendClient(options);

  /** @throws MillraceError as `classifyResendError` says, after the last attempt. */
  async function ask<T>(call: (signal: AbortSignal) => Promise<Answer<T>>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      const { data, error, headers } = await attemptOnce(call);
      if (data !== null && !error) return data;
      const failure = classifyResendError(error ?? {}, headers);
      // A key that is refused stays refused while somebody waits at a terminal.
      const isHopeless = failure.kind !== 'transient' || failure.code === 'resend.unauthorized';
      if (isHopeless || attempt === MAX_ATTEMPTS) throw failure;
      const waitMs = Math.max(failure.retryAfterMs ?? 0, backoffMs(attempt, BACKOFF, clock.random));
      await clock.sleep(Math.min(waitMs, BACKOFF.maxMs));
    }
  }

  async function attemptOnce<T>(call: (signal: AbortSignal) => Promise<Answer<T>>): Promise<Answer<T>> {
    using deadline = createDeadline(clock, CALL_TIMEOUT_MS);
    return call(deadline.signal);
  }

  /** Those of a list that fit, over all of its pages. */
  async function findIn<T extends { id: string }>(
    list: (page: { limit: number; after?: string }, signal: AbortSignal) => Promise<Answer<Page<T>>>,
    fits: (one: T) => boolean,
  ): Promise<T[]> {
    const found: T[] = [];
    let after: string | undefined;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const from = after === undefined ? {} : { after };
      const { data, has_more: hasMore } = await ask((signal) => list({ limit: PAGE_SIZE, ...from }, signal));
      found.push(...data.filter(fits));
      after = data.at(-1)?.id;
      if (!hasMore || after === undefined) break;
    }
    return found;
  }

  async function findWebhooks(endpoint: string): Promise<AccountWebhook[]> {
    const found = await findIn(
      (page, signal) => resend.webhooks.list(page, { signal }),
      (webhook) => sameEndpoint(webhook.endpoint, endpoint),
    );
    const webhooks: AccountWebhook[] = [];
    for (const { id } of found) {
      const webhook = await ask((signal) => resend.webhooks.get(id, { signal }));
      webhooks.push({
        id,
        endpoint: webhook.endpoint,
        isEnabled: webhook.status === 'enabled',
        events: webhook.events ?? [],
        signingSecret: webhook.signing_secret,
      });
    }
    return webhooks;
  }

  return {
    async keyScope() {
      const { data, error, headers } = await attemptOnce((signal) =>
        resend.domains.list({ limit: 1 }, { signal }),
      );
      if (data) return 'full';
      if (error?.name === 'restricted_api_key') return 'sending';
      if (REFUSED.has(error?.name ?? '')) return 'refused';
      throw classifyResendError(error ?? {}, headers);
    },
    async findDomain(name) {
      const [found] = await findIn(
        (page, signal) => resend.domains.list(page, { signal }),
        (domain) => domain.name.toLowerCase() === name.toLowerCase(),
      );
      if (!found) return null;
      const domain = await ask((signal) => resend.domains.get(found.id, { signal }));
      return {
        id: domain.id,
        name: domain.name,
        status: domain.status,
        receives: domain.capabilities.receiving === 'enabled',
        records: domain.records,
      };
    },
    async enableReceiving(domainId) {
      const capabilities = { receiving: 'enabled' } as const;
      await ask((signal) => resend.domains.update({ id: domainId, capabilities }, { signal }));
    },
    async verifyDomain(domainId) {
      await ask((signal) => resend.domains.verify(domainId, { signal }));
    },
    findWebhook: async (endpoint) => (await findWebhooks(endpoint))[0] ?? null,
    findWebhooks,
    async removeWebhook(id) {
      await ask((signal) => resend.webhooks.remove(id, { signal }));
    },
    async createWebhook(endpoint, events) {
      // Repeating a lost answer would make a second one, so this is asked once; a second run finds it.
      const { data, error, headers } = await attemptOnce((signal) =>
        resend.webhooks.create({ endpoint, events: [...events] }, { signal }),
      );
      if (!data) throw classifyResendError(error ?? {}, headers);
      return { id: data.id, endpoint, isEnabled: true, events, signingSecret: data.signing_secret };
    },
    async updateWebhook(id, events) {
      await ask((signal) =>
        resend.webhooks.update(id, { events: [...events], status: 'enabled' }, { signal }),
      );
    },
  };
}

interface Page<T> {
  data: T[];
  has_more: boolean;
}

const REFUSED: ReadonlySet<string> = new Set(['missing_api_key', 'invalid_api_key', 'suspended_api_key']);

/** The same but for a slash at the end and the case of the host. */
function sameEndpoint(one: string, other: string): boolean {
  return normalized(one) === normalized(other);
}

function normalized(endpoint: string): string {
  return URL.canParse(endpoint) ? new URL(endpoint).href.replace(/\/+$/, '') : endpoint;
}
