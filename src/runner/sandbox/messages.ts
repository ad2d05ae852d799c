/**
 * The few messages between the pool and its child processes. The child is believed only as far as these
 * schemas go: a tool that breaks out of its isolate speaks through them.
 */
import { z } from 'zod';
import { MAX_CAUSES } from './causes.ts';
import { MAX_MESSAGE_PARTS } from './flood-limits.ts';
import { hasAtMostParts } from './json-parts.ts';
import type { FailureReason, RunLimits, SandboxEmail } from './sandbox.ts';

/** What the guest does in a run: call a tool, or show what the bundle exports. */
export type GuestTask =
  | {
      kind: 'call';
      exportName: string;
      email: SandboxEmail;
      nowMs: number;
      randomSeed: string;
      secrets: Readonly<Record<string, string | null>>;
      /** Which of the tool's tests judges it; none in a run. */
      test?: number | undefined;
    }
  | { kind: 'inspect' };

/** The answer to a call; where it failed, `value` is the message. */
export interface Settlement {
  kind: 'settle';
  call: number;
  ok: boolean;
  value: unknown;
}

/** What the child hands to the guest, one at a time. */
export type Delivery = { kind: 'begin'; task: GuestTask } | Settlement | { kind: 'timer'; id: number };

export type ToChild =
  /** Replaces the bundle that the child holds. */
  | { type: 'load'; revision: string; code: string }
  | { type: 'run'; run: number; task: GuestTask; limits: RunLimits }
  /** `bytes` is base64. */
  | { type: 'answer'; run: number; call: number; ok: boolean; value: unknown; bytes: string | null };

const failureReasons = [
  'threw',
  'timeout',
  'cpu',
  'memory',
  'crashed',
  'invalid-result',
  'result-too-large',
  'log-flood',
  'call-flood',
] as const satisfies readonly FailureReason[];

/** Where the guest's own limit does not hold, because the child is the tool's. */
const MAX_TEXT_CHARS = 10_000;
const textSchema = z.string().transform((text) => text.slice(0, MAX_TEXT_CHARS));

const runSchema = z.number().int().nonnegative();

const fromChildSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('ready') }),
  z.object({ type: z.literal('log'), run: runSchema, line: z.string() }),
  z.object({
    type: z.literal('call'),
    run: runSchema,
    call: z.number().int().nonnegative(),
    name: z.string(),
    argument: z.unknown(),
  }),
  z.object({ type: z.literal('abort'), run: runSchema, call: z.number().int().nonnegative() }),
  /** `json` is what the guest made: `runEndSchema` or `inspectionSchema` checks it. */
  z.object({ type: z.literal('returned'), run: runSchema, json: z.string() }),
  z.object({
    type: z.literal('failed'),
    run: runSchema,
    reason: z.enum(failureReasons),
    message: textSchema,
    stack: textSchema,
    causes: z
      .array(z.object({ message: textSchema, stack: textSchema }))
      .max(MAX_CAUSES)
      .optional(),
  }),
]);
export type FromChild = z.infer<typeof fromChildSchema>;

/** Null for what is no message. */
export function messageFrom(payload: string): FromChild | null {
  if (!hasAtMostParts(payload, MAX_MESSAGE_PARTS)) return null;
  try {
    return fromChildSchema.safeParse(JSON.parse(payload)).data ?? null;
  } catch {
    return null;
  }
}
