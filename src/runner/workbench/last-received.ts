/**
 * The last email that a daemon of this machine has received, for an inbox or for any, read from its streams beside it:
 * what an author wants to try who has just written one. Mail for a name without a tool counts, too: the tool may be
 * about to be written.
 */
import { readBlob } from '../../streams/blob.ts';
import { inboxRecordSchema, parseJsonRecord, streamNames } from '../../streams/records.ts';
import type { InboxRecord } from '../../streams/records.ts';
import type { StreamRecord, StreamStore } from '../../streams/stream-store.ts';

export interface ReceivedEmail {
  readonly inbox: string;
  readonly atMs: number;
  /** Says which one it is. */
  readonly name: string;
  readonly raw: Uint8Array;
}

const MAX_INBOXES = 1_000;

/** Null where there is none. @throws what the store and `readBlob` throw */
export async function lastReceived(
  store: StreamStore,
  { inbox, signal }: { inbox: string | null; signal: AbortSignal },
): Promise<ReceivedEmail | null> {
  const all = { prefix: streamNames.inboxPrefix, limit: MAX_INBOXES, signal };
  const names = inbox === null ? (await store.list(all)).names : [streamNames.inbox(inbox)];
  let newest: { mail: InboxRecord; record: StreamRecord; stream: string } | null = null;
  for (const stream of names) {
    const record = await newestRecord(store, stream, signal);
    if (!record || (newest && record.timestampMs <= newest.record.timestampMs)) continue;
    newest = { mail: parseJsonRecord(inboxRecordSchema, record), record, stream };
  }
  if (!newest) return null;
  const { mail, record, stream } = newest;
  const atMs = Date.parse(mail.receivedAt);
  const raw = await readBlob(store, mail.raw, signal);
  return { inbox: mail.inbox, atMs, name: `${stream}#${record.seqNum}, received ${mail.receivedAt}`, raw };
}

async function newestRecord(
  store: StreamStore,
  name: string,
  signal: AbortSignal,
): Promise<StreamRecord | undefined> {
  const stream = store.stream(name);
  const fromSeqNum = Math.max(0, (await stream.tail(signal)) - 1);
  return (await stream.read({ fromSeqNum, maxRecords: 1, signal })).records.at(-1);
}
