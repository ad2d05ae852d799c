/**
 * What each route of the admin API takes, with its limits; docs/admin-api.md is compared with it. A parameter
 * that is not known is refused, not passed over: a misspelt one must not widen what is run again.
 */
import { z } from 'zod';
import { numberText, pageSize } from './look-parameters.ts';

const seqNum = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const seqNums = z
  .strictObject({ from: seqNum, to: seqNum })
  .refine(({ from, to }) => from <= to, 'the range ends before it begins');
/** Ends where the stream ended when the first page was asked for. */
const page = z.strictObject({ fromSeqNum: seqNum, untilSeqNum: seqNum });
const emailId = z
  .string()
  .regex(/^[\w.-]{1,128}$/, 'must be the id of an email')
  .transform((id) => id.toLowerCase());

/** One stage, or an inbox, whose stage is the runner's. */
const stage = z.enum(['receive', 'outbox']);

export const deadLettersQuery = z
  .strictObject({
    stage: stage.optional(),
    inbox: z.string().optional(),
    from: numberText.default(0),
    limit: pageSize,
    open: z.literal('true').optional(),
  })
  .refine(hasOneStage, 'either stage or inbox');

export const redriveBody = z
  .strictObject({
    stage: stage.optional(),
    inbox: z.string().optional(),
    seqNums: z.union([z.literal('all'), seqNums]),
    from: z.union([seqNum, page]).default(0),
    isKnownUnsent: z.boolean().default(false),
  })
  .refine(hasOneStage, 'either stage or inbox')
  .refine((body) => !body.isKnownUnsent || body.stage === 'outbox', 'isKnownUnsent is for the outbox');

export const replayBody = z
  .strictObject({
    id: z.string().regex(/^[\w-]{1,64}$/, 'must be 1 to 64 letters, digits and hyphens'),
    inbox: z.string().optional(),
    unroutedTo: z.string().optional(),
    seqNums: seqNums.optional(),
    since: z.iso.datetime({ offset: true }).optional(),
    emailId: emailId.optional(),
    page: page.nullable().default(null),
    isDryRun: z.boolean().default(false),
  })
  .refine(({ inbox, unroutedTo }) => (inbox === undefined) !== (unroutedTo === undefined), {
    message: 'either inbox or unroutedTo',
  })
  .refine(
    (body) => body.unroutedTo !== undefined || (body.seqNums ?? body.since ?? body.emailId) !== undefined,
    'one of seqNums, since and emailId',
  );

/** Without a revision: the one that was live before. */
export const toolsPinBody = z.strictObject({
  revision: z
    .string()
    .regex(/^[0-9a-f]{4,64}$/, 'must be a revision, or the beginning of a commit')
    .nullable(),
});

export const toolsUnpinBody = z.strictObject({});

/** From a number on `delivery` on. */
export const suppressionsQuery = z.strictObject({ from: numberText.default(0), limit: pageSize });

export const liftBody = z.strictObject({ address: z.string().max(512) });

function hasOneStage(which: { stage?: unknown; inbox?: unknown }): boolean {
  return (which.stage === undefined) !== (which.inbox === undefined);
}
