/**
 * The effects of a run: what a tool asked for by `context.reply`, `send` and `forward`, in that order, and then
 * what it returned. They are read when they are stated, so that what becomes of the objects later changes nothing;
 * the host carries them out when the run has ended well.
 */
import type { Context } from '../../tool-api.ts';
import type { PlainContent, PlainEffect } from '../sandbox.ts';
import { CONTENT_KEYS, contentOf } from './mail-content.ts';
import { fieldsOf, InvalidResult, isArray, keysOf, nameOf } from './plain-value.ts';
import type { Place } from './plain-value.ts';

const MAX_EFFECTS = 100;
const MAX_LISTED = 50;
const RECIPIENT_KEYS = ['to', 'cc', 'bcc'];
const REPLY_KEYS = [...CONTENT_KEYS, 'at'];
const SEND_KEYS = [...RECIPIENT_KEYS, ...REPLY_KEYS];
const FORWARD_KEYS = [...RECIPIENT_KEYS, 'text', 'html', 'subject', 'at'];
const GROUP_KEYS = ['reply', 'send', 'forward'];
const WITH_ZONE = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)$/;

type Recipients = Pick<PlainEffect & { kind: 'send' }, 'to' | 'cc' | 'bcc'>;

export class Effects {
  readonly #pending: Promise<PlainEffect>[] = [];

  /** What the context offers. @throws InvalidResult, as all that adds */
  readonly functions: Pick<Context, 'reply' | 'send' | 'forward'> = {
    reply: (value) => this.#reply(value, given('reply')),
    send: (value) => this.#send(value, given('send')),
    forward: (value) => this.#forward(value, given('forward')),
  };

  /** Adds what the tool returned. */
  add(result: unknown): void {
    if (result === undefined || result === null) return;
    const whole: Place = { phrase: 'the tool returned', path: '' };
    if (typeof result === 'string') return this.#reply(result, whole);
    if (!isArray(result)) return this.#stated(result, whole);
    this.#checkCount(result.length);
    for (let index = 0; index < result.length; index++)
      this.#stated(result[index], { phrase: `element ${index} is`, path: `[${index}].` });
  }

  /** All of them, in order; by index, as a tool may have patched what iterates. */
  async settled(): Promise<PlainEffect[]> {
    const effects: PlainEffect[] = [];
    for (let index = 0; index < this.#pending.length; index++) effects[index] = await this.#pending[index]!;
    return effects;
  }

  /** One object: a reply, a mail to somebody else, or several effects by name. */
  #stated(value: unknown, place: Place): void {
    const keys = keysOf(value, { place, what: 'a reply' });
    if (keys.some((key) => GROUP_KEYS.includes(key))) this.#group(value, place);
    else if (keys.some((key) => RECIPIENT_KEYS.includes(key))) this.#send(value, place);
    else this.#reply(value, place);
  }

  #group(value: unknown, place: Place): void {
    const keys = [...GROUP_KEYS, 'at'];
    const fields = fieldsOf(value, { place, keys, what: 'an object of effects' });
    const at = timeFrom(fields['at'], `${place.path}at`);
    const each = (key: string, add: (element: unknown, where: Place, at: Time) => void): void => {
      const stated = fields[key];
      if (stated === undefined || stated === null) return;
      const name = `${place.path}${key}`;
      if (!isArray(stated)) return add(stated, { phrase: `\`${name}\` is`, path: `${name}.` }, at);
      this.#checkCount(stated.length);
      for (let index = 0; index < stated.length; index++) {
        const where = `${name}[${index}]`;
        add(stated[index], { phrase: `\`${where}\` is`, path: `${where}.` }, at);
      }
    };
    each('reply', (element, where, later) => this.#reply(element, where, later));
    each('send', (element, where, later) => this.#send(element, where, later));
    each('forward', (element, where, later) => this.#forward(element, where, later));
  }

  #reply(value: unknown, place: Place, later: Time = {}): void {
    if (typeof value === 'string')
      return this.#push(Promise.resolve({ kind: 'reply', text: value, ...later }), place);
    const fields = fieldsOf(value, { place, keys: REPLY_KEYS, what: 'a reply' });
    const at = { ...later, ...timeFrom(fields['at'], `${place.path}at`) };
    const content = contentOf(fields, place.path);
    const reply = said(content, { place, what: 'a reply' });
    this.#push(
      reply.then((all) => ({ kind: 'reply', ...all, ...at })),
      place,
    );
  }

