/**
 * The `tests` export of the tools: checked, then run in the sandbox before a revision goes live. A test is an
 * email in and what is expected out; it has no network, and no secret but those that it brings itself.
 */
import { z } from 'zod';
import type { Authentication } from '../mail/authentication.ts';
import type { Mailbox } from '../mail/email.ts';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError } from '../platform/errors.ts';
import type { ToolBundle } from './bundle.ts';
import { createCapabilities } from './capabilities.ts';
import type { PlainThreadEmail, RunRequest, SandboxEmail, SandboxPool } from './sandbox/sandbox.ts';
import { runLimits, settingsFor } from './tool-settings.ts';

const ANN: Mailbox = { name: 'Ann', address: 'ann@example.net' };
const MAX_TESTS = 200;
const MAX_TEST_MS = 10_000;
/** Of all tests together. */
const MAX_TOTAL_MS = 60_000;
const MAX_SHOWN_FAILURES = 20;

const mailboxSchema = z.strictObject({ name: z.string(), address: z.string() });

const dateSchema = z.iso.datetime({
  offset: true,
  error: 'expected a date such as "2026-11-22T10:00:00Z"',
});

const senderSchema = z.union([z.string(), mailboxSchema], {
  error: 'expected an address, or { name, address }',
});

const testEmailSchema = z.strictObject({
  from: senderSchema.optional(),
  subject: z.string().optional(),
  text: z.string().optional(),
  newText: z.string().optional(),
  html: z.string().optional(),
  tag: z.string().optional(),
  headers: z.record(z.string(), z.string()).optional(),
  authentication: z.enum(['pass', 'fail', 'none']).optional(),
  attachments: z
    .array(z.strictObject({ filename: z.string(), content: z.string(), contentType: z.string().optional() }))
    .optional(),
  date: dateSchema.optional(),
});

/** A regular expression stays in the sandbox: see `guest/judge.ts`. */
const regExpSchema = z.strictObject({ regExp: z.string() }, { error: 'expected a regular expression' });

const expectedMailSchema = z.strictObject({
  to: z.string().optional(),
  subject: z.string().optional(),
  text: z.string().optional(),
});

const stateSchema = z.record(z.string(), z.json());

const expectedSchema = z
  .strictObject({
    text: z.string().optional(),
    contains: z.string().optional(),
    matches: regExpSchema.optional(),
    noReply: z.literal(true).optional(),
    throws: z.union([z.literal(true), z.string()], { error: 'expected true or a string' }).optional(),
    send: expectedMailSchema.optional(),
    forward: expectedMailSchema.optional(),
    state: stateSchema.optional(),
    threadState: stateSchema.optional(),
  })
  .refine((expected) => isOneKind(Object.keys(expected)), {
    error:
      'expected some of text, contains, matches, send, forward, state and threadState; noReply in place of the first three, or throws alone',
  });

const testSchema = z.strictObject({
  name: z.string().optional(),
  email: testEmailSchema,
  expect: expectedSchema,
  secrets: z.record(z.string(), z.string()).optional(),
  state: stateSchema.optional(),
  threadState: stateSchema.optional(),
  thread: z
    .array(
      z.strictObject({
        from: senderSchema.optional(),
        subject: z.string().optional(),
        text: z.string(),
        sent: z.literal(true).optional(),
        date: dateSchema.optional(),
      }),
    )
    .optional(),
  now: dateSchema.optional(),
});

/** Tests by name of export, as they were checked. */
export type CheckedTests = Readonly<Record<string, readonly z.infer<typeof testSchema>[]>>;

function isOneKind(keys: readonly string[]): boolean {
  if (keys.includes('throws')) return keys.length === 1;
  return keys.length > 0 && !(keys.includes('noReply') && OF_REPLY.some((key) => keys.includes(key)));
}

const OF_REPLY = ['text', 'contains', 'matches'];

/** @throws MillraceError `tools.tests_invalid` (invalid) that names every key at fault. */
export function checkedTests(tests: unknown, tools: readonly string[]): CheckedTests {
  const parsed = z.record(z.string(), z.array(testSchema)).safeParse(tests ?? {});
  const faults = parsed.success ? [] : parsed.error.issues.map(({ path, message }) => fault(path, message));
  const named = typeof tests === 'object' && tests !== null ? Object.keys(tests) : [];
  for (const name of named) {
    if (!tools.includes(name)) faults.push(fault([name], 'there is no exported function of this name'));
  }
  const count = parsed.success ? Object.values(parsed.data).flat().length : 0;
  if (count > MAX_TESTS) faults.push(`tests: there are ${count}; at most ${MAX_TESTS} are run`);
  if (parsed.success && faults.length === 0) return parsed.data;
  throw new MillraceError('invalid', 'tools.tests_invalid', faults.join('; '), {
    hint: 'Correct `export const tests`; the revision that was live stays live.',
  });
}

function fault(path: readonly PropertyKey[], message: string): string {
  return `${['tests', ...path].map(String).join('.')}: ${message}`;
}

