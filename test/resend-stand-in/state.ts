/**
 * The stand-in's memory: what it was asked, what it accepted, its inbound mail, its faults and its clock.
 * Nothing here knows HTTP.
 */
import { EventEmitter } from 'node:events';
import type {
  AcceptedMail,
  Fault,
  RecordedRequest,
  ResendStandInOptions,
  Route,
  Settings,
} from './contract.ts';

/** Older requests are forgotten beyond this many. */
const MAX_RECORDED_REQUESTS = 200_000;

export interface InboundMail {
  readonly id: string;
  readonly createdAt: string;
  readonly raw: Uint8Array;
  readonly from: string;
  readonly to: readonly string[];
  readonly cc: readonly string[];
  readonly bcc: readonly string[];
  readonly replyTo: readonly string[];
  /** Null where the event shall not have the field. */
  readonly receivedFor: readonly string[] | null;
  readonly messageId: string;
  readonly subject: string;
  readonly text: string | null;
  readonly html: string | null;
  readonly headers: Record<string, string>;
  readonly attachments: readonly InboundAttachment[];
}

/** In the API's own names. */
interface InboundAttachment {
  readonly id: string;
  readonly filename: string | null;
  readonly content_type: string;
  readonly content_disposition: string | null;
  readonly content_id: string | null;
  readonly size: number;
}

interface QueuedFault {
  readonly fault: Fault;
  timesLeft: number;
  /** For `not-found-for`: when the first request met it. */
  firstMetMs: number | null;
}

export class StandInState {
  readonly options: ResendStandInOptions;
  readonly inbound = new Map<string, InboundMail>();
  /** Emits `accepted` after each accepted mail. */
  readonly changes = new EventEmitter();
  accepted: AcceptedMail[] = [];
  requests: RecordedRequest[] = [];
  #clockOffsetMs = 0;
  #faults = new Map<Route, QueuedFault[]>();

  constructor(options: ResendStandInOptions) {
    this.options = { ...options };
    this.changes.setMaxListeners(0);
  }

  nowMs(): number {
    return Date.now() + this.#clockOffsetMs;
  }

  isoNow(): string {
    return new Date(this.nowMs()).toISOString();
  }

  advanceClock(ms: number): void {
    this.#clockOffsetMs += ms;
  }

  configure(settings: Settings): void {
    Object.assign(this.options, settings);
  }

  accept(mail: AcceptedMail): void {
    this.accepted.push(mail);
    this.changes.emit('accepted', mail);
  }

  record(request: RecordedRequest): void {
    this.requests.push(request);
    if (this.requests.length > MAX_RECORDED_REQUESTS) this.requests.splice(0, MAX_RECORDED_REQUESTS / 10);
  }

  addFault(route: Route, fault: Fault, times: number | 'forever'): void {
    const queue = this.#faults.get(route) ?? [];
    queue.push({ fault, timesLeft: times === 'forever' ? Infinity : times, firstMetMs: null });
    this.#faults.set(route, queue);
  }

  clearFaults(): void {
    this.#faults.clear();
  }

  /** The fault that this request meets, if any. */
  takeFault(route: Route): Fault | undefined {
    const queue = this.#faults.get(route);
    const head = queue?.[0];
    if (!queue || !head) return undefined;
    if (head.fault.kind === 'not-found-for') {
      head.firstMetMs ??= this.nowMs();
      if (this.nowMs() - head.firstMetMs < head.fault.ms) return head.fault;
      queue.shift();
      return this.takeFault(route);
    }
    head.timesLeft -= 1;
    if (head.timesLeft <= 0) queue.shift();
    return head.fault;
  }
}
