/**
 * The author's own tests, judged inside: a regular expression is code of theirs and never runs outside. The
 * host has checked the shape of the tests before it asks for one to be run.
 */
import type { Expected, Tests } from '../../tool-api.ts';
import type { PlainEffect, RunEnd } from '../sandbox.ts';
import { describeError } from './describe.ts';
import { fromJson } from './host.ts';
import { InvalidResult } from './plain-value.ts';

const { stringify } = JSON;
const MAX_SHOWN_CHARS = 500;

/** The `tests` export as data that the host can check; what is none is marked as such. */
export function plainTests(tests: unknown): unknown {
  const json = stringify(tests ?? null, (_, value: unknown) => {
    if (value instanceof RegExp) return { regExp: String(value) };
    return typeof value === 'function' || typeof value === 'bigint' ? { notData: typeof value } : value;
  });
  return fromJson(json);
}

export function expectedOf(tests: unknown, tool: string, index: number): Expected {
  return (tests as Tests)[tool]![index]!.expect;
}

/** @throws InvalidResult that says what came in place of what was expected; what the tool threw */
export async function judge(expected: Expected, run: () => Promise<RunEnd>): Promise<void> {
  if (expected.throws !== undefined) return judgeThrown(expected.throws, run);
  const reply = replyOf(await run());
  if (expected.noReply) {
    if (reply) throw mismatch('no reply', textOf(reply));
    return;
  }
  if (!reply) throw new InvalidResult('expected a reply, got none');
  const text = textOf(reply);
  if (expected.text !== undefined && text !== expected.text)
    throw mismatch(`the text ${shown(expected.text)}`, text);
  if (expected.contains !== undefined && !text.includes(expected.contains))
    throw mismatch(`a text with ${shown(expected.contains)} in it`, text);
  if (expected.matches && !new RegExp(expected.matches).test(text))
    throw mismatch(`a text that matches ${String(expected.matches)}`, text);
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