/**
 * Runs the tests of a bundle.
 * @throws MillraceError `tools.tests_failed` (invalid) that names every test that does not hold, with what
 *   came in place of what was expected, or with file, line and column of what was thrown; what `pool.run` throws
 */
export async function runToolTests(
  deps: { pool: Pick<SandboxPool, 'run'>; clock: Clock },
  bundle: ToolBundle,
  signal: AbortSignal,
): Promise<void> {
  using deadline = createDeadline(deps.clock, MAX_TOTAL_MS, signal);
  const tests = Object.entries(bundle.tests).flatMap(([tool, list]) =>
    list.map((test, index) => ({ tool, index, test })),
  );
  try {
    const failures = await Promise.all(
      tests.map(async ({ tool, index, test }) => {
        const result = await deps.pool.run({
          ...testRequest(bundle, tool, test),
          test: index,
          signal: deadline.signal,
        });
        const name = test.name === undefined ? '' : ` (${test.name})`;
        return result.status === 'failed' ? `tests.${tool}.${index}${name}: ${result.message}` : null;
      }),
    );
    const shown = failures.filter((failure) => failure !== null);
    if (shown.length > 0) throw testsFailed(shown.slice(0, MAX_SHOWN_FAILURES).join('\n'));
  } catch (error) {
    signal.throwIfAborted();
    if (deadline.signal.aborted) throw testsFailed(`the tests take longer than ${MAX_TOTAL_MS} ms`, error);
    throw error;
  }
}

function testRequest(
  bundle: ToolBundle,
  tool: string,
  test: CheckedTests[string][number],
): Omit<RunRequest, 'signal' | 'test'> {
  const settings = settingsFor(bundle.settings, tool);
  const contents = (test.email.attachments ?? []).map(({ content }) => Buffer.from(content));
  const { capabilities, secrets } = createCapabilities({
    settings,
    secrets: test.secrets ?? {},
    attachmentBytes: (index) => Promise.resolve(contents[index] ?? Buffer.alloc(0)),
    readState: async (scope) => Object.entries((scope === 'inbox' ? test.state : test.threadState) ?? {}),
    authenticate: async () => authenticationOf(test.email),
    readThread: async () => (test.thread ?? []).map((mail) => threadEmailFrom(tool, mail)),
  });
  return {
    bundle,
    exportName: tool,
    email: emailFrom(tool, test.email),
    limits: {
      ...runLimits(settings),
      timeoutMs: Math.min(settings.timeoutMs, MAX_TEST_MS),
    },
    capabilities: { ...capabilities, fetch: refuseFetch },
    secrets,
    ...(test.now !== undefined && { nowMs: Date.parse(test.now) }),
    fairnessKey: 'tests of the tools',
  };
}

function authenticationOf(email: CheckedTests[string][number]['email']): Authentication {
  const { authentication: result = 'none', from = ANN } = email;
  const { address } = mailboxFrom(from);
  return { result, domain: address.slice(address.lastIndexOf('@') + 1), reason: 'the test says so' };
}

type EarlierMail = NonNullable<CheckedTests[string][number]['thread']>[number];

function threadEmailFrom(inbox: string, mail: EarlierMail): PlainThreadEmail {
  const { sent, from = ANN, subject = 'Test', text, date = '2026-01-01T00:00:00Z' } = mail;
  const person = mailboxFrom(from);
  const ours = { name: '', address: `${inbox}@example.com` };
  return {
    direction: sent ? 'outbound' : 'inbound',
    from: sent ? ours : person,
    to: [sent ? person : ours],
    subject,
    text,
    newText: text,
    messageId: null,
    at: date,
  };
}

function mailboxFrom(from: string | Mailbox): Mailbox {
  return typeof from === 'string' ? { name: '', address: from } : from;
}

function refuseFetch(): Promise<never> {
  return Promise.reject(
    new MillraceError('permanent', 'capability.refused', 'there is no network in a test'),
  );
}

function emailFrom(inbox: string, email: z.infer<typeof testEmailSchema>): SandboxEmail {
  const { from = ANN, text = '', attachments = [] } = email;
  return {
    id: 'test',
    inbox,
    tag: email.tag ?? null,
    from: mailboxFrom(from),
    replyTo: [],
    to: [{ name: '', address: `${inbox}@example.com` }],
    cc: [],
    subject: email.subject ?? 'Test',
    text,
    newText: email.newText ?? text,
    html: email.html ?? null,
    headers: Object.entries(email.headers ?? {}),
    attachments: attachments.map(({ filename, content, contentType }, index) => ({
      index,
      filename,
      contentType: contentType ?? 'application/octet-stream',
      disposition: 'attachment',
      contentId: null,
      size: Buffer.byteLength(content),
    })),
    messageId: '<test@example.net>',
    references: [],
    date: email.date ?? null,
  };
}

function testsFailed(message: string, cause?: unknown): MillraceError {
  return new MillraceError('invalid', 'tools.tests_failed', message, {
    hint: 'Correct the tools or their tests; the revision that was live stays live.',
    cause,
  });
}
