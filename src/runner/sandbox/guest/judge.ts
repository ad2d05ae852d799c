/**
 * The author's own tests, judged inside: a regular expression is code of theirs and never runs outside. The
 * host has checked the shape of the tests before it asks for one to be run.
 */
import type { Expected, ExpectedMail, Test, Tests } from '../../tool-api.ts';
import type { PlainEffect, RunEnd, StateEntries } from '../sandbox.ts';
import { describeError } from './describe.ts';
import { fromJson } from './host.ts';
import { InvalidResult } from './plain-value.ts';

const { stringify } = JSON;
const MAX_SHOWN_CHARS = 500;

/** What is exported beside the functions, as data that the host can check; what is none is marked as such. */
export function plainData(exported: unknown): unknown {
  const json = stringify(exported ?? null, (_, value: unknown) => {
    if (value instanceof RegExp) return { regExp: String(value) };
    const isData =
      typeof value === 'number'
        ? Number.isFinite(value)
        : typeof value !== 'function' && typeof value !== 'bigint';
    return isData ? value : { notData: typeof value };
  });
  return fromJson(json);
}

export function testOf(tests: unknown, tool: string, index: number): Test {
  return (tests as Tests)[tool]![index]!;
}

/** @throws InvalidResult that says what came in place of what was expected; what the tool threw */
export async function judge(test: Test, run: () => Promise<RunEnd>): Promise<void> {
  const { expect: expected } = test;
  if (expected.throws !== undefined) return judgeThrown(expected.throws, run);
  const end = await run();
  judgeReply(expected, replyOf(end));
  for (const kind of ['send', 'forward'] as const) judgeMail(kind, expected[kind], end);
  judgeState('state', { expected: expected.state, before: test.state, changes: end.state.inbox });
  const thread = { expected: expected.threadState, before: test.threadState, changes: end.state.thread };
  judgeState('threadState', thread);
}

function judgeReply(expected: Expected, reply: PlainEffect | undefined): void {
  if (expected.noReply) {
    if (reply) throw mismatch('no reply', textOf(reply));
    return;
  }
  const { text: whole, contains, matches } = expected;
  if (whole === undefined && contains === undefined && matches === undefined) return;
  if (!reply) throw new InvalidResult('expected a reply, got none');
  const text = textOf(reply);
  if (whole !== undefined && text !== whole) throw mismatch(`the text ${shown(whole)}`, text);
  if (contains !== undefined && !text.includes(contains))
    throw mismatch(`a text with ${shown(contains)} in it`, text);
  if (matches && !new RegExp(matches).test(text))
    throw mismatch(`a text that matches ${String(matches)}`, text);
}

function judgeMail(kind: 'send' | 'forward', expected: ExpectedMail | undefined, { effects }: RunEnd): void {
  if (!expected) return;
  const mails = effects.filter((effect) => effect.kind === kind) as (PlainEffect & { kind: 'send' })[];
  const { to, subject, text } = expected;
  const isFit = mails.some(
    (mail) =>
      (to === undefined || [...mail.to, ...(mail.cc ?? []), ...(mail.bcc ?? [])].includes(to)) &&
      (subject === undefined || mail.subject === subject) &&
      (text === undefined || textOf(mail) === text),
  );
  if (!isFit) throw mismatch(`${kind} ${shown(stringify(expected))}`, stringify(mails));
}

function judgeState(
  name: string,
  state: {
    expected: Readonly<Record<string, unknown>> | undefined;
    before: Readonly<Record<string, unknown>> | undefined;
    changes: StateEntries | undefined;
  },
): void {
  const kept = new Map(state.changes ?? Object.entries(state.before ?? {}));
  for (const [key, value] of Object.entries(state.expected ?? {})) {
    const got = canonical(kept.get(key) ?? null);
    if (got !== canonical(value)) throw mismatch(`${name}.${key} to be ${canonical(value)}`, got);
  }
}

/** Objects with the same content give the same text, in whatever order their keys were made. */
function canonical(value: unknown): string {
  return stringify(value, (_, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

async function judgeThrown(part: true | string, run: () => Promise<RunEnd>): Promise<void> {
  let end: RunEnd;
  try {
    end = await run();
  } catch (error) {
    const { message } = describeError(error);
    if (part !== true && !message.includes(part))
      throw mismatch(`an error with ${shown(part)} in its message`, message);
    return;
  }
  const reply = replyOf(end);
  if (!reply) throw new InvalidResult('expected an error, got no reply');
  throw mismatch('an error', textOf(reply));
}

/** The first one. */
function replyOf({ effects }: RunEnd): PlainEffect | undefined {
  return effects.find(({ kind }) => kind === 'reply');
}

function textOf(reply: PlainEffect): string {
  return reply.text ?? reply.html ?? '';
}

function mismatch(expected: string, got: string): InvalidResult {
  return new InvalidResult(`expected ${expected}, got ${shown(got)}`);
}

function shown(text: string): string {
  return text.length > MAX_SHOWN_CHARS
    ? `${stringify(text.slice(0, MAX_SHOWN_CHARS))} and so on`
    : stringify(text);
}
