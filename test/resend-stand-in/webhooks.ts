/**
 * The world's side of the webhook: signs events as Svix does and posts them, with real time in the
 * signature. What was posted can be posted again under its id.
 */
import { randomBytes } from 'node:crypto';
import { Webhook } from 'svix';
import type { WebhookTarget } from './contract.ts';

/** Svix counts an attempt as failed without an answer in this time. */
const ATTEMPT_TIMEOUT_MS = 15_000;

export class Webhooks {
  readonly #target: () => WebhookTarget | undefined;
  readonly #posted = new Map<string, string>();
  readonly #stopped = new AbortController();

  constructor(target: () => WebhookTarget | undefined) {
    this.#target = target;
  }

  newId(): string {
    return `msg_${randomBytes(20).toString('base64url').replace(/[-_]/g, 'x').slice(0, 27)}`;
  }

  /** Posts once. @returns the status, or null without an answer. */
  async post(event: unknown, svixId: string): Promise<number | null> {
    const body = JSON.stringify(event);
    this.#posted.set(svixId, body);
    return this.#attempt(body, svixId);
  }

  async repost(svixId: string): Promise<number | null> {
    const body = this.#posted.get(svixId);
    if (body === undefined) throw new Error(`no event ${svixId} was posted`);
    return this.#attempt(body, svixId);
  }

  stop(): void {
    this.#stopped.abort();
  }

  async #attempt(body: string, svixId: string): Promise<number | null> {
    const target = this.#target();
    if (!target) throw new Error('no webhook is configured: pass `webhook` or call configure({ webhook })');
    const at = new Date();
    const signatures = [target.secret].flat().map((secret) => new Webhook(secret).sign(svixId, at, body));
    try {
      const response = await fetch(target.url, {
        method: 'POST',
        body,
        headers: {
          'content-type': 'application/json',
          'user-agent': 'Svix-Webhooks/1.0 (stand-in)',
          'svix-id': svixId,
          'svix-timestamp': String(Math.floor(at.getTime() / 1000)),
          'svix-signature': signatures.join(' '),
        },
        signal: AbortSignal.any([this.#stopped.signal, AbortSignal.timeout(ATTEMPT_TIMEOUT_MS)]),
      });
      await response.arrayBuffer();
      return response.status;
    } catch {
      return null;
    }
  }
}
