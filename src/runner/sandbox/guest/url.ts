/** `URL` and `URLSearchParams`. The host parses (synchronously); this only holds what it answered. */
import { decodeUtf8 } from './encoding.ts';
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
    if (typeof init === 'object' && init !== null) {
      const isIterable = Symbol.iterator in init;
      const pairs = isIterable ? (init as Iterable<[unknown, unknown]>) : Object.entries(init);
      for (const [name, value] of pairs) this.#pairs.push([String(name), String(value)]);
    } else this.#pairs = parseQuery(String(init));
  }

  get size(): number {
    return this.#pairs.length;
  }
  append(name: string, value: string): void {
    this.#pairs.push([String(name), String(value)]);
    this.#onChange(this.toString());
  }
  delete(name: string, value?: string): void {
    this.#pairs = this.#pairs.filter(
      ([key, held]) => key !== name || (value !== undefined && held !== value),
    );
    this.#onChange(this.toString());
  }
  get(name: string): string | null {
    return this.#pairs.find(([key]) => key === name)?.[1] ?? null;
  }
  getAll(name: string): string[] {
    return this.#pairs.filter(([key]) => key === name).map(([, value]) => value);
  }
  has(name: string, value?: string): boolean {
    return this.#pairs.some(([key, held]) => key === name && (value === undefined || held === value));
  }
  set(name: string, value: string): void {
    const first = this.#pairs.findIndex(([key]) => key === name);
    if (first < 0) return this.append(name, value);
    this.#pairs = this.#pairs.filter(([key], index) => index <= first || key !== name);
    this.#pairs[first] = [String(name), String(value)];
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
    );
  });
}

export class GuestURL {
  #parts: Parts;
  readonly searchParams: GuestURLSearchParams;

  constructor(url: unknown, base?: unknown) {
    const parts = parseParts({ url: String(url), ...(base !== undefined && { base: String(base) }) });
    if (!parts) throw new TypeError('Invalid URL');
    this.#parts = parts;
    this.searchParams = new GuestURLSearchParams(parts.search, (query) => this._set('search', query));
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
    const parts = parseParts({ url: this.#parts.href, set: [part, value] });
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
    set(this: GuestURL, value: unknown) {
      this._set(part, String(value));
    },
  });
}
