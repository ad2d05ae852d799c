/**
 * What the guest makes as JSON and the host takes: the end of a run, and what a bundle exports. It is checked here, in
 * the parent, because the code that made it ran beside the tool's.
 */
import { z } from 'zod';
import { errorMessage } from '../../platform/errors.ts';
import { isNestedWithin } from './json-depth.ts';
import { exportKinds } from './sandbox.ts';
import { stateLimits } from './state-limits.ts';

const MAX_EFFECTS = 100;

const content = {
  text: z.string().optional(),
  html: z.string().optional(),
  subject: z.string().optional(),
  attachments: z
    .array(
      z.strictObject({
        filename: z.string(),
        contentBase64: z.base64(),
        contentType: z.string().optional(),
      }),
    )
    .optional(),
  at: z.iso.datetime().optional(),
};
const addresses = z.array(z.string());
const recipients = { to: addresses, cc: addresses.optional(), bcc: addresses.optional() };

const effectSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('reply'), ...content }),
  z.strictObject({ kind: z.literal('send'), ...recipients, ...content }),
  z.strictObject({ kind: z.literal('forward'), ...recipients, ...content }),
]);

/** It is written as JSON again later on, where too deep a value would overflow the stack. */
const value = z.unknown().refine((data) => isNestedWithin(data, stateLimits.depth), {
  error: `nested deeper than ${stateLimits.depth} levels`,
});
const entries = z.array(z.tuple([z.string(), value])).optional();

export const runEndSchema = z.strictObject({
  effects: z.array(effectSchema).max(MAX_EFFECTS),
  state: z.strictObject({ inbox: entries, thread: entries }),
});

export const inspectionSchema = z.strictObject({
  exports: z.array(z.strictObject({ name: z.string(), kind: z.enum(exportKinds) })),
  settings: value.optional(),
  tests: value.optional(),
});

/** Of a run that reads what a bundle exports. */
export const INSPECTION_LIMITS = {
  timeoutMs: 5_000,
  cpuLimitMs: 5_000,
  memoryLimitMb: 64,
  maxResultBytes: 256 * 1024,
  maxLogBytes: 64 * 1024,
} as const;

/** What the guest made, if it is JSON of that shape. */
export function parseGuestJson<T>(schema: z.ZodType<T>, json: string): { data: T } | { fault: string } {
  try {
    const parsed = schema.safeParse(JSON.parse(json));
    return parsed.success ? { data: parsed.data } : { fault: z.prettifyError(parsed.error) };
  } catch (error) {
    return { fault: errorMessage(error) };
  }
}
