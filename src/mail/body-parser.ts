/**
 * `postal-mime` with bodies of our own making: which parts are the body, and what text their bytes are.
 *
 * Left to itself the library turns HTML into text, and text into HTML, wherever a message has parts of both that are no
 * alternatives of one another, with expressions that take cubic time over what a sender wrote: 4 kB held the process up
 * for six seconds. Nothing here asks it to: what has to be converted is converted by `text.ts`, which has limits.
 *
 * This reaches into the library, in the one version that package.json pins; a test notices where it no longer fits.
 */
import PostalMime from 'postal-mime';
import type { PostalMimeOptions } from 'postal-mime';
import { charsetOf, unflowed } from './part-text.ts';
import { escapeHtml } from './reply-html.ts';
import { htmlToText } from './text.ts';

/** Runs of HTML parts between plain ones that are converted for the text of all: each may cost as much as a whole mail. */
const MAX_CONVERSIONS = 10;

interface Part {
  content: ArrayBuffer | null;
  contentType: { multipart: string | false; parsed: { value: string; params: Record<string, string> } };
  contentDisposition: { parsed: { value: string; params: Record<string, string> } };
  parentNode?: Part | undefined;
  childNodes: readonly Part[];
  getTextContent(): string;
}

type TextType = 'plain' | 'html';
/** Of one part, or of all parts of one alternative. */
type Texts = Partial<Record<TextType, readonly { value: string }[]>>;

interface Internals {
  root: Part;
  textMap: Map<unknown, Texts>;
  textContent: Partial<Record<TextType, string>>;
  /** Sorts a part, and those inside, into texts and attachments. */
  collectNode(part: Part, ...where: unknown[]): Promise<void>;
  isInlineTextNode(part: Part): boolean;
  renderTextContent(): void;
}

const Parser = PostalMime as unknown as new (options?: PostalMimeOptions) => PostalMime & Internals;

export class BodyParser extends Parser {
  override collectNode(part: Part, ...where: unknown[]): Promise<void> {
    if (part === this.root && isTextByDefault(part)) part.contentType.parsed.value = 'text/plain';
    const decode = part.getTextContent.bind(part);
    part.getTextContent = () => textOf(part, decode);
    return super.collectNode(part, ...where);
  }

  override isInlineTextNode(part: Part): boolean {
    return super.isInlineTextNode(part) && !isNamedFile(part);
  }

  override renderTextContent(): void {
    const all = [...this.textMap.values()];
    if (all.some(({ plain }) => plain)) this.textContent.plain = plainOf(all).join('\n');
    if (all.some(({ html }) => html)) this.textContent.html = all.map(htmlOf).join('\n');
  }
}

function textOf(part: Part, decode: () => string): string {
  const { parsed } = part.contentType;
  const { charset, format = '', delsp = '', ...params } = parsed.params;
  const known = charsetOf(new Uint8Array(part.content ?? new ArrayBuffer(0)), charset);
  parsed.params = known === undefined ? params : { ...params, charset: known };
  const text = decode();
  if (format.toLowerCase() !== 'flowed') return text;
  return unflowed(text, { isSpaceDropped: delsp.toLowerCase() === 'yes' });
}

const MEDIA_TYPE = /^[^\s/]+\/[^\s/]+$/;

/**
 * The only part of a message, of a type that says no more than that it is text (RFC 2046 §4.1.4), or that is no type
 * (RFC 2045 §5.2). A named one is a file.
 */
function isTextByDefault(part: Part): boolean {
  const { value } = part.contentType.parsed;
  const isFile = isNamed(part) || part.contentDisposition.parsed.value === 'attachment';
  if (part.contentType.multipart || isFile) return false;
  return !MEDIA_TYPE.test(value) || (value.startsWith('text/') && value !== 'text/html');
}

function isNamed({ contentType, contentDisposition }: Part): boolean {
  return Boolean(contentType.parsed.params['name'] || contentDisposition.parsed.params['filename']);
}

/**
 * Whether a part of text is a file beside the body, as RFC 8621 §4.1.4 tells them apart: it has a name and follows other
 * parts. What begins the message is its body, and so is what begins an alternative of it.
 */
function isNamedFile(part: Part): boolean {
  if (!isNamed(part)) return false;
  let top = part;
  while (top.parentNode?.childNodes[0] === top) top = top.parentNode;
  const isAlternative = top.parentNode?.contentType.multipart === 'alternative';
  const isBeside = top === part || top.contentType.multipart === 'mixed';
  return top.parentNode !== undefined && isBeside && !isAlternative;
}

/** Each part as it is, or its HTML as text; neighbours of HTML are converted as one. */
function plainOf(all: readonly Texts[]): string[] {
  const texts: string[] = [];
  let conversions = 0;
  for (let at = 0; at < all.length; at += 1) {
    const { plain } = all[at]!;
    if (plain) {
      texts.push(joined(plain));
      continue;
    }
    const start = at;
    while (at + 1 < all.length && !all[at + 1]!.plain) at += 1;
    conversions += 1;
    if (conversions > MAX_CONVERSIONS) continue;
    texts.push(
      htmlToText(
        all
          .slice(start, at + 1)
          .map(({ html = [] }) => joined(html))
          .join('\n'),
      ),
    );
  }
  return texts;
}

function htmlOf({ plain = [], html }: Texts): string {
  return html ? joined(html) : `<div>${escapeHtml(joined(plain).trim()).replaceAll('\n', '<br>')}</div>`;
}

function joined(texts: readonly { value: string }[]): string {
  return texts.map(({ value }) => value).join('\n');
}
