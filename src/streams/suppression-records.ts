/**
 * The records of the stream `suppressions`: a digest of what `delivery` says of addresses that must not be written to
 * any more, and what a person has said against it. The digest tells nothing that `delivery` does not: it is there so that a
 * start need not read all of that again. How they are read: `outbox/suppression-list.ts`.
 *
 * Numbers of records on `delivery` say what comes before what, on both streams together.
 */
import { z } from 'zod';

const seqNumSchema = z.number().int().nonnegative();

/** A record on `delivery` says that an address must not be written to; of the ones before it none is missing here. */
const suppressionSchema = z.object({
  kind: z.literal('suppression'),
  version: z.literal(1),
  deliverySeqNum: seqNumSchema,
  /** Normalised. */
  address: z.string(),
  reason: z.enum(['bounced', 'complained', 'suppressed']),
  /** What the provider says of it, or null. */
  message: z.string().nullable(),
  /** Of the mail that it is about. */
  providerId: z.string(),
  /** When `delivery` had it. */
  at: z.string(),
});
export type SuppressionRecord = z.infer<typeof suppressionSchema>;

/** A person lets an address be written to again, whatever stands on `delivery` below this number. */
const suppressionLiftSchema = z.object({
  kind: z.literal('suppression-lift'),
  version: z.literal(1),
  address: z.string(),
  belowDeliverySeqNum: seqNumSchema,
  at: z.string(),
});
export type SuppressionLift = z.infer<typeof suppressionLiftSchema>;

/** All of `delivery` below this number has been looked at. */
const suppressionPositionSchema = z.object({
  kind: z.literal('suppression-position'),
  version: z.literal(1),
  nextDeliverySeqNum: seqNumSchema,
  at: z.string(),
});

/** Any record of the stream `suppressions`. */
export const suppressionsStreamSchema = z.discriminatedUnion('kind', [
  suppressionSchema,
  suppressionLiftSchema,
  suppressionPositionSchema,
]);
export type SuppressionsStreamRecord = z.infer<typeof suppressionsStreamSchema>;
