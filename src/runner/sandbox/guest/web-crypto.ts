/**
 * `crypto`: random values, digests and HMAC. The host computes, because V8 alone has none of it. What the
 * Web's own interface has beyond that (ciphers, key pairs, derivation) is refused by name.
 */
import { GuestDOMException } from './dom-exception.ts';
import { decodeBase64, encodeBase64 } from './encoding.ts';
import { tellHost } from './host.ts';
import { bytesOf } from './text-codec.ts';

const MAX_RANDOM_BYTES = 65_536;
/** Block length of each hash in bits: the length of a generated key. */
const BLOCK_BITS: Readonly<Record<string, number>> = {
  'SHA-1': 512,
  'SHA-256': 512,
  'SHA-384': 1024,
  'SHA-512': 1024,
};
const USAGES = ['sign', 'verify'];
const REFUSED = ['encrypt', 'decrypt', 'deriveBits', 'deriveKey', 'wrapKey', 'unwrapKey'] as const;

interface HmacAlgorithm {
  name: 'HMAC';
  hash: { name: string };
  length: number;
}

const OURS = Symbol('made by this module');
const secretOf = new WeakMap<GuestCryptoKey, Uint8Array>();

export class GuestCryptoKey {
  readonly type = 'secret';
  readonly extractable: boolean;
  readonly algorithm: HmacAlgorithm;
  readonly usages: readonly string[];

  constructor(
    token?: unknown,
    made?: { extractable: boolean; algorithm: HmacAlgorithm; usages: string[]; secret: Uint8Array },
  ) {
    if (token !== OURS || !made) throw new TypeError('Illegal constructor');
    this.extractable = made.extractable;
    this.algorithm = made.algorithm;
    this.usages = made.usages;
    secretOf.set(this, made.secret);
  }
}

const fault = (message: string, name: string): GuestDOMException => new GuestDOMException(message, name);

function nameOf(algorithm: unknown): string {
  const isObject = typeof algorithm === 'object' && algorithm !== null;
  const name = isObject ? (algorithm as { name?: unknown }).name : algorithm;
  if (name === undefined) throw new TypeError('an algorithm has a name');
  return String(name).toUpperCase();
}

function hashOf(algorithm: unknown): string {
  const name = nameOf(algorithm);
  if (!Object.hasOwn(BLOCK_BITS, name)) throw fault('Unrecognized algorithm name', 'NotSupportedError');
  return name;
}

/** @throws DOMException NotSupportedError for all but HMAC */
function hmacOf(algorithm: unknown): { hash: string; length: number | undefined } {
  if (nameOf(algorithm) !== 'HMAC') throw fault('Unrecognized algorithm name', 'NotSupportedError');
  const { hash, length } = algorithm as { hash?: unknown; length?: unknown };
  if (hash === undefined) throw new TypeError('an HMAC has a hash');
  return { hash: hashOf(hash), length: length === undefined ? undefined : Number(length) };
}

function compute(operation: 'digest' | 'hmac', request: Record<string, string>): Uint8Array<ArrayBuffer> {
  const answer = tellHost(operation, request);
  if (answer === '') throw fault('there is too much data', 'OperationError');
  return decodeBase64(answer);
}

function usagesOf(usages: unknown): string[] {
  const all = [...(usages as Iterable<unknown>)].map(String);
  if (all.length === 0 || all.some((usage) => !USAGES.includes(usage))) {
    throw fault('a key of HMAC is used to sign, to verify, or both', 'SyntaxError');
  }
  return USAGES.filter((usage) => all.includes(usage));
}

function keyFor(use: string, algorithm: unknown, key: unknown): { hash: string; key: string } {
  if (nameOf(algorithm) !== 'HMAC') throw fault('Unrecognized algorithm name', 'NotSupportedError');
  if (!(key instanceof GuestCryptoKey)) throw new TypeError('expected a CryptoKey');
  if (!key.usages.includes(use)) throw fault(`the key is not for use to ${use}`, 'InvalidAccessError');
  return { hash: key.algorithm.hash.name, key: encodeBase64(secretOf.get(key)!) };
}

interface JsonKey {
  kty?: unknown;
  k?: unknown;
}

function secretFrom(format: unknown, data: unknown): Uint8Array {
  if (format === 'raw') return bytesOf(data).slice();
  if (format !== 'jwk') throw fault(`the format ${String(format)} is not supported`, 'NotSupportedError');
  const { kty, k } = (data ?? {}) as JsonKey;
  if (kty !== 'oct' || typeof k !== 'string' || /[^\w-]/.test(k)) {
    throw fault('this is no JSON key of bytes', 'DataError');
  }
  return decodeBase64(k.replaceAll('-', '+').replaceAll('_', '/'));
}

