/**
 * A stand-in for Resend on loopback: what a test can ask of it. Two forms keep this contract: in the test's
 * own process (`resend-stand-in.ts`) and over HTTP against a process of its own (`client.ts`, `main.ts`).
 *
 * It answers what the real service answers, keeps what it was asked and what it accepted, and fails on
 * demand. A test counts at this far end: one `AcceptedMail` is one mail that a person would have got.
 */

/** Where a fault strikes. `download` is the signed link to a raw message. */
export type Route =
  | 'send'
  | 'batch'
  | 'get'
  | 'list'
  | 'receive'
  | 'receive-list'
  | 'download'
  | 'domains'
  | 'webhooks';

export type Fault =
  /** Answers late. On `send` and `batch` the idempotency key is taken before the delay. */
  | { kind: 'delay'; ms: number }
  /** Answers an error in Resend's form, without doing anything. */
  | { kind: 'error'; status: number; name: string; message?: string; headers?: Record<string, string> }
  /** Answers this body as it is, without doing anything. */
  | { kind: 'body'; status: number; body: string; contentType?: string }
  /** Answers 404 until so long after the first request that met it, then disappears. */
  | { kind: 'not-found-for'; ms: number }
  /** Does the work and answers the first half of the body: for a download, breaking off the transfer. */
  | { kind: 'truncated' }
  /** Never answers, and does nothing. */
  | { kind: 'hang' }
  /** Sends the first half of the body and then nothing more; downloads only. */
  | { kind: 'stall' }
  /** Sends the body in four parts with a pause before each; downloads only. */
  | { kind: 'trickle'; pauseMs: number }
  /** Resets the connection before doing anything. */
  | { kind: 'reset' }
  /** Does the work, then resets the connection. */
  | { kind: 'lost-response' }
  /** Does the work, then answers 200 with no body. */
  | { kind: 'empty' }
  /** Does the work, then answers 200 with an object that has no id. */
  | { kind: 'no-id' }
  /** The link that is given out has expired already; `receive` only. */
  | { kind: 'expired-link' };

/** One mail that was taken for delivery. There is one for each idempotency key. */
export interface AcceptedMail {
  readonly id: string;
  readonly at: string;
  readonly idempotencyKey: string | null;
  /** The body as it came, in the API's own (snake case) names. */
  readonly payload: SendPayload;
}

export interface SendPayload {
  readonly from: string;
  readonly to: string | string[];
  readonly cc?: string | string[];
  readonly bcc?: string | string[];
  readonly reply_to?: string | string[];
  readonly subject?: string;
  readonly text?: string;
  readonly html?: string;
  readonly headers?: Record<string, string>;
  readonly tags?: { name: string; value: string }[];
  readonly attachments?: {
    filename?: string;
    content?: string;
    path?: string;
    content_type?: string;
    content_id?: string;
  }[];
  readonly scheduled_at?: string;
}

export interface RecordedRequest {
  readonly at: string;
  readonly route: Route | 'other';
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** What the outside world posts to us: the answer to each attempt, in order; null for none. */
export interface Delivery {
  readonly svixId: string;
  readonly emailId: string;
  /** The status of the last attempt, or null if it got no answer. */
  readonly status: number | null;
  readonly statuses: readonly (number | null)[];
}

export interface DeliverOptions {
  /** The same id twice is the same event to Svix. Default: a fresh one. */
  svixId?: string;
  /** The same id twice is the same email to Resend. Default: a fresh one. */
  emailId?: string;
  /** Envelope recipients; null leaves the field out. Default: everyone in To, Cc and `bcc`. */
  receivedFor?: readonly string[] | null;
  bcc?: readonly string[];
  /** Fields that replace those of the event's `data`, for hostile ones. */
  data?: Record<string, unknown>;
  /** So many posts of the same event at once (default 1). */
  copies?: number;
  /** Waits before further attempts while the answer is no 2xx, as Svix does in its own, slower way. */
  retryDelaysMs?: readonly number[];
  /** Only makes the email readable; no event is posted. */
  silent?: boolean;
}

/** Delivery events that are posted by themselves after a send, in this order. */
export type DeliveryEvent =
  | 'sent'
  | 'delivered'
  | 'bounced'
  | 'complained'
  | 'delivery_delayed'
  | 'opened'
  | 'failed'
  | 'suppressed';

export interface WebhookTarget {
  url: string;
  /** One secret, or several that all sign (as for 24 h after a rotation). */
  secret: string | readonly string[];
}

/** A domain of the account; its records get `verified` when Resend has seen them in the DNS. */
export interface StandInDomain {
  readonly name: string;
  readonly receiving?: 'enabled' | 'disabled';
  readonly recordStatus?: 'not_started' | 'pending' | 'verified';
}

export interface ResendStandInOptions {
  port?: number;
  apiKey: string;
  /** A second key that may only send. */
  sendingKey?: string;
  /** Where events are posted; without it, to every enabled webhook that was made over the API. */
  webhook?: WebhookTarget;
  /** Requests a second over all keys (default 100,000: as good as none). */
  requestsPerSecond?: number;
  /** Mails in 24 h; default without limit. */
  dailyQuota?: number;
  /** Domains that may stand in `from`; default all. */
  verifiedDomains?: readonly string[];
  /** What `GET /domains` lists; default none. */
  domains?: readonly StandInDomain[];
  deliveryEvents?: readonly DeliveryEvent[];
}

/** What can be changed while it runs. */
export type Settings = Pick<
  ResendStandInOptions,
  'webhook' | 'requestsPerSecond' | 'dailyQuota' | 'verifiedDomains' | 'domains' | 'deliveryEvents'
>;

export interface ResendStandIn {
  /** The base URL that stands for https://api.resend.com. */
  readonly url: string;
  /** In their order, without the first `from` (default 0). */
  accepted(from?: number): Promise<readonly AcceptedMail[]>;
  /** Resolves as soon as so many mails were accepted; rejects after `timeoutMs` (default 10 s). */
  waitForAccepted(count: number, timeoutMs?: number): Promise<readonly AcceptedMail[]>;
  requests(): Promise<readonly RecordedRequest[]>;
  /** An email reaches the domain: it becomes readable, and `email.received` is posted. */
  deliver(raw: string | Uint8Array, options?: DeliverOptions): Promise<Delivery>;
  /** Posts an event again, byte for byte, with a fresh timestamp: what Svix's redelivery and replay do. */
  redeliver(svixId: string): Promise<number | null>;
  /** Posts any signed event; `data` is what it carries. */
  postEvent(type: string, data: unknown, svixId?: string): Promise<number | null>;
  /** Posts a delivery event for an accepted mail. */
  postDeliveryEvent(
    event: DeliveryEvent,
    emailId: string,
    details?: Record<string, unknown>,
  ): Promise<number | null>;
  /** The next `times` (default 1) requests to the route meet this fault; several queue up. */
  fault(route: Route, fault: Fault, times?: number | 'forever'): Promise<void>;
  clearFaults(): Promise<void>;
  configure(settings: Settings): Promise<void>;
  /** Moves its clock on: idempotency keys, quota and links age. Signatures keep real time. */
  advanceClock(ms: number): Promise<void>;
  stop(): Promise<void>;
}
