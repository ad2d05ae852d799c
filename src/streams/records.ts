/**
 * What stands on the streams: names, retention, and the schema of every record.
 *
 * Bodies are versioned JSON (`kind`, `version`), so that the `s2` command-line tool shows something that a
 * person can read. Two exceptions: an `events` record is the webhook's body byte for byte (what we add
 * stands in its headers), and the pieces of a `mail/` or `request/` stream are plain bytes (`blob.ts`).
 * A newer version than ours (`record-versions.ts`) is never guessed at: it is refused as `records.newer_version`.
 */
import { z } from 'zod';
import { parsedEmailSchema, providerRequestSchema } from '../mail/email.ts';
import { MillraceError } from '../platform/errors.ts';
import { newerVersionOf } from './record-versions.ts';
import type { NewRecord, RecordHeader, Retention, StreamRecord } from './stream-store.ts';

const REVISION_PREFIX = 'revision/';

export const streamNames = {
  events: 'events',
  received: 'received',
  outbox: 'outbox',
  sent: 'sent',
  delivery: 'delivery',
  /** Who is not written to any more, and what a person said against it: see `suppression-records.ts`. */
  suppressions: 'suppressions',
  tools: 'tools',
  /** What the local mailbox delivered in place of Resend. */
  mailbox: 'mailbox',
  /** What a person had put back or run again. */
  reruns: 'reruns',
  /** Heartbeats of the processes that share a basin: see `membership.ts`. */
  members: 'members',
  /** What says whether the store takes records: see `append-watch.ts`. */
  probe: 'probe',
  /** Which format the streams have, and whether they come from a backup: see `format.ts`. */
  meta: 'meta',
  unrouted: 'inbox/unrouted',
  inboxPrefix: 'inbox/',
  inbox: (inbox: string) => `inbox/${inbox}`,
  runs: (inbox: string) => `runs/${inbox}`,
  /** The raw MIME of one inbound email. */
  mail: (emailId: string) => `mail/${emailId}`,
  /** What the tool of an inbox keeps, for the inbox and for each conversation: see `tool-state.ts`. */
  state: (inbox: string) => `state/${inbox}`,
  threadState: (inbox: string, thread: string) => `state/${inbox}/${thread}`,
  /** A frozen provider request that does not fit into its outbox record. */
  request: (idempotencyKey: string) => `request/${idempotencyKey}`,
  /** What a revision of the tools runs: its bundle, as a blob. */
  revision: (revision: string) => `${REVISION_PREFIX}${revision}`,
} as const;

/**
 * Journals carry progress and expire only when nothing depends on them: they are trimmed, not aged out. So is what
 * an inbox keeps; what its conversations keep goes with their mail.
 */
export function retentionFor(retentionDays: number): (streamName: string) => Retention {
  const { received, sent, tools, reruns, meta } = streamNames;
  const journals: readonly string[] = [received, sent, tools, reruns, meta];
  return (name) => {
    if (name === streamNames.members || name === streamNames.probe) return HEARTBEAT_RETENTION_SECONDS;
    const isKept =
      journals.includes(name) ||
      name.startsWith('runs/') ||
      name.startsWith(REVISION_PREFIX) ||
      /^state\/[^/]+$/.test(name);
    return isKept ? 'forever' : retentionDays * 86_400;
  };
}

/** Such a stream serves one mail, or one conversation: without its records it is as one that was never written to. */
export function isOfOneMail(streamName: string): boolean {
  return /^(?:mail\/|request\/|state\/[^/]+\/)/.test(streamName);
}

/** Heartbeats and probes serve for seconds; for an hour a person can see who held what. */
const HEARTBEAT_RETENTION_SECONDS = 3_600;

/** The header under which every keyed record carries the key derived from its cause. */
export const KEY_HEADER = 'key';

/** Of a request: when its cause came (ms since the epoch), before which no run can have made a copy of it. */
export const CAUSED_AT_HEADER = 'caused-at';

/** Headers of a copy that a person had put back on its stream, or run again. */
export const COPY_HEADERS = {
  /** Stream and number of the record that it is a copy of. */
  of: 'copy-of',
  /** Of a redriven one: the number that its effects are keyed by, so that what has happened does not happen again. */
  origin: 'origin',
  /** Of a redriven one, too: the key of the record that it stands for. */
  cause: 'cause',
  /** Of a request, or of a mail that had some: since when (ms since the epoch) an attempt may have had an effect that nobody knows of. */
  doubtSince: 'doubt-since',
} as const;

