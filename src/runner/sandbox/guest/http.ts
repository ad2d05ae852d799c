/** `Request` and `Response`: their bodies are strings, bytes, blobs, forms and streams. */
import { GuestAbortController } from './abort.ts';
import type { GuestAbortSignal } from './abort.ts';
import { GuestBlob, GuestFormData, multipartFrom } from './blob.ts';
import { Body, isStream } from './body.ts';
import type { ByteStream } from './body.ts';
import { decodeUtf8, encodeUtf8 } from './encoding.ts';
import { GuestHeaders } from './headers.ts';
import { bytesOf } from './text-codec.ts';
import { GuestURL, GuestURLSearchParams } from './url.ts';

const FORM_TYPE = 'application/x-www-form-urlencoded';
const NULL_BODY_STATUSES = [101, 103, 204, 205, 304];
const REDIRECT_STATUSES = [301, 302, 303, 307, 308];
/** Lets `fetch` make a response of any status; a tool makes what the standard allows. */
const FROM_NETWORK = Symbol('from the network');

interface TypedBody {
  body: Body;
  contentType: string | null;
}

function typedBody(body: unknown): TypedBody | null {
  if (body === undefined || body === null) return null;
  if (body instanceof Body) return { body, contentType: null };
  if (isStream(body)) return { body: new Body(body), contentType: null };
  const { bytes, contentType } = wholeBody(body);
  return { body: new Body(bytes), contentType };
}

function wholeBody(body: unknown): { bytes: Uint8Array<ArrayBuffer>; contentType: string | null } {
  if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) {
    return { bytes: bytesOf(body).slice(), contentType: null };
  }
  if (body instanceof GuestBlob) return { bytes: body._peek(), contentType: body.type || null };
  if (body instanceof GuestFormData) return multipartFrom(body);
  if (body instanceof GuestURLSearchParams) {
    return { bytes: encodeUtf8(body.toString()), contentType: `${FORM_TYPE};charset=UTF-8` };
  }
  return { bytes: encodeUtf8(String(body)), contentType: 'text/plain;charset=UTF-8' };
}

/** What Request and Response share. */
class Message {
  readonly headers: GuestHeaders;
  readonly #body: Body | null;

  constructor(body: unknown, headers: unknown) {
    const typed = typedBody(body);
    this.#body = typed?.body ?? null;
    this.headers = new GuestHeaders(headers);
    if (typed?.contentType && !this.headers.has('content-type')) {
      this.headers.set('content-type', typed.contentType);
    }
  }

  get body(): ByteStream | null {
    return this.#body?.stream ?? null;
  }
  get bodyUsed(): boolean {
    return this.#body?.isUsed ?? false;
  }
  /** The body, for this folder. */
  _body(): Body | null {
    return this.#body;
  }
  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#body ? this.#body.take() : new Uint8Array(0);
  }
  async arrayBuffer(): Promise<ArrayBuffer> {
    return (await this.bytes()).buffer;
  }
  async blob(): Promise<GuestBlob> {
    return new GuestBlob([await this.bytes()], { type: this.headers.get('content-type') ?? '' });
  }
  async text(): Promise<string> {
    return decodeUtf8(await this.bytes(), false);
  }
  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }
  /** Of the forms that a server may answer, the one of name=value pairs. */
  async formData(): Promise<GuestFormData> {
    const type = this.headers.get('content-type') ?? '';
    if (!type.toLowerCase().startsWith(FORM_TYPE))
      throw new TypeError(`no form in a body of ${type || 'no type'}`);
    const form = new GuestFormData();
    for (const [name, value] of new GuestURLSearchParams(await this.text())) form.append(name, value);
    return form;
  }
}

function assertWhole(message: Message, what: string): void {
  const body = message._body();
  if (body?.isUsed || body?.isLocked) throw new TypeError(`${what}: Body has already been consumed.`);
}

export interface GuestRequestInit {
  method?: unknown;
  headers?: unknown;
  body?: unknown;
  redirect?: unknown;
  signal?: GuestAbortSignal | null;
  duplex?: unknown;
}

export class GuestRequest extends Message {
  readonly url: string;
  readonly method: string;
  readonly redirect: string;
  readonly signal: GuestAbortSignal;

