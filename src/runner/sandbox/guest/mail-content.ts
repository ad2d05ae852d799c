/** What a mail of a tool says: text, html, subject and files as plain data. Html may be a promise or what JSX makes. */
import type { PlainContent } from '../sandbox.ts';
import { describeError } from './describe.ts';
import { encodeBase64, encodeUtf8 } from './encoding.ts';
import { fieldsOf, InvalidResult, isArray, nameOf, optionalString } from './plain-value.ts';

export const CONTENT_KEYS = ['text', 'html', 'subject', 'attachments'];
const ATTACHMENT_KEYS = ['filename', 'content', 'contentType'];
const MAX_ATTACHMENTS = 100;

/**
 * Reads all fields at once; what it gives waits for the html alone.
 * @param path what stands before the names of keys in messages
 * @throws InvalidResult; so does the promise
 */
export function contentOf(fields: Record<string, unknown>, path: string): Promise<PlainContent> {
  const text = optionalString(fields['text'], `${path}text`);
  const subject = optionalString(fields['subject'], `${path}subject`);
  const attachments = attachmentsOf(fields['attachments'], `${path}attachments`);
  const content = withHtml(htmlText(fields['html'], `${path}html`), { text, subject, attachments });
  // It is awaited at the end of the run, and must not count as a rejection that nobody handles until then.
  content.catch(() => {});
  return content;
}

async function withHtml(
  rendering: Promise<string | undefined>,
  { text, subject, attachments }: PlainContent,
): Promise<PlainContent> {
  const html = await rendering;
  return {
    ...(text !== undefined && { text }),
    ...(html !== undefined && { html }),
    ...(subject !== undefined && { subject }),
    ...(attachments && { attachments }),
  };
}

function attachmentsOf(value: unknown, path: string): PlainContent['attachments'] {
  if (value === undefined || value === null) return undefined;
  if (!isArray(value)) throw new InvalidResult(`\`${path}\` is ${nameOf(value)}, not an array`);
  if (value.length > MAX_ATTACHMENTS) {
    throw new InvalidResult(`\`${path}\` has ${value.length} files; at most ${MAX_ATTACHMENTS} are taken`);
  }
  return Array.from(value, (element: unknown, index) => {
    const where = `${path}[${index}]`;
    const place = { phrase: `${where} is`, path: `${where}.` };
    const fields = fieldsOf(element, { place, keys: ATTACHMENT_KEYS, what: 'an attachment' });
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

async function htmlText(value: unknown, name: string): Promise<string | undefined> {
  const html = await guarded(name, () => value);
  if (html === undefined || html === null) return undefined;
  if (typeof html === 'string') return html;
  if (typeof html !== 'object') throw new InvalidResult(`\`${name}\` is ${nameOf(html)}, not HTML`);
  const text: unknown = await guarded(name, () => html.toString());
  if (typeof text === 'string') return text;
  // JSX with asynchronous parts renders to a String object.
  if (text instanceof String) return text.valueOf();
  throw new InvalidResult(`\`${name}\` renders to ${nameOf(text)}, not to a string`);
}

/** Awaits what `produce` makes; what it throws becomes an invalid result that names the property. */
async function guarded<T>(property: string, produce: () => T | Promise<T>): Promise<T> {
  try {
    return await produce();
  } catch (error) {
    throw new InvalidResult(`reading \`${property}\` of the result: ${describeError(error).message}`);
  }
}