/** The number that the effects of an inbox record are keyed by: its own, or that of what it was put back for. */
export function originSeqNum(record: StreamRecord): number {
  return Number(headerOf(record, COPY_HEADERS.origin) ?? record.seqNum);
}

/** The key of an inbox record, of a redriven one that of the record which it stands for; null where there is none. */
export function causeKeyOf(record: StreamRecord): string | null {
  const told = headerOf(record, COPY_HEADERS.cause);
  if (told !== undefined) return told;
  const isRedriven = headerOf(record, COPY_HEADERS.origin) !== undefined;
  return isRedriven ? null : (headerOf(record, KEY_HEADER) ?? null);
}

/** What the keys begin with under which the outbox settles the requests of one inbox record. */
export function settlementPrefix(inbox: string, origin: number): string {
  return `${encodeURIComponent(inbox)}/${origin}/`;
}

const blobPointerSchema = z.object({
  stream: z.string(),
  bytes: z.number().int().nonnegative(),
  sha256: z.string(),
});
/** Where bytes of any size lie: see `blob.ts`. */
export type BlobPointer = z.infer<typeof blobPointerSchema>;

/** `inbox/<name>`: one email for one inbox. */
export const inboxRecordSchema = z.object({
  kind: z.literal('email'),
  version: z.literal(1),
  emailId: z.string(),
  inbox: z.string(),
  /** The address of ours that it was sent to, normalised, with its tag: where replies come from. */
  address: z.string(),
  tag: z.string().nullable(),
  receivedAt: z.string(),
  /** When the provider had it, where its webhook came much later. */
  arrivedAt: z.string().optional(),
  email: parsedEmailSchema,
  /** False where `text`, `html`, `newText` or `headers` were cut to fit a record: the raw message has them whole. */
  complete: z.boolean(),
  raw: blobPointerSchema,
});
export type InboxRecord = z.infer<typeof inboxRecordSchema>;

/** `outbox`: one provider request, frozen, with its idempotency key and its cause. */
export const outboxRecordSchema = z.object({
  kind: z.literal('request'),
  version: z.literal(1),
  /** What the provider knows it by; the record's own key is what the outbox settles once: see `run-cause.ts`. */
  idempotencyKey: z.string(),
  cause: z.object({
    inbox: z.string(),
    seqNum: z.number().int().nonnegative(),
    effect: z.number().int().nonnegative(),
    emailId: z.string(),
  }),
  /** Mail of one conversation leaves in the order of its records. */
  thread: z.string(),
  /** Not before this time (ISO 8601); null for at once. */
  notBefore: z.string().nullable(),
  /** The request itself, or where it lies if it does not fit. */
  request: z.union([providerRequestSchema, z.object({ blob: blobPointerSchema })]),
});
export type OutboxRecord = z.infer<typeof outboxRecordSchema>;

/** `state/<inbox>` and `state/<inbox>/<thread>`: all that a tool keeps there; the highest revision holds. */
export const stateRecordSchema = z.object({
  kind: z.literal('state'),
  version: z.literal(1),
  revision: z.number().int().positive(),
  entries: z.array(z.tuple([z.string(), z.unknown()])),
  at: z.string(),
});

/** `delivery`: what became of a mail that the provider took. */
export const deliveryRecordSchema = z.object({
  kind: z.literal('delivery'),
  version: z.literal(1),
  /** The provider's word without its prefix: `sent`, `delivered`, `bounced`, … */
  event: z.string(),
  providerId: z.string(),
  messageId: z.string().nullable(),
  to: z.array(z.string()),
  tags: z.record(z.string(), z.string()),
  at: z.string(),
  /** The provider's own details of a bounce, failure or click, as they came. */
  details: z.unknown(),
});
export type DeliveryRecord = z.infer<typeof deliveryRecordSchema>;

/** `tools`: which revision became live, or why one was refused. */
export const toolsRecordSchema = z.object({
  kind: z.literal('tools'),
  version: z.literal(1),
  revision: z.string(),
  status: z.enum(['live', 'refused']),
  /** Inboxes that the live revision serves; `default` is the catch-all. */
  inboxes: z.array(z.string()),
  /** Exported functions that no mail can reach, because no inbox can be called so. */
  unreachable: z.array(z.string()).optional(),
  /** For a refused one: what the compiler or a test said, with file and line. */
  error: z.string().nullable(),
  /** Of a refused one: nothing was judged, because the Git host or the registry was away, and it is tried again. */
  isTransient: z.boolean().optional(),
  /** What it was made of, where the tools come from a repository: the commit and the first line of its message. */
  commit: z.object({ id: z.string(), subject: z.string() }).optional(),
  /** Of a live one from a repository: what runs, for whoever runs it, on whatever machine. */
  bundle: blobPointerSchema.optional(),
  /** Names the release's way of bundling: what another one made is made again. */
  builder: z.string().optional(),
  at: z.string(),
});
export type ToolsRecord = z.infer<typeof toolsRecordSchema>;

