/** Values as text, for logs and failures. Made inside the isolate, so that a hostile getter costs its own run. */
import { MAX_CAUSES } from '../causes.ts';
import type { DescribedError } from '../causes.ts';

const MAX_DESCRIPTION_CHARS = 8_000;
/** Of one error among the causes of another. */
const MAX_CAUSE_CHARS = 1_000;
const UNREADABLE: DescribedError = { message: 'what cannot be described', stack: '' };
const { stringify } = JSON;

/** What is thrown, as the host is told of it. */
export type Failure = DescribedError & { causes?: DescribedError[] };

/** The error as `Name: message`, and its stack without that line. */
export function describeError(error: unknown): DescribedError {
  if (!(error instanceof Error)) return { message: `threw ${describeValue(error)}`, stack: '' };
  const name = String(error.name);
  const text = String(error.message);
  const stack = String(error.stack ?? '');
  return {
    message: clip(text === '' ? name : `${name}: ${text}`),
    stack: clip(stack.slice(Math.max(0, stack.indexOf('\n    at ')))),
  };
}

/** A failure with what it came of: `cause`, and the `errors` of an AggregateError, nearest first. */
export function describeFailure(error: unknown): Failure {
  const causes = causesOf(error).map((cause) => {
    const { message, stack } = unlessBroken(() => describeError(cause)) ?? UNREADABLE;
    return { message: clip(message.replace(/^threw /, ''), MAX_CAUSE_CHARS), stack };
  });
  return { ...describeError(error), ...(causes.length > 0 && { causes }) };
}

/** Each once, as one error may be its own cause. What cannot be read has none. */
function causesOf(error: unknown): unknown[] {
  const found = [error];
  for (let index = 0; index < found.length && found.length <= MAX_CAUSES; index++) {
    for (const cause of unlessBroken(() => nextCausesOf(found[index])) ?? [])
      if (cause !== undefined && !found.includes(cause)) found.push(cause);
  }
  return found.slice(1, MAX_CAUSES + 1);
}

function nextCausesOf(error: unknown): unknown[] {
  if (!(error instanceof Error)) return [];
  const several: unknown = error instanceof AggregateError ? error.errors : [];
  return [...(Array.isArray(several) ? several.slice(0, MAX_CAUSES) : []), error.cause];
}

/** Undefined for a getter or Proxy that throws: of a cause nothing may hide the error itself. */
function unlessBroken<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** One value of a log line: strings as they are, errors with their stack and causes, the rest as JSON where that works. */
export function describeValue(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value instanceof Error) {
    const causes = causesOf(value).map((cause) => unlessBroken(() => stackOf(cause)) ?? UNREADABLE.message);
    return clip([stackOf(value), ...causes].join('\ncaused by '));
  }
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return `[function ${value.name}]`;
  if (value === null || typeof value !== 'object') return String(value);
  try {
    return clip(stringify(value, asJson()) ?? String(value));
  } catch {
    return Object.prototype.toString.call(value);
  }
}

/** Without the frames that are ours. */
function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return describeValue(error);
  return String(error.stack ?? error.message).replaceAll(/\n    at [^\n]*<isolated-vm>[^\n]*/g, '');
}

/** What JSON has not, as text: big integers, and an object inside of itself. */
function asJson(): (this: unknown, key: string, value: unknown) => unknown {
  const around: unknown[] = [];
  return function replaced(_key, value) {
    if (typeof value === 'bigint') return `${value}n`;
    if (typeof value !== 'object' || value === null) return value;
    while (around.length > 0 && around.at(-1) !== this) around.pop();
    if (around.includes(value)) return '[circular]';
    around.push(value);
    return value;
  };
}

export function clip(text: string, maxChars = MAX_DESCRIPTION_CHARS): string {
  return text.length > maxChars ? `${text.slice(0, maxChars)}…` : text;
}
