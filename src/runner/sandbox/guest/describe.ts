/** Values as text, for logs and failures. Made inside the isolate, so that a hostile getter costs its own run. */
const MAX_DESCRIPTION_CHARS = 8_000;
const { stringify } = JSON;

/** The error as `Name: message`, and its stack without that line. */
export function describeError(error: unknown): { message: string; stack: string } {
  if (!(error instanceof Error)) return { message: `threw ${describeValue(error)}`, stack: '' };
  const name = String(error.name);
  const text = String(error.message);
  const stack = String(error.stack ?? '');
  return {
    message: clip(text === '' ? name : `${name}: ${text}`),
    stack: clip(stack.slice(Math.max(0, stack.indexOf('\n    at ')))),
  };
}

/** One value of a log line: strings as they are, errors with their stack, the rest as JSON where that works. */
export function describeValue(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value instanceof Error) return clip(String(value.stack ?? value.message));
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return `[function ${value.name}]`;
  if (value === null || typeof value !== 'object') return String(value);
  try {
    return clip(stringify(value, withBigints) ?? String(value));
  } catch {
    return Object.prototype.toString.call(value);
  }
}

const withBigints = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint' ? `${value}n` : value;

export function clip(text: string): string {
  return text.length > MAX_DESCRIPTION_CHARS ? `${text.slice(0, MAX_DESCRIPTION_CHARS)}…` : text;
}
