/**
 * The local mailbox in place of Resend: what it "sends" becomes a record on the stream `mailbox`, durable
 * before `send` resolves, and once for each idempotency key, however long ago the first attempt was.
 *
 * The keys that it knows are a view of the stream itself. Every append names the sequence number up to which
 * that view reaches, so an answer that was lost, or a second writer, shows as a mismatch, and the stream is
 * read again before anything is appended.
 */
import type { ProviderRequest } from '../mail/email.ts';
import type { Clock } from '../platform/clock.ts';
import { MillraceError, hasCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { writeBlob } from '../streams/blob.ts';
import { jsonRecord, mailboxRecordSchema, parseJsonRecord, streamNames } from '../streams/records.ts';
import type { MailboxRecord } from '../streams/records.ts';
import type { StreamStore } from '../streams/stream-store.ts';

export interface MailboxOutbound {
  /** @throws MillraceError what the store throws, or `mailbox.contended` (transient) */
  send(
    request: ProviderRequest,
    idempotencyKey: string,
    signal: AbortSignal,
  ): Promise<{ providerId: string }>;
  /** Always null: unlike a provider, the mailbox recognises every key again, so `send` is safe at any time. */
  findSent(): Promise<null>;
}

/** A request above this goes into a stream of its own, as the runner does it. */
const MAX_INLINE_REQUEST_BYTES = 700 * 1024;
/** Keys remembered; the stage before us remembers what it settled for itself. */
const MAX_KEYS = 100_000;
const MAX_APPEND_ATTEMPTS = 5;

export function createMailboxOutbound(
  deps: { store: StreamStore; clock: Clock; log: Log },
  { maxKeys = MAX_KEYS }: { maxKeys?: number } = {},
): MailboxOutbound {
  const { store, clock, log } = deps;
  const stream = store.stream(streamNames.mailbox);
  const providerIds = new Map<string, string>();
  let nextSeqNum: number | undefined;
  /** Sends stand in line: each must see the keys of the one before. */
  let line: Promise<unknown> = Promise.resolve();

  /** @returns up to where the view reaches */
  async function catchUp(signal: AbortSignal): Promise<number> {
    // More keys than these are not remembered.
    nextSeqNum ??= Math.max(0, (await stream.tail(signal)) - maxKeys);
    for (;;) {
      const batch = await stream.read({ fromSeqNum: nextSeqNum, signal });
      for (const record of batch.records) {
        const { idempotencyKey, providerId } = parseJsonRecord(mailboxRecordSchema, record);
        remember(idempotencyKey, providerId);
      }
      if (batch.nextSeqNum === nextSeqNum) return nextSeqNum;
      nextSeqNum = batch.nextSeqNum;
    }
  }

  function remember(idempotencyKey: string, providerId: string): void {
    providerIds.set(idempotencyKey, providerId);
    const [oldest] = providerIds.keys();
    if (providerIds.size > maxKeys && oldest !== undefined) providerIds.delete(oldest);
  }

  async function deliver(
    request: ProviderRequest,
    idempotencyKey: string,
    signal: AbortSignal,
  ): Promise<{ providerId: string }> {
    for (let attempt = 1; attempt <= MAX_APPEND_ATTEMPTS; attempt++) {
      const matchSeqNum = await catchUp(signal);
      const known = providerIds.get(idempotencyKey);
      if (known !== undefined) return { providerId: known };
      const providerId = clock.uuid();
      const record: MailboxRecord = {
        kind: 'mailbox',
        version: 1,
        idempotencyKey,
        providerId,
        request: await requestOrBlob(request, idempotencyKey, signal),
        at: new Date(clock.nowMs()).toISOString(),
      };
      try {
        await stream.append([jsonRecord(record, idempotencyKey)], { matchSeqNum, signal });
      } catch (error) {
        if (!hasCode(error, 'streams.seq_num_mismatch')) throw error;
        log.warn({ idempotencyKey, attempt }, 'mailbox.append_contended');
        continue;
      }
      return { providerId };
    }
    throw new MillraceError('transient', 'mailbox.contended', `others keep writing to ${stream.name}`, {
      hint: 'Only one daemon may work on these streams: stop the other one.',
    });
  }

  async function requestOrBlob(
    request: ProviderRequest,
    idempotencyKey: string,
    signal: AbortSignal,
  ): Promise<MailboxRecord['request']> {
    const bytes = Buffer.from(JSON.stringify(request).toWellFormed());
    if (bytes.length <= MAX_INLINE_REQUEST_BYTES) return request;
    // The runner has written the same bytes to the same stream: of a mail that did not wait, nothing is added.
    const requests = store.stream(streamNames.request(idempotencyKey));
    return { blob: await writeBlob(requests, bytes, { nowMs: clock.nowMs(), signal }) };
  }

  return {
    send(request, idempotencyKey, signal) {
      const turn = line.then(
        () => deliver(request, idempotencyKey, signal),
        () => deliver(request, idempotencyKey, signal),
      );
      line = turn.catch(() => {});
      return turn;
    },
    findSent: async () => null,
  };
}