function madeKey(
  secret: Uint8Array,
  algorithm: { hash: string; length: number | undefined },
  may: { extractable: unknown; usages: string[] },
): GuestCryptoKey {
  const { hash, length = secret.length * 8 } = algorithm;
  if (length === 0 || length > secret.length * 8 || length <= (secret.length - 1) * 8) {
    throw fault('the length of the key does not fit', 'DataError');
  }
  return new GuestCryptoKey(OURS, {
    secret,
    extractable: Boolean(may.extractable),
    usages: may.usages,
    algorithm: { name: 'HMAC', hash: { name: hash }, length },
  });
}

/** All are asynchronous, as the Web's are: what is wrong comes as a rejection. */
const subtle = {
  async digest(algorithm: unknown, data: unknown): Promise<ArrayBuffer> {
    return compute('digest', { hash: hashOf(algorithm), data: encodeBase64(bytesOf(data)) }).buffer;
  },
  async importKey(format: unknown, data: unknown, ...rest: unknown[]): Promise<GuestCryptoKey> {
    const [algorithm, extractable, usages] = rest;
    return madeKey(secretFrom(format, data), hmacOf(algorithm), { extractable, usages: usagesOf(usages) });
  },
  async generateKey(algorithm: unknown, extractable: unknown, usages: unknown): Promise<GuestCryptoKey> {
    const { hash, length = BLOCK_BITS[hash]! } = hmacOf(algorithm);
    if (!(length > 0 && length <= MAX_RANDOM_BYTES * 8)) throw fault('a key has a length', 'OperationError');
    const may = { extractable, usages: usagesOf(usages) };
    return madeKey(randomBytes(Math.ceil(length / 8)), { hash, length }, may);
  },
  async exportKey(format: unknown, key: unknown): Promise<ArrayBuffer | Record<string, unknown>> {
    if (!(key instanceof GuestCryptoKey)) throw new TypeError('expected a CryptoKey');
    if (!key.extractable) throw fault('key is not extractable', 'InvalidAccessError');
    const secret = secretOf.get(key)!;
    if (format === 'raw') return secret.slice().buffer;
    if (format !== 'jwk') throw fault(`the format ${String(format)} is not supported`, 'NotSupportedError');
    const k = encodeBase64(secret).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
    const alg = `HS${key.algorithm.hash.name.slice(4)}`;
    return { key_ops: [...key.usages], ext: true, kty: 'oct', k, alg };
  },
  async sign(algorithm: unknown, key: unknown, data: unknown): Promise<ArrayBuffer> {
    return compute('hmac', { ...keyFor('sign', algorithm, key), data: encodeBase64(bytesOf(data)) }).buffer;
  },
  async verify(algorithm: unknown, key: unknown, ...rest: unknown[]): Promise<boolean> {
    const [signature, data] = rest.map((each) => bytesOf(each)) as [Uint8Array, Uint8Array];
    const ours = compute('hmac', { ...keyFor('verify', algorithm, key), data: encodeBase64(data) });
    let difference = ours.length ^ signature.length;
    for (const [index, byte] of ours.entries()) difference |= byte ^ (signature[index] ?? 0);
    return difference === 0;
  },
};

const refused = Object.fromEntries(
  REFUSED.map((name) => [
    name,
    async () => {
      throw fault(`crypto.subtle.${name} is not offered to tools`, 'NotSupportedError');
    },
  ]),
);

function randomBytes(count: number): Uint8Array<ArrayBuffer> {
  return decodeBase64(tellHost('random', String(count)));
}

export const crypto = {
  subtle: { ...subtle, ...refused },
  getRandomValues<T extends ArrayBufferView>(array: T): T {
    const isFloat = /^(?:Float\d\d|Data)/.test(
      Object.prototype.toString.call(array).slice('[object '.length),
    );
    if (!ArrayBuffer.isView(array) || isFloat) {
      throw fault('expected a typed array of integers', 'TypeMismatchError');
    }
    if (array.byteLength > MAX_RANDOM_BYTES) {
      throw fault(`at most ${MAX_RANDOM_BYTES} bytes at once`, 'QuotaExceededError');
    }
    if (array.byteLength > 0) bytesOf(array).set(randomBytes(array.byteLength));
    return array;
  },
  randomUUID(): string {
    const bytes = randomBytes(16);
    bytes[6] = (bytes[6]! & 0x0f) | 0x40;
    bytes[8] = (bytes[8]! & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  },
};