/** `tools`, too: what is asked of whoever keeps the tools up to date, in whatever process. */
export const toolsRequestSchema = z.object({
  kind: z.literal('tools-request'),
  version: z.literal(1),
  /** Look at the repository now; stay with one commit whatever is pushed; follow the branch again. */
  action: z.enum(['sync', 'pin', 'unpin']),
  /** For `pin`: the id of the commit. */
  commit: z.string().nullable(),
  at: z.string(),
});
export type ToolsRequest = z.infer<typeof toolsRequestSchema>;

/** Any record of the stream `tools`. */
export const toolsStreamSchema = z.discriminatedUnion('kind', [toolsRecordSchema, toolsRequestSchema]);

/** `mailbox`: a reply that the local mailbox took in place of Resend. */
export const mailboxRecordSchema = z.object({
  kind: z.literal('mailbox'),
  version: z.literal(1),
  idempotencyKey: z.string(),
  providerId: z.string(),
  request: z.union([providerRequestSchema, z.object({ blob: blobPointerSchema })]),
  at: z.string(),
});
export type MailboxRecord = z.infer<typeof mailboxRecordSchema>;

/** `reruns`: that records are about to be put back (`begun`), and that they are (`done`). */
export const rerunRecordSchema = z.object({
  kind: z.literal('rerun'),
  version: z.literal(1),
  action: z.enum(['redrive', 'replay']),
  phase: z.enum(['begun', 'done']),
  from: z.string(),
  to: z.string(),
  /** The tail of `to` before: a copy that is there stands at or above it. */
  toTail: z.number().int().nonnegative(),
  /** Number on `from`, and the key that the copy on `to` has. */
  copies: z.array(z.object({ seqNum: z.number().int().nonnegative(), key: z.string() })),
  at: z.string(),
});
export type RerunRecord = z.infer<typeof rerunRecordSchema>;

/** A record whose body is this JSON value; `key` goes into its header. */
export function jsonRecord(
  value: { kind: string; version: number; [field: string]: unknown },
  key?: string,
): NewRecord {
  const headers: RecordHeader[] = key === undefined ? [] : [[KEY_HEADER, key]];
  // Lone surrogates would not survive UTF-8; NUL and the rest are escaped by JSON itself.
  return { headers, body: JSON.stringify(value).toWellFormed() };
}

/** A stage asks for a record's lane, and later handles it: while the record is in memory, so is what it says. */
const parsedRecords = new WeakMap<StreamRecord, { schema: z.ZodType; value: unknown }>();

/**
 * The JSON value of a record, checked; the same object each time, so it must not be changed.
 * @throws MillraceError `records.newer_version` (bug: a newer release wrote it; this one must not guess)
 *   or `records.malformed` (permanent).
 */
export function parseJsonRecord<T>(schema: z.ZodType<T>, record: StreamRecord): T {
  const known = parsedRecords.get(record);
  if (known?.schema === schema) return known.value as T;
  const value = parseRecord(schema, record);
  parsedRecords.set(record, { schema, value });
  return value;
}

function parseRecord<T>(schema: z.ZodType<T>, record: StreamRecord): T {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(record.body).toString('utf8'));
  } catch (cause) {
    throw new MillraceError('permanent', 'records.malformed', `record ${record.seqNum} is not JSON`, {
      cause,
    });
  }
  const newer = newerVersionOf(value);
  if (newer) {
    const { kind, version, known } = newer;
    throw new MillraceError(
      'bug',
      'records.newer_version',
      `record ${record.seqNum} of kind ${kind} has version ${version}, this release reads ${known}`,
      { hint: 'Run the release that wrote it, or a newer one.' },
    );
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new MillraceError(
    'permanent',
    'records.malformed',
    `record ${record.seqNum}: ${z.prettifyError(parsed.error)}`,
  );
}

/** The value of a record's header, or undefined. */
export function headerOf(record: StreamRecord, name: string): string | undefined {
  return record.headers.find(([headerName]) => headerName === name)?.[1];
}
