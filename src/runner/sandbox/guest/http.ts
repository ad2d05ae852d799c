/** `Headers`, `Request` and `Response` with whole bodies: strings or bytes, no streams. */
import type { GuestAbortSignal } from './abort.ts';
import { decodeUtf8, encodeUtf8 } from './encoding.ts';
import { GuestURLSearchParams } from './url.ts';

export class GuestHeaders {
  #fields = new Map<string, string[]>();

  constructor(init?: unknown) {
    if (init === undefined || init === null) return;
    const isIterable = Symbol.iterator in Object(init);
    const pairs = isIterable ? (init as Iterable<[unknown, unknown]>) : Object.entries(init);
    for (const [name, value] of pairs) this.append(String(name), String(value));
  }

  append(name: string, value: string): void {
    const key = fieldName(name);
    this.#fields.set(key, [...(this.#fields.get(key) ?? []), fieldValue(value)]);
  }
  set(name: string, value: string): void {
    this.#fields.set(fieldName(name), [fieldValue(value)]);
  }
  get(name: string): string | null {
    return this.#fields.get(fieldName(name))?.join(', ') ?? null;
  }
  getSetCookie(): string[] {
    return [...(this.#fields.get('set-cookie') ?? [])];
  }
  has(name: string): boolean {
    return this.#fields.has(fieldName(name));
  }
  delete(name: string): void {
    this.#fields.delete(fieldName(name));
  }
  forEach(callback: (value: string, name: string, parent: GuestHeaders) => void): void {
    for (const [name, value] of this) callback(value, name, this);
  }
  keys(): IterableIterator<string> {
    return [...this].map(([name]) => name).values();
  }
  values(): IterableIterator<string> {
    return [...this].map(([, value]) => value).values();
  }
  entries(): IterableIterator<[string, string]> {
    const names = [...this.#fields.keys()].sort();
    return names
      .flatMap((name): [string, string][] => {
        const values = this.#fields.get(name)!;
        return name === 'set-cookie' ? values.map((value) => [name, value]) : [[name, values.join(', ')]];
      })
      .values();
  }
  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }
}

function fieldName(name: string): string {
  const text = String(name);
  if (!/^[!#$%&'*+\-.^_`|~\w]+$/.test(text)) throw new TypeError(`invalid header name: ${text}`);
  return text.toLowerCase();
}

function fieldValue(value: string): string {
  const text = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, '');
  if (/[\0\n\r]/.test(text)) throw new TypeError('invalid header value');
  return text;
}

interface WholeBody {
  bytes: Uint8Array<ArrayBuffer>;
  contentType: string | null;
}

function wholeBody(body: unknown): WholeBody | null {
  if (body === undefined || body === null) return null;
  if (body instanceof ArrayBuffer) return { bytes: new Uint8Array(body.slice(0)), contentType: null };
  if (ArrayBuffer.isView(body)) {
    const view = new Uint8Array(body.buffer as ArrayBuffer, body.byteOffset, body.byteLength);
    return { bytes: view.slice(), contentType: null };
  }
  if (body instanceof GuestURLSearchParams) {
    return {
      bytes: encodeUtf8(body.toString()),
      contentType: 'application/x-www-form-urlencoded;charset=UTF-8',
    };
  }
  if (typeof body !== 'string') throw new TypeError('a body is a string, bytes or URLSearchParams');
  return { bytes: encodeUtf8(body), contentType: 'text/plain;charset=UTF-8' };
}

/** What Request and Response share. */
class Message {
  readonly headers: GuestHeaders;
  bodyUsed = false;
  #bytes: Uint8Array<ArrayBuffer> | null;

  constructor(body: unknown, headers: unknown) {
    const whole = wholeBody(body);
    this.#bytes = whole?.bytes ?? null;
    this.headers = new GuestHeaders(headers);
    if (whole?.contentType && !this.headers.has('content-type')) {
      this.headers.set('content-type', whole.contentType);
    }
  }

  /** The body, without using it up. */
  _peek(): Uint8Array<ArrayBuffer> | null {
    return this.#bytes;
  }
  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    if (this.bodyUsed) throw new TypeError('Body has already been read');
    this.bodyUsed = this.#bytes !== null;
    return this.#bytes ?? new Uint8Array(0);
  }
  async arrayBuffer(): Promise<ArrayBuffer> {
    return (await this.bytes()).slice().buffer;
  }
  async text(): Promise<string> {
    return decodeUtf8(await this.bytes(), false);
  }
  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }
}

export interface GuestRequestInit {
  method?: string;
  headers?: unknown;
  body?: unknown;
  redirect?: string;
  signal?: GuestAbortSignal | null;
}

export class GuestRequest extends Message {
  readonly url: string;
  readonly method: string;
  readonly redirect: string;
  readonly signal: GuestAbortSignal | null;

  constructor(input: unknown, init: GuestRequestInit = {}) {
    const source = input instanceof GuestRequest ? input : null;
    super(init.body ?? source?._peek(), init.headers ?? source?.headers);
    this.url = source ? source.url : String(input);
    const method = String(init.method ?? source?.method ?? 'GET');
    this.method = /^(?:get|head|post|put|patch|delete|options)$/i.test(method)
      ? method.toUpperCase()
      : method;
    this.redirect = String(init.redirect ?? source?.redirect ?? 'follow');
    this.signal = init.signal ?? source?.signal ?? null;
    if (this._peek() && /^(?:GET|HEAD)$/.test(this.method)) {
      throw new TypeError(`a ${this.method} request has no body`);
    }
  }
  clone(): GuestRequest {
    return new GuestRequest(this);
  }
}

export interface GuestResponseInit {
  status?: number;
  statusText?: string;
  headers?: unknown;
}

export class GuestResponse extends Message {
  readonly status: number;
  readonly statusText: string;
  readonly ok: boolean;
  url = '';
  redirected = false;

  constructor(body?: unknown, init: GuestResponseInit = {}) {
    super(body, init.headers);
    this.status = init.status ?? 200;
    this.statusText = init.statusText ?? '';
    this.ok = this.status >= 200 && this.status < 300;
  }
  clone(): GuestResponse {
    if (this.bodyUsed) throw new TypeError('Body has already been read');
    const copy = new GuestResponse(this._peek(), this);
    copy.url = this.url;
    copy.redirected = this.redirected;
    return copy;
  }
  static json(value: unknown, init: GuestResponseInit = {}): GuestResponse {
    const headers = new GuestHeaders(init.headers);
    if (!headers.has('content-type')) headers.set('content-type', 'application/json');
    return new GuestResponse(JSON.stringify(value), { ...init, headers });
  }
}
