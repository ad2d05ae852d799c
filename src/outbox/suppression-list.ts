/**
 * Whom mail must not be sent to: the streams `suppressions` and `delivery`, folded. The fold is the same whoever
 * reads, at a start as in the middle of the work, and however far one of the two streams is ahead of the other: the
 * numbers on `delivery` decide. An address is on the list while its newest record there is not below what a person
 * has lifted, and is not older than mail is kept; by a steady time, since a clock that is months ahead for a minute would
 * let mail out to all of them.
 *
 * `suppressions` may have several writers, of which one does not know yet that another took over, and may hold a record
 * twice. Each writes without a gap, going on from what it had read there; so what stands there about a number
 * below one that was there before is known already.
 */
import type { Clock } from '../platform/clock.ts';
import { errorKind } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { startSteadyTime } from '../platform/steady-time.ts';
import { deliveryRecordSchema, parseJsonRecord } from '../streams/records.ts';
import { mentions } from '../streams/stream-scan.ts';
import type { ReadBatch, Stream, StreamRecord } from '../streams/stream-store.ts';
import { suppressionsStreamSchema } from '../streams/suppression-records.ts';
import type { SuppressionRecord, SuppressionsStreamRecord } from '../streams/suppression-records.ts';
import { suppressionBy } from './suppressing-event.ts';

/** Beyond, those are forgotten that are on the list for longest. */
const MAX_ADDRESSES = 100_000;
/** Most events tell of mail that went well: they are not parsed. */
const SUPPRESSING_WORDS = ['bounced', 'complained', 'suppressed'];

export class SuppressionList {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #keptMs: number;
  /** By address, in the order of their numbers. */
  readonly #suppressions = new Map<string, SuppressionRecord>();
  /** Lifts of what has not been looked at yet: below which number, by address. */
  readonly #lifts = new Map<string, number>();
  #nextDelivery = 0;
  #digested = 0;
  /** Of all records. */
  #newestMs = -Infinity;
  /** While the streams are read for the first time nothing is old. */
  #steadyMs: () => number = () => -Infinity;

  constructor({ clock, log }: { clock: Clock; log: Log }, { keptMs }: { keptMs: number }) {
    this.#clock = clock;
    this.#log = log;
    this.#keptMs = keptMs;
  }

  get size(): number {
    return this.#suppressions.size;
  }

  /** The next number on `delivery` to be looked at. */
  get nextDelivery(): number {
    return this.#nextDelivery;
  }

  /** How far `suppressions` tells what stands on `delivery`. */
  get digested(): number {
    return this.#digested;
  }

  /** By its normalised address. */
  find(address: string): SuppressionRecord | null {
    const suppression = this.#suppressions.get(address);
    return suppression && !this.#isOld(suppression) ? suppression : null;
  }

  /** All of them, oldest first. */
  all(): SuppressionRecord[] {
    return [...this.#suppressions.values()].filter((suppression) => !this.#isOld(suppression));
  }

  /** All that there was is read. From now on what is old is forgotten, by a time that goes on from the newest record. */
  startAgeing(): void {
    const startMs = this.#newestMs === -Infinity ? this.#clock.nowMs() : this.#newestMs;
    this.#steadyMs = startSteadyTime(this.#clock, startMs);
  }

  /** Records of `suppressions`. */
  takeDigest({ records }: Pick<ReadBatch, 'records'>): void {
    for (const record of records) {
      this.#newestMs = Math.max(this.#newestMs, record.timestampMs);
      const value = this.#readable('suppressions', record, () =>
        parseJsonRecord(suppressionsStreamSchema, record),
      );
      if (value === null) continue;
      this.#apply(value);
      if (value.kind === 'suppression-lift') continue;
      const next = value.kind === 'suppression' ? value.deliverySeqNum + 1 : value.nextDeliverySeqNum;
      this.#digested = Math.max(this.#digested, next);
    }
  }