  constructor(input: unknown, init: GuestRequestInit = {}) {
    const source = input instanceof GuestRequest ? input : null;
    const url = source ? source.url : requestUrl(String(input));
    const method = methodFrom(init.method ?? source?.method ?? 'GET');
    const hasOwnBody = init.body !== undefined && init.body !== null;
    if ((hasOwnBody || source?._body()) && /^(?:GET|HEAD)$/.test(method)) {
      throw new TypeError('Request with GET/HEAD method cannot have body.');
    }
    if (isStream(init.body) && init.duplex !== 'half') {
      throw new TypeError('RequestInit: duplex option is required when sending a body.');
    }
    super(hasOwnBody ? init.body : source?._body()?.handedOver(), init.headers ?? source?.headers);
    this.url = url;
    this.method = method;
    this.redirect = redirectFrom(init.redirect ?? source?.redirect ?? 'follow');
    this.signal = init.signal ?? source?.signal ?? new GuestAbortController().signal;
  }
  clone(): GuestRequest {
    assertWhole(this, 'Request.clone');
    const { url, method, headers, redirect, signal } = this;
    return new GuestRequest(url, { method, headers, redirect, signal, body: this._body()?.clone() });
  }
}

function requestUrl(input: string): string {
  const url = new GuestURL(input);
  if (url._get('username') !== '' || url._get('password') !== '') {
    throw new TypeError('Request cannot be constructed from a URL that includes credentials');
  }
  return url.toString();
}

function methodFrom(method: unknown): string {
  const text = String(method);
  if (!/^[!#$%&'*+\-.^_`|~\w]+$/.test(text) || /^(?:connect|trace|track)$/i.test(text)) {
    throw new TypeError(`'${text}' is not a valid HTTP method.`);
  }
  return /^(?:get|head|post|put|delete|options)$/i.test(text) ? text.toUpperCase() : text;
}

function redirectFrom(redirect: unknown): string {
  const text = String(redirect);
  if (['follow', 'manual', 'error'].includes(text)) return text;
  throw new TypeError(`redirect is follow, manual or error, not ${text}`);
}

export interface GuestResponseInit {
  status?: unknown;
  statusText?: unknown;
  headers?: unknown;
}

export class GuestResponse extends Message {
  readonly type: string = 'default';
  readonly status: number;
  readonly statusText: string;
  readonly ok: boolean;
  readonly url: string = '';
  readonly redirected: boolean = false;

  constructor(body?: unknown, init: GuestResponseInit = {}, token?: symbol) {
    const { status = 200, statusText = '' } = init;
    if (token !== FROM_NETWORK) checkResponse(Math.trunc(Number(status)), String(statusText));
    if (body !== undefined && body !== null && NULL_BODY_STATUSES.includes(Number(status))) {
      throw new TypeError(`Response with status ${String(status)} cannot have body`);
    }
    super(body, init.headers);
    this.status = Math.trunc(Number(status));
    this.statusText = String(statusText);
    this.ok = this.status >= 200 && this.status < 300;
  }
  clone(): GuestResponse {
    assertWhole(this, 'Response.clone');
    const { type, url, redirected } = this;
    return Object.assign(new GuestResponse(this._body()?.clone(), this, FROM_NETWORK), {
      type,
      url,
      redirected,
    });
  }
  static json(value: unknown, init: GuestResponseInit = {}): GuestResponse {
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError('The value is not JSON serializable');
    const headers = new GuestHeaders(init.headers);
    if (!headers.has('content-type')) headers.set('content-type', 'application/json');
    return new GuestResponse(text, { ...init, headers });
  }
  static redirect(url: unknown, status: unknown = 302): GuestResponse {
    if (!REDIRECT_STATUSES.includes(Number(status)))
      throw new RangeError(`Invalid status code ${String(status)}`);
    return new GuestResponse(null, { status, headers: { location: new GuestURL(url).toString() } });
  }
  static error(): GuestResponse {
    return Object.assign(new GuestResponse(null, { status: 0 }, FROM_NETWORK), { type: 'error' });
  }
}

function checkResponse(status: number, statusText: string): void {
  if (!(status >= 200 && status <= 599)) {
    throw new RangeError('init["status"] must be in the range of 200 to 599, inclusive.');
  }
  if (/[^\t\x20-\x7e\x80-\xff]/.test(statusText)) throw new TypeError('Invalid statusText');
}

/** What the host fetched. */
export function fetchedResponse(
  bytes: ArrayBuffer | undefined,
  plain: {
    url: string;
    redirected: boolean;
    status: number;
    statusText: string;
    headers: [string, string][];
  },
): GuestResponse {
  const { url, redirected, status } = plain;
  const body = NULL_BODY_STATUSES.includes(status) ? null : (bytes ?? new ArrayBuffer(0));
  return Object.assign(new GuestResponse(body, plain, FROM_NETWORK), { type: 'basic', url, redirected });
}
