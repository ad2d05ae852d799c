/**
 * One run of the load: posts webhooks in the order's shape, and keeps the books of what was sent, taken and
 * answered. In an open loop time counts from when a webhook was due, so that a system that holds up the
 * generator does not look the better for it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Webhook } from 'svix';
import { Pool } from 'undici';
import type { LoadMail, LoadOrder, LoadResult, Replies } from './load.ts';
import { BENCH_SECRET, machineMs, quantiles } from './load.ts';

/** No reply for so long: what is missing counts as unanswered. A busy machine can stand still for half a minute. */
const STALLED_MS = 60_000;
const OPEN_LOOP_CONNECTIONS = 256;

const webhook = new Webhook(BENCH_SECRET);

export class LoadRun {
  readonly #order: LoadOrder;
  readonly #mails: readonly LoadMail[];
  readonly #target: URL;
  readonly #pool: Pool;
  readonly #answered: Set<string>;
  /** When each unanswered webhook was sent or due, by sender. */
  readonly #unanswered = new Map<string, number>();
  readonly #latencies: number[] = [];
  readonly #acknowledgeLatencies: number[] = [];
  readonly #posts: Promise<void>[] = [];
  readonly #finished = Promise.withResolvers<void>();
  readonly #startedMs = machineMs();
  #lastReplyMs = this.#startedMs;
  #progressMs = this.#startedMs;
  #sent = 0;
  #answeredTwice = 0;
  #peakBacklog = 0;

  /** @param answered senders who have had their reply, in earlier runs, too: a reply may come late or again. */
  constructor(order: LoadOrder, mails: readonly LoadMail[], answered: Set<string>) {
    this.#order = order;
    this.#mails = mails;
    this.#answered = answered;
    this.#target = new URL(order.webhookUrl);
    const { shape } = order;
    const connections =
      shape.kind === 'open'
        ? OPEN_LOOP_CONNECTIONS
        : shape.kind === 'closed'
          ? shape.outstanding
          : shape.connections;
    this.#pool = new Pool(this.#target.origin, { connections, pipelining: 1 });
  }

  /** Sends everything; resolves when all is answered, or nothing more comes. */
  async run(): Promise<Omit<LoadResult, 'generatorCpuMs' | 'farEndCpuMs'>> {
    const watch = setInterval(() => {
      if (machineMs() - this.#progressMs > STALLED_MS) this.#finished.resolve();
    }, 1_000);
    await this.#sendAll();
    await this.#finished.promise;
    clearInterval(watch);
    await Promise.all(this.#posts);
    await this.#pool.close();
    return {
      sent: this.#sent,
      acknowledged: this.#acknowledgeLatencies.length,
      answered: this.#latencies.length,
      answeredTwice: this.#answeredTwice,
      durationMs: this.#lastReplyMs - this.#startedMs,
      latencyMs: quantiles(this.#latencies),
      acknowledgeMs: quantiles(this.#acknowledgeLatencies),
      peakBacklog: this.#peakBacklog,
    };
  }

  take(replies: Replies['replies']): void {
    for (const [sender, atMs] of replies) {
      if (this.#answered.has(sender)) {
        this.#answeredTwice++;
        continue;
      }
      this.#answered.add(sender);
      const dueMs = this.#unanswered.get(sender);
      // Late, in a run that counted it as unanswered.
      if (dueMs === undefined) continue;
      this.#unanswered.delete(sender);
      this.#latencies.push(atMs - dueMs);
      this.#lastReplyMs = atMs;
      this.#progressMs = machineMs();
      if (this.#order.shape.kind === 'closed') void this.#sendNext(machineMs());
    }
    if (this.#latencies.length === this.#order.count) this.#finished.resolve();
  }

  async #sendAll(): Promise<void> {
    const { shape, count } = this.#order;
    if (shape.kind === 'closed') {
      for (let index = 0; index < shape.outstanding; index++) void this.#sendNext(machineMs());
      return;
    }
    if (shape.kind === 'burst') {
      const lane = async (): Promise<void> => {
        while (this.#sent < count) await this.#sendNext(machineMs());
      };
      await Promise.all(Array.from({ length: shape.connections }, lane));
      return;
    }
    for (let index = 0; index < count; index++) {
      const dueMs = this.#startedMs + (index * 1000) / shape.perSecond;
      const earlyMs = dueMs - machineMs();
      if (earlyMs > 1) await delay(earlyMs);
      void this.#sendNext(dueMs);
    }
  }

  #sendNext(dueMs: number): Promise<void> {
    const mail = this.#mails[this.#sent];
    if (!mail) return Promise.resolve();
    this.#sent++;
    this.#progressMs = machineMs();
    this.#unanswered.set(mail.sender, dueMs);
    // What is refused or breaks off stays unanswered and is reported so.
    const post = this.#post(mail, dueMs).catch(() => {});
    this.#posts.push(post);
    return post;
  }

  async #post({ emailId, event }: LoadMail, dueMs: number): Promise<void> {
    const svixId = `msg_${emailId}`;
    const now = new Date();
    const { statusCode, body } = await this.#pool.request({
      method: 'POST',
      path: this.#target.pathname,
      headers: {
        'content-type': 'application/json',
        'svix-id': svixId,
        'svix-timestamp': String(Math.floor(now.getTime() / 1000)),
        'svix-signature': webhook.sign(svixId, now, event),
      },
      body: event,
    });
    await body.dump();
    if (statusCode !== 200) return;
    this.#acknowledgeLatencies.push(machineMs() - dueMs);
    this.#peakBacklog = Math.max(
      this.#peakBacklog,
      this.#acknowledgeLatencies.length - this.#latencies.length,
    );
  }
}
