/**
 * `context.state` inside: a document is fetched when it is first asked for, changed here, and handed back whole
 * at the end of the run. Values are JSON text in between, so that what a tool does to an object after `set`, or to
 * one that it got, changes nothing.
 */
import type { State } from '../../tool-api.ts';
import type { StateChanges, StateEntries, StateScope } from '../sandbox.ts';
import { isNestedWithin } from '../json-depth.ts';
import { stateLimits } from '../state-limits.ts';
import { describeError } from './describe.ts';
import { encodeUtf8 } from './encoding.ts';
import { callCapability, fromJson, toJson } from './host.ts';
import { isArray, nameOf } from './plain-value.ts';

const { stringify } = JSON;
const { isFinite } = Number;
const { prototype: plainPrototype } = Object;
/** Such as `[object Map]`. */
const tagOf = (value: object): string => plainPrototype.toString.call(value);

class Document {
  readonly #scope: StateScope;
  #loading: Promise<Map<string, string>> | null = null;
  #isChanged = false;

  constructor(scope: StateScope) {
    this.#scope = scope;
  }

  readonly functions: State = {
    get: async <T>(key: string) => {
      const json = (await this.#load()).get(checkedKey(key));
      return (json === undefined ? undefined : fromJson(json)) as T | undefined;
    },
    set: async (key, value) => {
      const name = checkedKey(key);
      const json = jsonOf(name, value);
      const entries = await this.#load();
      const before = entries.get(name);
      entries.set(name, json);
      try {
        assertFits(entries);
      } catch (error) {
        if (before === undefined) entries.delete(name);
        else entries.set(name, before);
        throw error;
      }
      this.#isChanged = true;
    },
    delete: async (key) => {
      const name = checkedKey(key);
      const isThere = (await this.#load()).delete(name);
      this.#isChanged ||= isThere;
      return isThere;
    },
    keys: async () => [...(await this.#load()).keys()],
  };

  /** What it has become; undefined where it is as it was. What a tool did not wait for is in it, too. */
  async changed(): Promise<StateEntries | undefined> {
    const entries = await this.#loading;
    if (!entries || !this.#isChanged) return undefined;
    return Array.from(entries, ([key, json]): [string, unknown] => [key, fromJson(json)]);
  }

  #load(): Promise<Map<string, string>> {
    this.#loading ??= callCapability('state', { scope: this.#scope }).answer.then(
      ({ value }) => new Map((value as StateEntries).map(([key, kept]) => [key, toJson(kept)])),
    );
    return this.#loading;
  }
}

export function createState(): { state: State & { thread: State }; changes: () => Promise<StateChanges> } {
  const inbox = new Document('inbox');
  const thread = new Document('thread');
  return {
    state: { ...inbox.functions, thread: thread.functions },
    async changes() {
      const changed = { inbox: await inbox.changed(), thread: await thread.changed() };
      return {
        ...(changed.inbox && { inbox: changed.inbox }),
        ...(changed.thread && { thread: changed.thread }),
      };
    },
  };
}

function checkedKey(key: unknown): string {
  if (typeof key !== 'string') throw new TypeError(`a key of the state is ${nameOf(key)}, not a string`);
  if (key !== '' && key.length <= stateLimits.keyChars) return key;
  throw new RangeError(`a key of the state has 1 to ${stateLimits.keyChars} characters`);
}

function jsonOf(key: string, value: unknown): string {
  let json: string | undefined;
  try {
    json = stringify(value, onlyJson);
  } catch (error) {
    throw new TypeError(`state.${key} is not JSON: ${describeError(error).message}`, { cause: error });
  }
  if (json === undefined)
    throw new TypeError(`state.${key} is ${nameOf(value)}, not JSON; delete takes a key away`);
  if (json.length <= stateLimits.bytes && !isNestedWithin(fromJson(json), stateLimits.depth))
    throw new RangeError(`state.${key} is nested deeper than ${stateLimits.depth} levels`);
  return json;
}

/** What JSON would keep as something else without a word: a Map or a promise as `{}`, NaN as null. Of an author's class it
 *  keeps the fields. */
function onlyJson(name: string, value: unknown): unknown {
  const where = name === '' ? '' : ` at ${name}`;
  if (typeof value === 'number' && !isFinite(value)) throw new TypeError(`${value}${where}`);
  if (typeof value !== 'object' || value === null || isArray(value)) return value;
  if (tagOf(value) === '[object Object]') return value;
  throw new TypeError(`${tagOf(value)}${where}`);
}

function assertFits(entries: ReadonlyMap<string, string>): void {
  const { keys, bytes } = stateLimits;
  if (entries.size > keys)
    throw new RangeError(`the state would have ${entries.size} keys; at most ${keys} are kept`);
  let used = 2;
  for (const [key, json] of entries) used += encodeUtf8(`[${toJson(key)},${json}],`).length;
  if (used > bytes) throw new RangeError(`the state would have ${used} bytes; at most ${bytes} are kept`);
}
