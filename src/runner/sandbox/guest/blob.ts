/** `Blob`, `File` and `FormData`: whole bytes in memory, which a blob shows as a stream to who asks for one. */
import { streamOf } from './body.ts';
import type { ByteStream } from './body.ts';
import { decodeUtf8, encodeUtf8 } from './encoding.ts';
import { bytesOf, joined } from './text-codec.ts';
import { crypto } from './web-crypto.ts';

export class GuestBlob {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #type: string;

  constructor(parts: unknown = [], { type = '' }: { type?: unknown } = {}) {
    if (typeof parts !== 'object' || parts === null || !(Symbol.iterator in parts)) {
      throw new TypeError('the parts of a Blob are a list');
    }
    this.#bytes = joined([...(parts as Iterable<unknown>)].map(partBytes));
    const text = String(type);
    this.#type = /[^\x20-\x7e]/.test(text) ? '' : text.toLowerCase();
  }

  get size(): number {
    return this.#bytes.length;
  }
  get type(): string {
    return this.#type;
  }
  /** The bytes themselves, for this folder. */
  _peek(): Uint8Array<ArrayBuffer> {
    return this.#bytes;
  }
  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#bytes.slice();
  }
  async arrayBuffer(): Promise<ArrayBuffer> {
    return this.#bytes.slice().buffer;
  }
  async text(): Promise<string> {
    return decodeUtf8(this.#bytes, false);
  }
  stream(): ByteStream {
    return streamOf(this.#bytes);
  }
  slice(start?: number, end?: number, type: unknown = ''): GuestBlob {
    return new GuestBlob([this.#bytes.slice(start, end)], { type });
  }
}

function partBytes(part: unknown): Uint8Array {
  if (part instanceof GuestBlob) return part._peek();
  if (part instanceof ArrayBuffer || ArrayBuffer.isView(part)) return bytesOf(part);
  return encodeUtf8(String(part));
}

export class GuestFile extends GuestBlob {
  readonly name: string;
  readonly lastModified: number;

  constructor(parts: unknown, name: unknown, options: { type?: unknown; lastModified?: unknown } = {}) {
    super(parts, options);
    this.name = String(name).toWellFormed();
    const { lastModified } = options;
    this.lastModified = lastModified === undefined ? Date.now() : Number(lastModified);
  }
}

type FormValue = string | GuestFile;

export class GuestFormData {
  #entries: [string, FormValue][] = [];

  append(...parameters: [name: unknown, value: unknown, filename?: unknown]): void {
    this.#entries.push([nameFrom(parameters), valueFrom(parameters)]);
  }
  set(...parameters: [name: unknown, value: unknown, filename?: unknown]): void {
    const name = nameFrom(parameters);
    const value = valueFrom(parameters);
    const first = this.#entries.findIndex(([held]) => held === name);
    if (first < 0) return void this.#entries.push([name, value]);
    this.#entries = this.#entries.filter(([held], index) => index <= first || held !== name);
    this.#entries[first] = [name, value];
  }
  get(name: unknown): FormValue | null {
    return this.getAll(name)[0] ?? null;
  }
  getAll(name: unknown): FormValue[] {
    return this.#entries.filter(([held]) => held === String(name)).map(([, value]) => value);
  }
  has(name: unknown): boolean {
    return this.#entries.some(([held]) => held === String(name));
  }
  delete(name: unknown): void {
    this.#entries = this.#entries.filter(([held]) => held !== String(name));
  }
  forEach(callback: (value: FormValue, name: string, parent: GuestFormData) => void): void {
    for (const [name, value] of this) callback(value, name, this);
  }
  keys(): IterableIterator<string> {
    return this.#entries.map(([name]) => name).values();
  }
  values(): IterableIterator<FormValue> {
    return this.#entries.map(([, value]) => value).values();
  }
  entries(): IterableIterator<[string, FormValue]> {
    return this.#entries.map(([name, value]): [string, FormValue] => [name, value]).values();
  }
  [Symbol.iterator](): IterableIterator<[string, FormValue]> {
    return this.entries();
  }
}

function nameFrom(parameters: readonly unknown[]): string {
  if (parameters.length < 2) throw new TypeError('a name and a value are needed');
  return String(parameters[0]).toWellFormed();
}

function valueFrom([, value, filename]: readonly unknown[]): FormValue {
  if (!(value instanceof GuestBlob)) {
    if (filename !== undefined) throw new TypeError('only a Blob has a file name');
    return String(value).toWellFormed();
  }
  if (value instanceof GuestFile && filename === undefined) return value;
  return new GuestFile([value], filename ?? 'blob', { type: value.type });
}

const escaped = (name: string): string =>
  name.replaceAll('\n', '%0A').replaceAll('\r', '%0D').replaceAll('"', '%22');
const withLineEnds = (text: string): string => text.replace(/\r?\n|\r/g, '\r\n');

/** https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data */
export function multipartFrom(form: GuestFormData): { bytes: Uint8Array<ArrayBuffer>; contentType: string } {
  const boundary = `----formdata-${crypto.randomUUID()}`;
  const pieces: Uint8Array[] = [];
  for (const [name, value] of form) {
    const head = `--${boundary}\r\nContent-Disposition: form-data; name="${escaped(withLineEnds(name))}"`;
    if (typeof value === 'string') {
      pieces.push(encodeUtf8(`${head}\r\n\r\n${withLineEnds(value)}\r\n`));
      continue;
    }
    const type = value.type || 'application/octet-stream';
    const file = `; filename="${escaped(value.name)}"\r\nContent-Type: ${type}\r\n\r\n`;
    pieces.push(encodeUtf8(head + file), value._peek(), encodeUtf8('\r\n'));
  }
  pieces.push(encodeUtf8(`--${boundary}--\r\n`));
  return { bytes: joined(pieces), contentType: `multipart/form-data; boundary=${boundary}` };
}
