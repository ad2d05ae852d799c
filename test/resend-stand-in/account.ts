/**
 * The account behind the key: its domains with their DNS records, and its webhooks with their signing secrets.
 * Shapes are those of resend@6.38.0; a rotated secret signs along with the new one, as Svix does for 24 h.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import type { StandInDomain, WebhookTarget } from './contract.ts';
import { ApiError } from './errors.ts';
import type { StandInState } from './state.ts';

interface StoredWebhook {
  readonly id: string;
  readonly created_at: string;
  endpoint: string;
  events: string[];
  status: 'enabled' | 'disabled';
  /** The newest first. */
  secrets: string[];
}

export class Account {
  readonly #state: StandInState;
  readonly #webhooks = new Map<string, StoredWebhook>();
  /** What was switched on over the API, by the domain's name. */
  readonly #receiving = new Set<string>();
  readonly verified: string[] = [];

  constructor(state: StandInState) {
    this.#state = state;
  }

  /** The webhook that events are posted to: the first enabled one. */
  target(): WebhookTarget | undefined {
    const webhook = [...this.#webhooks.values()].find(({ status }) => status === 'enabled');
    return webhook && { url: webhook.endpoint, secret: webhook.secrets };
  }

  listDomains(after?: string, limit = 20): unknown {
    const domains = this.#domains().map((domain) => this.#domainFields(domain));
    return paged(domains, after, limit);
  }

  describeDomain(id: string): unknown {
    const domain = this.#domain(id);
    return { object: 'domain', ...this.#domainFields(domain), records: this.#records(domain) };
  }

  updateDomain(id: string, body: string): unknown {
    const { capabilities } = JSON.parse(body) as { capabilities?: { receiving?: string } };
    if (capabilities?.receiving === 'enabled') this.#receiving.add(this.#domain(id).name);
    return { object: 'domain', id };
  }

  verifyDomain(id: string): unknown {
    this.verified.push(this.#domain(id).name);
    return { object: 'domain', id };
  }

  createWebhook(body: string): unknown {
    const { endpoint, events } = JSON.parse(body) as { endpoint?: string; events?: string[] };
    if (!endpoint || !URL.canParse(endpoint) || !events?.length)
      throw new ApiError(422, 'validation_error', 'The `endpoint` must be a URL, and `events` not empty.');
    const webhook: StoredWebhook = {
      id: randomUUID(),
      created_at: this.#state.isoNow(),
      endpoint,
      events,
      status: 'enabled',
      secrets: [newSecret()],
    };
    this.#webhooks.set(webhook.id, webhook);
    return { object: 'webhook', id: webhook.id, signing_secret: webhook.secrets[0] };
  }

  listWebhooks(after?: string, limit = 20): unknown {
    return paged([...this.#webhooks.values()].map(withoutSecrets), after, limit);
  }

  describeWebhook(id: string): unknown {
    const webhook = this.#webhook(id);
    return { object: 'webhook', ...withoutSecrets(webhook), signing_secret: webhook.secrets[0] };
  }

  updateWebhook(id: string, body: string): unknown {
    const changes = JSON.parse(body) as Partial<Pick<StoredWebhook, 'endpoint' | 'events' | 'status'>>;
    Object.assign(this.#webhook(id), changes);
    return { object: 'webhook', id };
  }

  removeWebhook(id: string): unknown {
    this.#webhook(id);
    this.#webhooks.delete(id);
    return { object: 'webhook', id, deleted: true };
  }

  rotateSecret(id: string): unknown {
    const webhook = this.#webhook(id);
    webhook.secrets = [newSecret(), ...webhook.secrets.slice(0, 1)];
    return { object: 'webhook', id, signing_secret: webhook.secrets[0] };
  }

  #webhook(id: string): StoredWebhook {
    const webhook = this.#webhooks.get(id);
    if (!webhook) throw new ApiError(404, 'not_found', 'Webhook not found');
    return webhook;
  }

  #domains(): readonly StandInDomain[] {
    return this.#state.options.domains ?? [];
  }

  #domain(id: string): StandInDomain {
    const domain = this.#domains().find(({ name }) => domainId(name) === id);
    if (!domain) throw new ApiError(404, 'not_found', 'Domain not found');
    return domain;
  }

  #receives({ name, receiving }: StandInDomain): boolean {
    return receiving !== 'disabled' || this.#receiving.has(name);
  }

  #domainFields(domain: StandInDomain): { id: string } & Record<string, unknown> {
    const { name, recordStatus = 'verified' } = domain;
    return {
      id: domainId(name),
      name,
      status: recordStatus,
      created_at: '2026-01-01T00:00:00.000Z',
      region: 'eu-west-1',
      capabilities: { sending: 'enabled', receiving: this.#receives(domain) ? 'enabled' : 'disabled' },
    };
  }

  /** Named as Resend does, from the zone that the domain lies in. */
  #records(domain: StandInDomain): unknown[] {
    const { name, recordStatus: status = 'verified' } = domain;
    const below = name.split('.').slice(0, -2).join('.');
    const named = (record: string): string => [record, below].filter((part) => part !== '').join('.');
    const mx = { type: 'MX', ttl: 'Auto', status, priority: 10 };
    const txt = { type: 'TXT', ttl: 'Auto', status };
    const records: unknown[] = [
      { record: 'SPF', name: named('send'), value: 'feedback-smtp.eu-west-1.amazonses.com', ...mx },
      { record: 'SPF', name: named('send'), value: 'v=spf1 include:amazonses.com ~all', ...txt },
      { record: 'DKIM', name: named('resend._domainkey'), value: 'p=MIGfMA0GCSq', ...txt },
    ];
    if (this.#receives(domain))
      records.push({
        record: 'Receiving',
        name: below,
        value: 'inbound-smtp.eu-west-1.amazonaws.com',
        ...mx,
      });
    return records;
  }
}

/** The same for the same name, so that a domain can be reconfigured. */
function domainId(name: string): string {
  const hex = Buffer.from(name).toString('hex').padEnd(32, '0').slice(0, 32);
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

function newSecret(): string {
  return `whsec_${randomBytes(24).toString('base64')}`;
}

function withoutSecrets(webhook: StoredWebhook): Omit<StoredWebhook, 'secrets'> {
  const { id, created_at, endpoint, events, status } = webhook;
  return { id, created_at, endpoint, events, status };
}

function paged(all: readonly { readonly id: string }[], after: string | undefined, limit: number): unknown {
  const start = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
  const data = all.slice(start, start + limit);
  return { object: 'list', data, has_more: start + limit < all.length };
}
