/** `structuredClone` for what a tool has: plain objects, arrays, Map, Set, Date, RegExp, Error, buffers. */
import { GuestDOMException } from './abort.ts';

export function structuredClone(value: unknown): unknown {
  return clone(value, new Map());
}

function clone(value: unknown, seen: Map<unknown, unknown>): unknown {
  if (typeof value === 'function' || typeof value === 'symbol') {
    throw new GuestDOMException(`${String(value)} could not be cloned.`, 'DataCloneError');
  }
  if (typeof value !== 'object' || value === null) return value;
  const known = seen.get(value);
  if (known !== undefined) return known;
  const copy = emptyCopy(value, seen);
  seen.set(value, copy);
  if (value instanceof Map) {
    for (const [key, element] of value)
      (copy as Map<unknown, unknown>).set(clone(key, seen), clone(element, seen));
  } else if (value instanceof Set) {
    for (const element of value) (copy as Set<unknown>).add(clone(element, seen));
  } else if (Array.isArray(value) || isPlain(copy)) {
    for (const key of Object.keys(value)) {
      (copy as Record<string, unknown>)[key] = clone((value as Record<string, unknown>)[key], seen);
    }
  }
  return copy;
}

/** The copy without its elements, or the whole copy where it has none. */
function emptyCopy(value: object, seen: Map<unknown, unknown>): object {
  if (Array.isArray(value)) return [];
  if (value instanceof Map) return new Map();
  if (value instanceof Set) return new Set();
  if (value instanceof Date) return new Date(value);
  if (value instanceof RegExp) return new RegExp(value.source, value.flags);
  if (value instanceof ArrayBuffer) return value.slice(0);
  if (value instanceof DataView) {
    return new DataView(clone(value.buffer, seen) as ArrayBuffer, value.byteOffset, value.byteLength);
  }
  if (ArrayBuffer.isView(value)) return (value as Uint8Array).slice();
  if (value instanceof Error) {
    const copy = new Error(
      value.message,
      value.cause === undefined ? undefined : { cause: clone(value.cause, seen) },
    );
    copy.name = value.name;
    if (value.stack !== undefined) copy.stack = value.stack;
    return copy;
  }
  return {};
}

function isPlain(value: object): boolean {
  return Object.getPrototypeOf(value) === Object.prototype;
}
