/**
 * What the benchmark's processes say to one another: the bench starts a load generator, which starts the far
 * end (the stand-in for Resend), so that neither the load nor its counting costs the bench's own process.
 */

/** A mail; its sender is nobody else's, and so tells whom a reply answers. */
export interface LoadMail {
  readonly emailId: string;
  readonly sender: string;
  readonly raw: string;
  /** The webhook's body. */
  readonly event: string;
}

/** How mails come: at a rate, whatever happens; or a new one for each that was answered; or all at once. */
export type LoadShape =
  | { readonly kind: 'open'; readonly perSecond: number }
  | { readonly kind: 'closed'; readonly outstanding: number }
  | { readonly kind: 'burst'; readonly connections: number };

export interface LoadOrder {
  readonly shape: LoadShape;
  readonly count: number;
  /** Inboxes that take turns: `box0@…` up to below this. */
  readonly inboxes: number;
  readonly webhookUrl: string;
}

export interface LoadResult {
  readonly sent: number;
  /** Webhooks that were answered with a 2xx. */
  readonly acknowledged: number;
  readonly answered: number;
  /** Replies beyond the first to the same mail. */
  readonly answeredTwice: number;
  /** From the first webhook to the last reply. */
  readonly durationMs: number;
  /** Webhook sent (in an open loop: due) → reply accepted. */
  readonly latencyMs: Quantiles;
  /** Webhook sent → 2xx. */
  readonly acknowledgeMs: Quantiles;
  /** The most mails that were acknowledged and not yet answered. */
  readonly peakBacklog: number;
  /** CPU of the two load processes meanwhile. */
  readonly generatorCpuMs: number;
  readonly farEndCpuMs: number;
}

export interface Quantiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export const BENCH_DOMAIN = 'agents.example';
export const BENCH_API_KEY = 're_bench';
export const BENCH_SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';

/** About 2 kB: a mail of some paragraphs. */
export const LOAD_TEXT = 'The quick brown fox jumps over the lazy dog.\r\n'.repeat(45);

/** Far end → generator: replies by recipient, with the machine's monotonic time. */
export interface Replies {
  readonly kind: 'replies';
  readonly replies: readonly (readonly [recipient: string, atMs: number])[];
}

/** One clock for all processes of a machine. */
export function machineMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export function quantiles(values: number[]): Quantiles {
  values.sort((a, b) => a - b);
  const at = (share: number): number =>
    values.length === 0
      ? Number.NaN
      : values[Math.min(values.length - 1, Math.floor(values.length * share))]!;
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}
