/**
 * Reads what a tool hands over, whatever it is: each property once, and what is wrong with it said by name. A
 * getter or Proxy that throws, a number, an unknown key: all end as an `InvalidResult`.
 */
import { describeError } from './describe.ts';

export class InvalidResult extends Error {}

/** What a value is in: how a message begins, and what stands before the names of its keys. */
export interface Place {
  /** `the tool returned`, `element 1 is`, … */
  readonly phrase: string;
  /** `[1].`, `send.`, …; empty for a result that is one object. */
  readonly path: string;
}

/** The keys that an object has of its own. @throws InvalidResult where it is none or cannot be read */
export function keysOf(value: unknown, { place, what }: { place: Place; what: string }): string[] {
  if (typeof value !== 'object' || value === null || isArray(value)) {
    throw new InvalidResult(`${place.phrase} ${nameOf(value)}, not ${what}`);
  }
  return read(place, () => {
    if (Object.prototype.toString.call(value) === '[object Response]') {
      throw new InvalidResult(`${place.phrase} a Response, not ${what}: its text is await response.text()`);
    }
    if ('isEscaped' in value) {
      throw new InvalidResult(`${place.phrase} HTML as it is: return { html: … }`);
    }
    return Reflect.ownKeys(value).map(String);
  });
}

/** The values of the known keys. @throws InvalidResult as `keysOf`, and for an unknown key */
export function fieldsOf(
  value: unknown,
  shape: { place: Place; keys: readonly string[]; what: string },
): Record<string, unknown> {
  const unknown = keysOf(value, shape).find((key) => !shape.keys.includes(key));
  if (unknown !== undefined) {
    const known = shape.keys.join(', ');
    throw new InvalidResult(
      `${shape.place.phrase} an object with the unknown key \`${unknown}\`; known: ${known}`,
    );
  }
  return read(shape.place, () =>
    Object.fromEntries(shape.keys.map((key) => [key, (value as Record<string, unknown>)[key]])),
  );
}

function read<T>(place: Place, produce: () => T): T {
  try {
    return produce();
  } catch (error) {
    if (error instanceof InvalidResult) throw error;
    throw new InvalidResult(`${place.phrase} an object that cannot be read: ${describeError(error).message}`);
  }
}

export function optionalString(value: unknown, name: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string') return value;
  throw new InvalidResult(`\`${name}\` is ${nameOf(value)}, not a string`);
}

export function isArray(value: unknown): value is unknown[] {
  return Array.isArray(value);
}

/** `a number (42)`, `a function`, `an array`, …: what was handed over, for the message. */
export function nameOf(value: unknown): string {
  if (value === undefined) return 'undefined';
  if (value === null) return 'null';
  if (isArray(value)) return 'an array';
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`;
  return `a ${typeof value} (${String(value).slice(0, 100)})`;
}
