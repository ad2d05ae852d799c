/**
 * Turns what a tool returned into plain data, or says what is wrong with it.
 *
 * Each property is read once. A getter or Proxy that throws, a number, a function, an unknown key: all end
 * as an `InvalidResult` that names what was returned. Html may be a promise or what JSX makes.
 */
import type { PlainReply } from '../sandbox.ts';
import { encodeBase64, encodeUtf8 } from './encoding.ts';
import { describeError } from './describe.ts';

const REPLY_KEYS = ['text', 'html', 'subject', 'attachments'];
const ATTACHMENT_KEYS = ['filename', 'content', 'contentType'];
const MAX_REPLIES = 100;
const MAX_ATTACHMENTS = 100;

export class InvalidResult extends Error {}

/** @throws InvalidResult */
export async function plainReplies(result: unknown): Promise<PlainReply[] | null> {
  if (result === undefined || result === null) return null;
  if (typeof result === 'string') return [{ text: result }];
  if (!isArray(result)) return [await plainReply(result, 'the tool returned')];
  if (result.length > MAX_REPLIES) {
    throw new InvalidResult(`the tool returned ${result.length} replies; at most ${MAX_REPLIES} are taken`);
  }
  const replies: PlainReply[] = [];
  for (let index = 0; index < result.length; index++) {
    replies.push(await plainReply(result[index], `element ${index} is`));
  }
  return replies;
}

async function plainReply(value: unknown, where: string): Promise<PlainReply> {
  const reply = fieldsOf(value, { where, keys: REPLY_KEYS, what: 'a reply' });
  const text = optionalString(reply['text'], 'text');
  const html = await htmlText(reply['html']);
  const subject = optionalString(reply['subject'], 'subject');
  const attachments = attachmentsOf(reply['attachments']);
  if (text === undefined && html === undefined && !attachments?.length) {
    throw new InvalidResult(`${where} a reply without \`text\`, \`html\` or \`attachments\``);
  }
  return {
    ...(text !== undefined && { text }),
    ...(html !== undefined && { html }),
    ...(subject !== undefined && { subject }),
    ...(attachments && { attachments }),
  };
}

function attachmentsOf(value: unknown): PlainReply['attachments'] {
  if (value === undefined || value === null) return undefined;
  if (!isArray(value)) throw new InvalidResult(`\`attachments\` is ${nameOf(value)}, not an array`);
  if (value.length > MAX_ATTACHMENTS) {
    throw new InvalidResult(
      `\`attachments\` has ${value.length} files; at most ${MAX_ATTACHMENTS} are taken`,
    );
  }
  return Array.from(value, (element: unknown, index) => {
    const where = `attachments[${index}]`;
    const fields = fieldsOf(element, { where: `${where} is`, keys: ATTACHMENT_KEYS, what: 'an attachment' });
    const filename = optionalString(fields['filename'], `${where}.filename`);
    if (filename === undefined) throw new InvalidResult(`\`${where}.filename\` is missing`);
    const contentType = optionalString(fields['contentType'], `${where}.contentType`);
    return {
      filename,
      contentBase64: encodeBase64(contentBytes(fields['content'], `${where}.content`)),
      ...(contentType !== undefined && { contentType }),
    };
  });
}

function contentBytes(content: unknown, where: string): Uint8Array {
  if (typeof content === 'string') return encodeUtf8(content);
  if (content instanceof ArrayBuffer) return new Uint8Array(content);
  if (ArrayBuffer.isView(content)) {
    return new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
  }
  throw new InvalidResult(`\`${where}\` is ${nameOf(content)}, not a string or Uint8Array`);
}

async function htmlText(value: unknown): Promise<string | undefined> {
  const html = await guarded('html', () => value);
  if (html === undefined || html === null) return undefined;
  if (typeof html === 'string') return html;
  if (typeof html !== 'object') throw new InvalidResult(`\`html\` is ${nameOf(html)}, not HTML`);
  const text: unknown = await guarded('html', () => html.toString());
  if (typeof text === 'string') return text;
  // JSX with asynchronous parts renders to a String object.
  if (text instanceof String) return text.valueOf();
  throw new InvalidResult(`\`html\` renders to ${nameOf(text)}, not to a string`);
}

/** Awaits what `produce` makes; what it throws becomes an invalid result that names the property. */
async function guarded<T>(property: string, produce: () => T | Promise<T>): Promise<T> {
  try {
    return await produce();
  } catch (error) {
    throw new InvalidResult(`reading \`${property}\` of the result: ${describeError(error).message}`);
  }
}

function fieldsOf(
  value: unknown,
  shape: { where: string; keys: readonly string[]; what: string },
): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || isArray(value)) {
    throw new InvalidResult(`${shape.where} ${nameOf(value)}, not ${shape.what}`);
  }
  try {
    if ('isEscaped' in value) {
      throw new InvalidResult(`${shape.where} HTML as it is: return { html: … }`);
    }
    for (const key of Reflect.ownKeys(value)) {
      if (typeof key === 'string' && shape.keys.includes(key)) continue;
      const known = shape.keys.join(', ');
      throw new InvalidResult(
        `${shape.where} an object with the unknown key \`${String(key)}\`; known: ${known}`,
      );
    }
    return Object.fromEntries(shape.keys.map((key) => [key, (value as Record<string, unknown>)[key]]));
  } catch (error) {
    if (error instanceof InvalidResult) throw error;
    throw new InvalidResult(`${shape.where} an object that cannot be read: ${describeError(error).message}`);
  }
}

function optionalString(value: unknown, name: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string') return value;
  throw new InvalidResult(`\`${name}\` is ${nameOf(value)}, not a string`);
}

function isArray(value: unknown): value is unknown[] {
  return Array.isArray(value);
}

/** `a number (42)`, `a function`, `an array`, …: what was returned, for the message. */
function nameOf(value: unknown): string {
  if (value === undefined) return 'undefined';
  if (value === null) return 'null';
  if (isArray(value)) return 'an array';
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`;
  return `a ${typeof value} (${String(value).slice(0, 100)})`;
}
