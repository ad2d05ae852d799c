/**
 * What the guest makes as JSON and the host takes: the end of a run, and what a bundle exports. It is checked here, in
 * the parent, because the code that made it ran beside the tool's.
 */
import { z } from 'zod';
import { errorMessage } from '../../platform/errors.ts';
import { isNestedWithin } from './json-depth.ts';
import { hasAtMostParts } from './json-parts.ts';
import { exportKinds } from './sandbox.ts';
import { stateLimits } from './state-limits.ts';

const MAX_EFFECTS = 100;
/** Of one mail: files, and addresses in each of its lists. The guest takes no more either. */
const MAX_FILES = 100;
const MAX_LISTED = 50;
/** More than all effects, files, addresses and state of a run together can have. */
const MAX_PARTS = 128 * 1024;
const MAX_SHOWN_ISSUES = 5;
const MAX_FAULT_CHARS = 1_000;

/** Its length is checked before its elements are: each bad one would be an issue to be told. */
function listOf<T extends z.ZodType>(element: T, most: number) {
  return z.array(z.unknown()).max(most).pipe(z.array(element));
}

const content = {
  text: z.string().optional(),
  html: z.string().optional(),
  subject: z.string().optional(),
  attachments: listOf(
    z.strictObject({
      filename: z.string(),
      contentBase64: z.base64(),
      contentType: z.string().optional(),
    }),
    MAX_FILES,
  ).optional(),
  at: z.iso.datetime().optional(),
  place: z
    .string()
    .regex(/^[a-z0-9.[\]]{1,40}$/)
    .optional(),
};
const addresses = listOf(z.string(), MAX_LISTED);
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
const entries = listOf(z.tuple([z.string(), value]), stateLimits.keys).optional();

export const runEndSchema = z.strictObject({
  effects: listOf(effectSchema, MAX_EFFECTS),
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
  if (!hasAtMostParts(json, MAX_PARTS)) return { fault: `it has more than ${MAX_PARTS} parts` };
  try {
    const parsed = schema.safeParse(JSON.parse(json));
    return parsed.success ? { data: parsed.data } : { fault: faultOf(parsed.error) };
  } catch (error) {
    return { fault: errorMessage(error) };
  }
}

/** What is wrong with what a tool made, as far as a person reads. */
export function faultOf({ issues }: z.ZodError): string {
  const shown = issues.slice(0, MAX_SHOWN_ISSUES);
  return z.prettifyError({ issues: shown }).slice(0, MAX_FAULT_CHARS);
}
