/** `URL` and `URLSearchParams`. The host parses (synchronously); this only holds what it answered. */
import { decodeUtf8 } from './encoding.ts';
import { pairsOf } from './headers.ts';
import { fromJson, tellHost } from './host.ts';

const PARTS = [
  'href',
  'origin',
  'protocol',
  'username',
  'password',
  'host',
  'hostname',
  'port',
  'pathname',
  'search',
  'hash',
] as const;
type Part = (typeof PARTS)[number];
type Parts = Record<Part, string>;

/** The parts of a URL, after setting one of them if asked; null where it is none. */
function parseParts(request: { url: string; base?: string; set?: [string, string] }): Parts | null {
  return fromJson(tellHost('url', request)) as Parts | null;
}

export class GuestURLSearchParams {
  #pairs: [string, string][] = [];
  /** Tells the URL that this belongs to. */
  #onChange: (query: string) => void;

  constructor(init: unknown = '', onChange: (query: string) => void = () => {}) {
    this.#onChange = onChange;
    if ((typeof init === 'object' && init !== null) || typeof init === 'function') {
      const pairs = pairsOf(init, 'search parameters');
      this.#pairs = pairs.map(([name, value]) => [scalar(name), scalar(value)]);
    } else this.#pairs = parseQuery(String(init).toWellFormed());
  }

  /** The URL that it belongs to has another query now. */
  _reset(query: string): void {
    this.#pairs = parseQuery(query);
  }

  get size(): number {
    return this.#pairs.length;
  }
  append(...parameters: [name: unknown, value: unknown]): void {
    this.#pairs.push(pairFrom(parameters));
    this.#onChange(this.toString());
  }
  delete(name: unknown, value?: unknown): void {
    this.#pairs = this.#pairs.filter((pair) => !matches(pair, name, value));
    this.#onChange(this.toString());
  }
  get(name: unknown): string | null {
    return this.getAll(name)[0] ?? null;
  }
  getAll(name: unknown): string[] {
    return this.#pairs.filter((pair) => matches(pair, name)).map(([, value]) => value);
  }
  has(name: unknown, value?: unknown): boolean {
    return this.#pairs.some((pair) => matches(pair, name, value));
  }
  set(...parameters: [name: unknown, value: unknown]): void {
    const [name, value] = pairFrom(parameters);
    const first = this.#pairs.findIndex(([key]) => key === name);
    if (first < 0) return this.append(name, value);
    this.#pairs = this.#pairs.filter(([key], index) => index <= first || key !== name);
    this.#pairs[first] = [name, value];
    this.#onChange(this.toString());
  }
  sort(): void {
    this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    this.#onChange(this.toString());
  }
  forEach(callback: (value: string, name: string, parent: GuestURLSearchParams) => void): void {
    for (const [name, value] of this.#pairs) callback(value, name, this);
  }
  keys(): IterableIterator<string> {
    return this.#pairs.map(([name]) => name).values();
  }
  values(): IterableIterator<string> {
    return this.#pairs.map(([, value]) => value).values();
  }
  entries(): IterableIterator<[string, string]> {
    return this.#pairs.map(([name, value]): [string, string] => [name, value]).values();
  }
  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }
  toString(): string {
    return this.#pairs.map(([name, value]) => `${encodeFormText(name)}=${encodeFormText(value)}`).join('&');
  }
}

const scalar = (value: unknown): string => String(value).toWellFormed();

function pairFrom(parameters: readonly unknown[]): [string, string] {
  if (parameters.length < 2) throw new TypeError('a name and a value are needed');
  return [scalar(parameters[0]), scalar(parameters[1])];
}

function matches([key, held]: [string, string], name: unknown, value?: unknown): boolean {
  return key === scalar(name) && (value === undefined || held === scalar(value));
}

function parseQuery(query: string): [string, string][] {
  return query
    .replace(/^\?/, '')
    .split('&')
    .filter((piece) => piece !== '')
    .map((piece) => {
      const [name = '', ...value] = piece.split('=');
      return [decodeFormText(name), decodeFormText(value.join('='))];
    });
}

function encodeFormText(text: string): string {
  return encodeURIComponent(text.toWellFormed())
    .replace(/[!'()~]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll('%20', '+');
}

function decodeFormText(text: string): string {
  return text.replaceAll('+', ' ').replace(/(?:%[0-9a-f]{2})+/gi, (escapes) => {
    const bytes = escapes.split('%').slice(1);
    return decodeUtf8(
      Uint8Array.from(bytes, (hex) => Number.parseInt(hex, 16)),
      false,
      false,
    );
  });
}

export class GuestURL {
  #parts: Parts;
  readonly #searchParams: GuestURLSearchParams;

  constructor(url: unknown, base?: unknown) {
    const parts = parseParts({ url: String(url), ...(base !== undefined && { base: String(base) }) });
    if (!parts) throw new TypeError('Invalid URL');
    this.#parts = parts;
    this.#searchParams = new GuestURLSearchParams(parts.search, (query) => this.#change('search', query));
  }

  get searchParams(): GuestURLSearchParams {
    return this.#searchParams;
  }

  static canParse(url: unknown, base?: unknown): boolean {
    return GuestURL.parse(url, base) !== null;
  }
  static parse(url: unknown, base?: unknown): GuestURL | null {
    try {
      return new GuestURL(url, base);
    } catch {
      return null;
    }
  }
  _get(part: Part): string {
    return this.#parts[part];
  }
  _set(part: Part, value: string): void {
    this.#change(part, value);
    if (part === 'search' || part === 'href') this.#searchParams._reset(this.#parts.search);
  }
  #change(part: Part, value: string): void {
    // Setting the whole is parsing anew; a part that does not fit is left as it was.
    const parts = parseParts(
      part === 'href' ? { url: value } : { url: this.#parts.href, set: [part, value] },
    );
    if (!parts) throw new TypeError('Invalid URL');
    this.#parts = parts;
  }
  toString(): string {
    return this.#parts.href;
  }
  toJSON(): string {
    return this.#parts.href;
  }
}

for (const part of PARTS) {
  Object.defineProperty(GuestURL.prototype, part, {
    enumerable: true,
    configurable: true,
    get(this: GuestURL) {
      return this._get(part);
    },
    ...(part !== 'origin' && {
      set(this: GuestURL, value: unknown) {
        this._set(part, String(value));
      },
    }),
  });
}