  /** Records of `delivery`; gives what `suppressions` has to be told. */
  takeDelivery(batch: ReadBatch): SuppressionRecord[] {
    const found: SuppressionRecord[] = [];
    for (const record of batch.records) {
      this.#newestMs = Math.max(this.#newestMs, record.timestampMs);
      if (record.seqNum < this.#nextDelivery || !mentions(record, SUPPRESSING_WORDS)) continue;
      const suppression = this.#readable('delivery', record, () => suppressionIn(record));
      if (suppression === null) continue;
      this.#apply(suppression);
      found.push(suppression);
    }
    this.#passed(batch.nextSeqNum);
    return found;
  }

  #apply(record: SuppressionsStreamRecord): void {
    if (record.kind === 'suppression-position') return this.#passed(record.nextDeliverySeqNum);
    if (record.kind === 'suppression-lift') {
      const { address, belowDeliverySeqNum: below } = record;
      const known = this.#suppressions.get(address);
      if (known && known.deliverySeqNum < below) this.#suppressions.delete(address);
      if (below > this.#nextDelivery)
        this.#lifts.set(address, Math.max(below, this.#lifts.get(address) ?? 0));
      return;
    }
    const { address, deliverySeqNum } = record;
    if (deliverySeqNum < this.#nextDelivery) return;
    if (deliverySeqNum >= (this.#lifts.get(address) ?? 0)) {
      // Put in again at the end: those that are on the list for longest stand first.
      this.#suppressions.delete(address);
      this.#suppressions.set(address, record);
      this.#forgetOldest();
    }
    this.#passed(deliverySeqNum + 1);
  }

  #passed(nextDelivery: number): void {
    this.#nextDelivery = Math.max(this.#nextDelivery, nextDelivery);
    for (const [address, below] of this.#lifts) if (below <= this.#nextDelivery) this.#lifts.delete(address);
  }

  #forgetOldest(): void {
    for (const [address, suppression] of this.#suppressions) {
      const isTooMany = this.#suppressions.size > MAX_ADDRESSES;
      if (!isTooMany && !this.#isOld(suppression)) break;
      if (isTooMany) this.#log.warn({ limit: MAX_ADDRESSES }, 'suppressions.too_many');
      this.#suppressions.delete(address);
    }
  }

  #isOld({ at }: SuppressionRecord): boolean {
    return Date.parse(at) < this.#steadyMs() - this.#keptMs;
  }

  /** One record that cannot be read must not hide all others; one of a newer release stops the work. */
  #readable<T>(stream: string, { seqNum }: StreamRecord, read: () => T): T | null {
    try {
      return read();
    } catch (error) {
      if (errorKind(error) === 'bug') throw error;
      this.#log.warn({ stream, seqNum, error }, 'suppressions.unreadable_record');
      return null;
    }
  }
}

function suppressionIn(record: StreamRecord): SuppressionRecord | null {
  const delivery = parseJsonRecord(deliveryRecordSchema, record);
  const by = suppressionBy(delivery);
  if (by === null) return null;
  return {
    kind: 'suppression',
    version: 1,
    deliverySeqNum: record.seqNum,
    ...by,
    providerId: delivery.providerId,
    at: new Date(record.timestampMs).toISOString(),
  };
}

/**
 * Reads both streams up to where they end now, `suppressions` first; `see` is told, before the next batch is read, what
 * the digest lacks.
 * @returns where to go on on `suppressions`
 */
export async function readSuppressions(
  list: SuppressionList,
  { suppressions, delivery }: { suppressions: Stream; delivery: Stream },
  { signal, see }: { signal: AbortSignal; see?: (found: readonly SuppressionRecord[]) => Promise<void> },
): Promise<number> {
  const nextDigest = await readToTail(suppressions, { fromSeqNum: 0, signal }, async (batch) =>
    list.takeDigest(batch),
  );
  await readToTail(delivery, { fromSeqNum: list.nextDelivery, signal }, async (batch) => {
    const found = list.takeDelivery(batch);
    await see?.(found);
  });
  list.startAgeing();
  return nextDigest;
}

async function readToTail(
  stream: Stream,
  { fromSeqNum, signal }: { fromSeqNum: number; signal: AbortSignal },
  take: (batch: ReadBatch) => Promise<void>,
): Promise<number> {
  const tail = await stream.tail(signal);
  let next = fromSeqNum;
  while (next < tail) {
    const batch = await stream.read({ fromSeqNum: next, signal });
    await take(batch);
    if (batch.nextSeqNum === next) break;
    next = batch.nextSeqNum;
  }
  return next;
}
