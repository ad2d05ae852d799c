/**
 * What may leave in the HTML of a reply. A tool may echo what a stranger wrote to it, so nothing that a mail
 * client could run, load into a frame or submit survives. What mail needs for its looks (tables, images, links, inline
 * styles without URLs) stays. Any other tag goes and what it holds stays, as a client does that does not know it: the
 * source of a page is nothing for its reader. What is no text for a reader (scripts, style sheets, a title) goes whole.
 * An address in angle brackets is no tag, though parsers take it for one, and is text.
 */
import { createRequire } from 'node:module';
import type sanitizeHtml from 'sanitize-html';
import { MillraceError } from '../platform/errors.ts';
import { withoutDataUris } from './data-uri.ts';

const require = createRequire(import.meta.url);
/** Loaded for the first reply in HTML: its packages are a tenth of a daemon's start. */
const loadSanitizer = (): typeof sanitizeHtml => require('sanitize-html') as typeof sanitizeHtml;

const limits = {
  /** UTF-16 units. */
  chars: 5 * 1024 * 1024,
  /** The HTML parser takes quadratic time in the depth of what is left open. */
  tags: 50_000,
  depth: 200,
} as const;

/** Layout and text, and nothing that loads, runs, submits or describes how the page behaves. */
const TAGS = (
  'html head body address article aside footer header main nav section h1 h2 h3 h4 h5 h6 blockquote div ' +
  'p pre hr br wbr center ul ol li dl dt dd figure figcaption table caption colgroup col thead tbody tfoot tr ' +
  'th td a abbr b bdi bdo big cite code del dfn em font i img ins kbd mark q s samp small span strike strong ' +
  'sub sup time tt u var'
).split(' ');

/** A style value that can load or run something, or hide that it does. */
const ACTIVE_STYLE = /url\s*\(|expression|javascript|behaviou?r|-moz-binding|@import|[\\<]|\/\*/i;

/** What they hold is code, or is shown in no page either. */
const LEFT_OUT =
  'script style title textarea select datalist option template iframe noembed noframes plaintext xmp'.split(
    ' ',
  );

/** Stands on lines of its own: without its tag it would run into what is beside it. */
const BLOCKS = 'details summary dialog fieldset form hgroup legend menu search'.split(' ');

/** What parsers take for a tag, and what can be the name of none: `<ann@example.com>`, `<https://example.com>`. */
const NO_TAG = /<(?=\/?[a-z][\w.:-]*(?:[^\w.:\s/>-]|(?<=:)\/))/gi;

const options: sanitizeHtml.IOptions = {
  allowedTags: TAGS,
  disallowedTagsMode: 'discard',
  nonTextTags: LEFT_OUT,
  nestingLimit: limits.depth,
  allowedAttributes: {
    '*': [
      'align',
      'bgcolor',
      'class',
      'color',
      'dir',
      'height',
      'id',
      'lang',
      'role',
      'style',
      'title',
      'valign',
      'width',
    ],
    a: ['href', 'name', 'target'],
    col: ['span'],
    colgroup: ['span'],
    font: ['face', 'size'],
    img: ['alt', 'border', 'src'],
    ol: ['start', 'type'],
    table: ['border', 'cellpadding', 'cellspacing'],
    td: ['colspan', 'headers', 'nowrap', 'rowspan'],
    th: ['colspan', 'headers', 'nowrap', 'rowspan', 'scope'],
    time: ['datetime'],
  },
  allowedSchemes: ['https', 'http', 'mailto', 'tel'],
  allowedSchemesByTag: { img: ['https', 'cid'] },
  allowProtocolRelative: false,
  parseStyleAttributes: false,
  transformTags: {
    ...Object.fromEntries(BLOCKS.map((name) => [name, 'div'])),
    '*': (tagName, attribs) => {
      const { style, ...rest } = attribs;
      return { tagName, attribs: style === undefined || ACTIVE_STYLE.test(style) ? rest : attribs };
    },
  },
};

/**
 * The HTML without anything active.
 * @throws MillraceError `mail.html_too_large` (permanent): half a reply would be worse than none.
 */
export function sanitiseReplyHtml(html: string): string {
  // No mail client shows them, and none leaves here.
  const shown = withoutDataUris(html);
  if (shown.length > limits.chars || tagCount(shown) > limits.tags) {
    throw new MillraceError('permanent', 'mail.html_too_large', 'the HTML of the reply is too large', {
      hint: `Return at most ${limits.chars} characters and ${limits.tags} tags.`,
    });
  }
  return loadSanitizer()(shown.toWellFormed().replaceAll('\0', '').replaceAll(NO_TAG, '&lt;'), options);
}

function tagCount(html: string): number {
  let tags = 0;
  for (let at = html.indexOf('<'); at >= 0 && tags <= limits.tags; at = html.indexOf('<', at + 1)) tags += 1;
  return tags;
}

/** Text as it may stand in HTML, in an element or in a quoted attribute. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}
