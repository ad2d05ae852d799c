/** `Headers` (Fetch standard 5.1): names in any case, values as bytes, `set-cookie` never combined. */
export class GuestHeaders {
  #fields = new Map<string, string[]>();

  constructor(init?: unknown) {
    if (init === undefined) return;
    for (const [name, value] of pairsOf(init, 'headers')) this.append(name, value);
  }

  append(...parameters: [name: unknown, value: unknown]): void {
    const [key, value] = fieldFrom(parameters);
    this.#fields.set(key, [...(this.#fields.get(key) ?? []), value]);
  }
  set(...parameters: [name: unknown, value: unknown]): void {
    const [key, value] = fieldFrom(parameters);
    this.#fields.set(key, [value]);
  }
  get(name: unknown): string | null {
    return this.#fields.get(fieldName(name))?.join(', ') ?? null;
  }
  getSetCookie(): string[] {
    return [...(this.#fields.get('set-cookie') ?? [])];
  }
  has(name: unknown): boolean {
    return this.#fields.has(fieldName(name));
  }
  delete(name: unknown): void {
    this.#fields.delete(fieldName(name));
  }
  forEach(callback: (value: string, name: string, parent: GuestHeaders) => void, self?: unknown): void {
    if (typeof callback !== 'function') throw new TypeError('the callback is not a function');
    for (const [name, value] of this) Reflect.apply(callback, self, [value, name, this]);
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

/** What a constructor takes as a list of pairs: a list of them, or an object. @throws TypeError */
export function pairsOf(init: unknown, what: string): [unknown, unknown][] {
  if ((typeof init !== 'object' && typeof init !== 'function') || init === null) {
    throw new TypeError(`${what} are made of pairs or an object`);
  }
  if (!(Symbol.iterator in init)) return Object.entries(init);
  return [...(init as Iterable<unknown>)].map((pair) => {
    const both = typeof pair === 'object' && pair !== null ? [...(pair as Iterable<unknown>)] : [];
    if (both.length !== 2) throw new TypeError(`${what} are pairs of a name and a value`);
    return both as [unknown, unknown];
  });
}

function fieldFrom(parameters: readonly unknown[]): [string, string] {
  if (parameters.length < 2) throw new TypeError('a name and a value are needed');
  return [fieldName(parameters[0]), fieldValue(parameters[1])];
}

function fieldName(name: unknown): string {
  const text = String(name);
  if (!/^[!#$%&'*+\-.^_`|~\w]+$/.test(text)) throw new TypeError(`invalid header name: ${text}`);
  return text.toLowerCase();
}

function fieldValue(value: unknown): string {
  const text = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, '');
  if (/[\0\n\r]|[^\0-\xff]/.test(text)) throw new TypeError('invalid header value');
  return text;
}
