/**
 * Dead letters: what stands as such on the journals, read when a person asks. A dead letter is named by its stage
 * and by the number of its record on the stage's source, and is put back at most once: what was put back and
 * fails again is a dead letter of its own, under the number of the copy.
 *
 * Journals are read from their beginning, a bounded part at a time; only the lines that can be dead letters
 * are parsed.
 */
import { z } from 'zod';
import type { OutcomeRecord } from '../streams/journal-records.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { baseKey } from './record-copy.ts';
import type { Rerun } from './rerun.ts';
import type { StageStreams } from './stage-streams.ts';
import { jsonOf, outcomeOf, recordAt, scan } from '../streams/stream-scan.ts';

export interface DeadLetter {
  readonly stage: StageStreams['stage'];
  readonly inbox: string | null;
  /** On the stage's source. */
  readonly seqNum: number;
  readonly key: string;
  /** When it was parked. */
  readonly at: string;
  /** Null where the record itself cannot be read any more. */
  readonly emailId: string | null;
  readonly attempts: number;
  readonly reason: string | null;
  readonly error: OutcomeRecord['error'];
  /** When it was put back; null for never. */
  readonly redrivenAt: string | null;
}

export interface DeadLetterPage {
  readonly deadLetters: readonly DeadLetter[];
  /** Where on the journal the next page begins; null at the end. */
  readonly next: number | null;
}

export interface DeadLetterRange {
  /** On the journal. */
  fromSeqNum: number;
  /** On the journal, not this one and what is above; default: its tail. */
  untilSeqNum?: number;
  /** On the source, both included; default: all. */
  seqNums?: { readonly from: number; readonly to: number };
  /** Only those that were not put back. */
  isOpen?: boolean;
  limit: number;
  signal: AbortSignal;
}

/** Of a journal, in one request. */
const MAX_SCANNED = 200_000;

/** One page of a stage's dead letters, oldest first. */
export async function listDeadLetters(
  deps: { store: StreamStore; rerun: Rerun },
  streams: StageStreams,
  range: DeadLetterRange,
): Promise<DeadLetterPage> {
  const { store, rerun } = deps;
  const { seqNums, signal } = range;
  const notes = await rerun.notes(streams.source, signal);
  const found: { outcome: OutcomeRecord; redrivenAt: string | null }[] = [];
  const journal = store.stream(streams.journal);
  const { fromSeqNum, untilSeqNum = Infinity } = range;
  const bounds = { fromSeqNum, untilSeqNum, maxRecords: MAX_SCANNED, signal };
  const next = await scan(journal, bounds, (record) => {
    const outcome = deadLetterOf(record);
    if (!outcome || outcome.seqNum < (seqNums?.from ?? 0) || outcome.seqNum > (seqNums?.to ?? Infinity))
      return true;
    const note = notes.get(redriveKey(outcome));
    const redrivenAt = note?.phase === 'done' ? note.at : null;
    if (range.isOpen !== true || redrivenAt === null) found.push({ outcome, redrivenAt });
    return found.length < range.limit;
  });
  const deadLetters: DeadLetter[] = [];
  for (const { outcome, redrivenAt } of found) {
    const { seqNum, key, at, attempts, reason, error } = outcome;
    const emailId = await emailIdOf(store, { streams, outcome, signal });
    const { stage, inbox } = streams;
    deadLetters.push({ stage, inbox, seqNum, key, at, emailId, attempts, reason, error, redrivenAt });
  }
  return { deadLetters, next };
}

/**
 * How many wait for somebody, up to a limit.
 * @param range.maxRecords of the journal, the newest
 * @returns whether that was all of the journal, too
 */
export async function countOpenDeadLetters(
  deps: { store: StreamStore; rerun: Rerun },
  streams: StageStreams,
  range: { limit: number; maxRecords: number; signal: AbortSignal },
): Promise<{ count: number; isAll: boolean }> {
  const { limit, maxRecords, signal } = range;
  const first = Math.max(0, (await deps.store.stream(streams.journal).tail(signal)) - maxRecords);
  let count = 0;
  for (let next: number | null = first; next !== null && count < limit;) {
    const page = await listDeadLetters(deps, streams, {
      fromSeqNum: next,
      limit: limit - count,
      isOpen: true,
      signal,
    });
    count += page.deadLetters.length;
    next = page.next;
  }
  return { count, isAll: first === 0 };
}

/** The key of the copy with which a dead letter is put back: there is one, so it is put back once. */
export function redriveKey({ key, seqNum }: Pick<DeadLetter, 'key' | 'seqNum'>): string {
  return `${baseKey(key)}#redrive-${seqNum}`;
}

const DEAD_LETTER = Buffer.from('"dead-letter"');

/** The outcome that a journal record is, if it is that of a dead letter. */
function deadLetterOf(record: StreamRecord): OutcomeRecord | null {
  if (!Buffer.from(record.body.buffer, record.body.byteOffset, record.body.length).includes(DEAD_LETTER))
    return null;
  const outcome = outcomeOf(record);
  return outcome?.outcome === 'dead-letter' ? outcome : null;
}

const factsSchema = z.object({
  emailId: z.string().optional(),
  cause: z.object({ emailId: z.string() }).optional(),
});
const eventSchema = z.object({ data: z.object({ email_id: z.string() }) });
const recordSchema = z.object({
  emailId: z.string().optional(),
  cause: z.object({ emailId: z.string() }).optional(),
});

/** Which email it is about: the outcome says it, unless the handler threw; then the record does. */
async function emailIdOf(
  store: StreamStore,
  { streams, outcome, signal }: { streams: StageStreams; outcome: OutcomeRecord; signal: AbortSignal },
): Promise<string | null> {
  const facts = factsSchema.safeParse(outcome.facts).data;
  const told = facts?.emailId ?? facts?.cause?.emailId;
  if (told !== undefined) return told;
  const record = await recordAt(store.stream(streams.source), outcome.seqNum, signal);
  if (!record) return null;
  const value = jsonOf(record);
  const { emailId, cause } = recordSchema.safeParse(value).data ?? {};
  return emailId ?? cause?.emailId ?? eventSchema.safeParse(value).data?.data.email_id ?? null;
}
