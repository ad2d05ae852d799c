/** `structuredClone` for what a tool has (HTML standard 2.7.3): plain data, Map, Set, Date, RegExp, errors, buffers. */
import { GuestDOMException } from './dom-exception.ts';

const ERRORS = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
/** They have state that no property shows. */
const UNCLONEABLE = [WeakMap, WeakSet, WeakRef, Promise];

type Seen = Map<unknown, unknown>;

export function structuredClone(...parameters: unknown[]): unknown {
  if (parameters.length === 0) throw new TypeError('The "value" argument must be specified');
  const [value, options] = parameters as [unknown, { transfer?: Iterable<unknown> } | undefined];
  const transferred = [...(options?.transfer ?? [])];
  if (new Set(transferred).size !== transferred.length || transferred.some((each) => !isBuffer(each))) {
    throw new GuestDOMException('Only an ArrayBuffer, and each once, can be transferred', 'DataCloneError');
  }
  const copy = clone(value, new Map());
  // Their bytes are in the copy already; who gives them away keeps nothing.
  for (const buffer of transferred as ArrayBuffer[]) buffer.transfer(0);
  return copy;
}

function isBuffer(value: unknown): value is ArrayBuffer {
  return value instanceof ArrayBuffer && !value.detached;
}

function clone(value: unknown, seen: Seen): unknown {
  if (typeof value === 'function' || typeof value === 'symbol') throw uncloneable(String(value));
  if (typeof value !== 'object' || value === null) return value;
  const known = seen.get(value);
  if (known !== undefined) return known;
  const copy = emptyCopy(value, seen);
  seen.set(value, copy);
  if (value instanceof Map) {
    const pairs = [...value];
    for (const [key, element] of pairs)
      (copy as Map<unknown, unknown>).set(clone(key, seen), clone(element, seen));
  } else if (value instanceof Set) {
    const elements = [...value];
    for (const element of elements) (copy as Set<unknown>).add(clone(element, seen));
  } else if (Array.isArray(value) || Object.getPrototypeOf(copy) === Object.prototype) {
    for (const key of Object.keys(value)) {
      if (!Object.hasOwn(value, key)) continue; // A getter before it may have removed it.
      const element = clone((value as Record<string, unknown>)[key], seen);
      Object.defineProperty(copy, key, {
        value: element,
        writable: true,
        enumerable: true,
        configurable: true,
      });
    }
  }
  return copy;
}

/** The copy without its elements, or the whole copy where it has none. */
function emptyCopy(value: object, seen: Seen): object {
  if (Array.isArray(value)) {
    const copy: unknown[] = [];
    copy.length = value.length;
    return copy;
  }
  if (value instanceof Map) return new Map();
  if (value instanceof Set) return new Set();
  if (value instanceof Date) return new Date(value);
  if (value instanceof RegExp) return new RegExp(value.source, value.flags);
  if (isPrimitiveObject(value)) return Object(value.valueOf()) as object;
  if (value instanceof ArrayBuffer) {
    if (value.detached) throw uncloneable('An ArrayBuffer is detached and');
    return value.slice(0);
  }
  if (ArrayBuffer.isView(value)) return viewCopy(value, seen);
  if (value instanceof Error) return errorCopy(value, seen);
  if (UNCLONEABLE.some((constructor) => value instanceof constructor))
    throw uncloneable(Object.prototype.toString.call(value));
  return {};
}

function isPrimitiveObject(value: object): boolean {
  return [Boolean, Number, String, BigInt].some((constructor) => value instanceof constructor);
}

/** Views of one buffer share its copy. */
function viewCopy(view: ArrayBufferView, seen: Seen): object {
  const buffer = clone(view.buffer, seen) as ArrayBuffer;
  if (view instanceof DataView) return new DataView(buffer, view.byteOffset, view.byteLength);
  const constructor = view.constructor as Uint8ArrayConstructor;
  return new constructor(buffer, view.byteOffset, (view as Uint8Array).length);
}

function errorCopy(error: Error, seen: Seen): Error {
  const name = Object.keys(ERRORS).find((each) => each === error.name) as keyof typeof ERRORS | undefined;
  const constructor: ErrorConstructor = name === undefined ? Error : ERRORS[name];
  const copy = new constructor(error.message);
  // Before its cause, which may be itself.
  seen.set(error, copy);
  if (Object.hasOwn(error, 'cause')) {
    const cause = clone(error.cause, seen);
    Object.defineProperty(copy, 'cause', { value: cause, writable: true, configurable: true });
  }
  if (error.stack !== undefined) copy.stack = String(error.stack);
  return copy;
}

function uncloneable(what: string): GuestDOMException {
  return new GuestDOMException(`${what} could not be cloned.`, 'DataCloneError');
}
