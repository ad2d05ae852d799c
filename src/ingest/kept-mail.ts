/**
 * What receive keeps of a mail on `mail/<email_id>` before it hands it out: the raw message, fetched once, and its
 * routes: which tool's inbox each name that the mail is for leads to. Routes are decided once, too. Tools come and go,
 * also between a crash and the repetition of what it cut off; a mail that was handed to the catch-all must not be
 * handed to a tool of its own afterwards, or two would answer. Of two decisions on the stream the first one holds.
 */
import { z } from 'zod';
import type { Recipient } from '../mail/address.ts';
import { MillraceError } from '../platform/errors.ts';
import { findBlob, readBlob, writeBlob, writeBlobWith } from '../streams/blob.ts';
import { DEFAULT_INBOX } from '../streams/live-tools.ts';
import { headerOf, jsonRecord, parseJsonRecord, streamNames } from '../streams/records.ts';
import type { BlobPointer } from '../streams/records.ts';
import { scan } from '../streams/stream-scan.ts';
import type { NewRecord, Stream, StreamStore } from '../streams/stream-store.ts';

/** Where the raw message comes from. */
export interface InboundProvider {
  /** The raw MIME of a received email; `resend.content_missing` (transient) while there is none. */
  rawMessage(emailId: string, signal: AbortSignal, options?: FetchOptions): Promise<Uint8Array>;
}

export interface FetchOptions {
  /** Calls for one inbox take turns with those for another. */
  inbox?: string;
  /** Waits for room for so many bytes, before they are in memory; called at most once. */
  reserve?: Reserve;
}

export type Reserve = (bytes: number) => Promise<void>;

/** The local mailbox puts the content there before the event: nobody need be asked for it. */
export const noInbound: InboundProvider = {
  rawMessage: (emailId) =>
    Promise.reject(
      new MillraceError('permanent', 'receive.no_content', `the local mailbox has no mail ${emailId}`),
    ),
};

/** By the name that a mail is for: the inbox whose tool has it, or null for none. */
export type Routes = ReadonlyMap<string, string | null>;

export interface KeptMail {
  readonly raw: Uint8Array;
  readonly pointer: BlobPointer;
  readonly routes: Routes;
}

/** Tells the record from the pieces of the raw message, without a look at bodies. */
const ROUTES_HEADER = 'routes';
const routesSchema = z.object({
  kind: z.literal('routes'),
  version: z.literal(1),
  routes: z.array(z.tuple([z.string(), z.string().nullable()])),
});

/** Attempts at one mail leave a few records each; beyond this it is something else. */
const MAX_SCANNED_RECORDS = 10_000;

interface MailToKeep {
  readonly emailId: string;
  readonly recipients: readonly Recipient[];
  /** The inboxes that have a tool now. */
  readonly served: readonly string[];
  readonly reserve: Reserve;
}

/** @throws MillraceError what the provider throws, and what the store throws */
type KeepMail = (mail: MailToKeep, signal: AbortSignal) => Promise<KeptMail>;

export function createKeepMail({
  store,
  inbound,
}: {
  store: StreamStore;
  inbound: InboundProvider;
}): KeepMail {
  return async ({ emailId, recipients, served, reserve }, signal) => {
    const routes: Routes = new Map(
      recipients.flatMap(({ inbox }) => (inbox === null ? [] : [[inbox, routeOf(inbox, served)]])),
    );
    const stream = store.stream(streamNames.mail(emailId));
    const kept = await findBlob(stream, signal);
    if (kept) {
      await reserve(kept.bytes);
      const raw = await readBlob(store, kept, signal);
      return { raw, pointer: kept, routes: await decideOnce(stream, routes, signal) };
    }
    const raw = await inbound.rawMessage(emailId, signal, { inbox: recipients[0]?.inbox ?? '', reserve });
    // Most mail is small and new: then one append keeps all of it.
    const whole = await writeBlobWith(stream, raw, { beside: routesRecord(routes), signal });
    if (whole) return { raw, pointer: whole, routes };
    const pointer = await writeBlob(stream, raw, { signal });
    return { raw, pointer, routes: await decideOnce(stream, routes, signal) };
  };
}

function routeOf(name: string, served: readonly string[]): string | null {
  return [name, DEFAULT_INBOX].find((inbox) => served.includes(inbox)) ?? null;
}

/** The first decision on the stream; where there is none, this one becomes it. Names that it lacks are added. */
async function decideOnce(stream: Stream, proposed: Routes, signal: AbortSignal): Promise<Routes> {
  const decided = await findRoutes(stream, signal);
  if (decided) return new Map([...proposed, ...decided]);
  await stream.append([routesRecord(proposed)], { signal });
  // Another event about the same mail may have been first.
  return new Map([...proposed, ...((await findRoutes(stream, signal)) ?? [])]);
}

async function findRoutes(stream: Stream, signal: AbortSignal): Promise<Routes | null> {
  let found: Routes | null = null;
  await scan(stream, { fromSeqNum: 0, maxRecords: MAX_SCANNED_RECORDS, signal }, (record) => {
    if (headerOf(record, ROUTES_HEADER) === undefined) return true;
    found = new Map(parseJsonRecord(routesSchema, record).routes);
    return false;
  });
  return found;
}

function routesRecord(routes: Routes): NewRecord {
  const { body } = jsonRecord({ kind: 'routes', version: 1, routes: [...routes] });
  return { headers: [[ROUTES_HEADER, String(routes.size)]], body };
}