  #send(value: unknown, place: Place, later: Time = {}): void {
    const fields = fieldsOf(value, { place, keys: SEND_KEYS, what: 'a mail to somebody' });
    const at = { ...later, ...timeFrom(fields['at'], `${place.path}at`) };
    const recipients = recipientsOf(fields, place);
    const content = contentOf(fields, place.path);
    const mail = said(content, { place, what: 'a mail' });
    this.#push(
      mail.then((all) => ({ kind: 'send', ...recipients, ...all, ...at })),
      place,
    );
  }

  #forward(value: unknown, place: Place, later: Time = {}): void {
    const isAddress = typeof value === 'string' || isArray(value);
    const stated = isAddress || isMailbox(value) ? { to: value } : value;
    const fields = fieldsOf(stated, { place, keys: FORWARD_KEYS, what: 'an address or { to }' });
    const at = { ...later, ...timeFrom(fields['at'], `${place.path}at`) };
    const recipients = recipientsOf(fields, place);
    const content = contentOf(fields, place.path);
    this.#push(
      content.then((all) => ({ kind: 'forward', ...recipients, ...all, ...at })),
      place,
    );
  }

  #push(effect: Promise<PlainEffect>, { path }: Place): void {
    this.#checkCount(1);
    const placed = path === '' ? effect : effect.then((stated) => ({ ...stated, place: path }));
    placed.catch(() => {}); // It is awaited at the end of the run.
    this.#pending.push(placed);
  }

  #checkCount(more: number): void {
    if (this.#pending.length + more <= MAX_EFFECTS) return;
    const count = this.#pending.length + more;
    throw new InvalidResult(`the tool stated ${count} effects; at most ${MAX_EFFECTS} are taken`);
  }
}

function given(name: string): Place {
  return { phrase: `context.${name} was given`, path: `${name}.` };
}

async function said(
  content: Promise<PlainContent>,
  { place, what }: { place: Place; what: string },
): Promise<PlainContent> {
  const all = await content;
  if (all.text !== undefined || all.html !== undefined || all.attachments?.length) return all;
  throw new InvalidResult(`${place.phrase} ${what} without \`text\`, \`html\` or \`attachments\``);
}

interface Time {
  at?: string;
}

/** Nothing where there is no time. */
function timeFrom(value: unknown, name: string): Time {
  if (value === undefined || value === null) return {};
  const expected = 'a Date or an ISO 8601 time with its zone, such as "2026-12-24T18:00:00Z"';
  if (value instanceof Date) {
    if (Number.isNaN(Number(value))) throw new InvalidResult(`\`${name}\` is an invalid Date`);
    const at = value.toISOString();
    if (!WITH_ZONE.test(at)) throw new InvalidResult(`\`${name}\` is no time of the years 0 to 9999`);
    return { at };
  }
  if (typeof value !== 'string' || !WITH_ZONE.test(value) || Number.isNaN(Date.parse(value)))
    throw new InvalidResult(`\`${name}\` is ${nameOf(value)}, not ${expected}`);
  return { at: new Date(value).toISOString() };
}

function recipientsOf(fields: Record<string, unknown>, { path }: Place): Recipients {
  const to = addressesOf(fields['to'], `${path}to`);
  const cc = addressesOf(fields['cc'], `${path}cc`);
  const bcc = addressesOf(fields['bcc'], `${path}bcc`);
  if (to.length === 0) throw new InvalidResult(`\`${path}to\` names nobody`);
  return { to, ...(cc.length > 0 && { cc }), ...(bcc.length > 0 && { bcc }) };
}

function addressesOf(value: unknown, name: string): string[] {
  if (value === undefined || value === null) return [];
  if (!isArray(value)) return [addressOf(value, name)];
  if (value.length > MAX_LISTED)
    throw new InvalidResult(`\`${name}\` has ${value.length} addresses; at most ${MAX_LISTED} are taken`);
  return Array.from(value, (element, index) => addressOf(element, `${name}[${index}]`));
}

/** Whether it is an address is the host's to say. */
function addressOf(value: unknown, name: string): string {
  const address: unknown = isMailbox(value) ? value.address : value;
  if (typeof address === 'string') return address;
  throw new InvalidResult(`\`${name}\` is ${nameOf(value)}, not an address`);
}

function isMailbox(value: unknown): value is { address: unknown } {
  return typeof value === 'object' && value !== null && !isArray(value) && 'address' in value;
}
