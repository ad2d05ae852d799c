/**
 * The records of a stage's journal. In order, as they are written, it holds
 *
 * - `outcome`    what became of one source record: done, skipped, duplicate, dead-letter, or deferred until;
 * - `intent`     an outcome that is decided, with its outputs, before these are written (only where both must be one);
 * - `attempt`    an attempt with an outside effect is about to begin (only where the stage asks for it);
 * - `keys`       a segment of settled keys (`settled-keys.ts`);
 * - `checkpoint` all that recovery needs of what stands before it, in one or several parts.
 *
 * Who writes and recovers them is the journal (`journal.ts`); who looks on reads outcomes and attempts.
 */
import { z } from 'zod';

const seqNumSchema = z.number().int().nonnegative();

/** A record that is set aside: deferred until a time, or (`untilMs` 0) waiting behind another of its lane. */
const asideSchema = z.object({
  seqNum: seqNumSchema,
  key: z.string(),
  lane: z.string().nullable(),
  fairnessKey: z.string().optional(),
  attempts: z.number().int().nonnegative(),
  untilMs: z.number(),
  holdsLane: z.boolean(),
  /** Of a backoff: how far off that was when it was decided. The clock may have been ahead then, and right since. */
  waitMs: z.number().optional(),
  /** Begin of the first attempt whose effect is not known, or null. */
  doubtSinceMs: z.number().nullable(),
});
export type Aside = z.infer<typeof asideSchema>;

export const outcomeSchema = z.object({
  kind: z.literal('outcome'),
  version: z.literal(1),
  seqNum: seqNumSchema,
  key: z.string(),
  outcome: z.enum(['done', 'skipped', 'duplicate', 'dead-letter', 'deferred']),
  attempts: z.number().int().nonnegative(),
  /** Why, as a stable word, for all but `done`. */
  reason: z.string().nullable(),
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().nullable() }).nullable(),
  at: z.string(),
  durationMs: z.number(),
  /** For `deferred`. */
  aside: asideSchema.optional(),
  /** What the stage itself has to say, such as the provider's id or the tool's revision. */
  facts: z.record(z.string(), z.unknown()),
  /** Where its outputs stand: the numbers by stream. */
  outputs: z.record(z.string(), z.array(seqNumSchema)).optional(),
});
export type OutcomeRecord = z.infer<typeof outcomeSchema>;

const intentSchema = z.object({
  kind: z.literal('intent'),
  version: z.literal(1),
  /** As it is going to be, but for where its outputs stand. */
  outcome: outcomeSchema,
  outputs: z.array(
    z.object({
      stream: z.string(),
      headers: z.array(z.tuple([z.string(), z.string()])),
      body: z.string(),
    }),
  ),
});
export type IntentRecord = z.infer<typeof intentSchema>;

export const attemptSchema = z.object({
  kind: z.literal('attempt'),
  version: z.literal(1),
  seqNum: seqNumSchema,
  key: z.string(),
  at: z.string(),
});

const keysSchema = z.object({ kind: z.literal('keys'), version: z.literal(1), fingerprints: z.string() });

const segmentSchema = z.object({ seqNum: seqNumSchema, newestMs: z.number(), count: z.number() });

const checkpointSchema = z.object({
  kind: z.literal('checkpoint'),
  version: z.literal(1),
  /** Parts of one checkpoint share an id and follow one another without anything between them. */
  id: z.string(),
  part: z.number().int(),
  parts: z.number().int(),
  /** Every source record below is settled or in `aside`. */
  low: seqNumSchema,
  /** Half-open ranges above `low` that are settled. */
  settled: z.array(z.tuple([seqNumSchema, seqNumSchema])),
  aside: z.array(asideSchema),
  /** Attempts in flight: [seqNum, begin of the first attempt in doubt]. */
  doubts: z.array(z.tuple([seqNumSchema, z.number()])),
  keySegments: z.array(segmentSchema),
  /** How long the stage has run in all, in milliseconds. */
  runningMs: z.number(),
});
export type CheckpointPart = z.infer<typeof checkpointSchema>;

export const journalRecordSchema = z.discriminatedUnion('kind', [
  outcomeSchema,
  intentSchema,
  attemptSchema,
  keysSchema,
  checkpointSchema,
]);
export type JournalRecord = z.infer<typeof journalRecordSchema>;
