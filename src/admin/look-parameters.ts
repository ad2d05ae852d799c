/** The parameters of the routes of the admin API that only look, as `admin-parameters.ts` has those of the others. */
import { z } from 'zod';

const MAX_PAGE = 500;
const DEFAULT_PAGE = 100;

/** As they come in a query. */
export const numberText = z
  .string()
  .regex(/^\d{1,15}$/, 'must be a number')
  .transform(Number);
export const pageSize = numberText.pipe(z.number().min(1).max(MAX_PAGE)).default(DEFAULT_PAGE);
const streamName = z.string().min(1).max(512);
/** The id of an email, or a Message-ID. */
export const traceQuery = z.strictObject({ id: z.string().regex(/^[\x21-\x7e]{1,998}$/, 'must be an id') });

/** Without a text: all mail. */
export const mailsQuery = z.strictObject({
  text: z.string().max(500).default(''),
  before: numberText.optional(),
  limit: pageSize,
});

export const streamsQuery = z.strictObject({
  prefix: z.string().max(512).default(''),
  startAfter: z.string().max(512).optional(),
  limit: pageSize,
});

export const recordsQuery = z.strictObject({
  name: streamName,
  from: numberText.optional(),
  count: pageSize,
});
