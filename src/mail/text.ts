/**
 * The text of an HTML body, for mail that brings no plain text and for replies made of HTML.
 *
 * Links keep their address, images only their description, tables run row by row, with a space between cells.
 * Input is cut before it is parsed and nesting is limited while it is walked, so that hostile HTML costs bounded
 * time and stack.
 */
import { createRequire } from 'node:module';
import { withoutDataUris } from './data-uri.ts';

const limits = {
  /** UTF-16 units of HTML that are read; the rest is dropped. */
  htmlChars: 2 * 1024 * 1024,
  /** Newsletters nest tables 20 deep, which is 80 elements. */
  depth: 300,
  /** The HTML parser takes quadratic time in the depth of what is left open: 700,000 tags took 210 s, these 1 s. */
  tags: 50_000,
} as const;

const require = createRequire(import.meta.url);
let convert: ((html: string) => string) | undefined;

/** The converter is loaded for the first mail that needs it: its packages are a tenth of a daemon's start. */
function createConvert(): (html: string) => string {
  const { compile } = require('html-to-text') as typeof import('html-to-text');
  return compile({
    wordwrap: false,
    // All of it, where the default is bodies alone: an answer stands above the document that it quotes, a list's footer below.
    baseElements: { selectors: [] },
    limits: { maxInputLength: limits.htmlChars, maxDepth: limits.depth, ellipsis: '' },
    selectors: [
      { selector: 'body', format: 'block' },
      // Of a head only what a browser would not show either: its end is easily forgotten.
      ...['title', 'head > xml', 'head > noscript'].map((selector) => ({ selector, format: 'skip' })),
      {
        selector: 'a',
        options: { hideLinkHrefIfSameAsText: true, linkBrackets: ['<', '>'], noAnchorUrl: true },
      },
      // A data: URL or a tracking pixel says nothing to a reader of text; a description does.
      { selector: 'img', format: 'imageDescription' },
      { selector: 'tr', format: 'block', options: { leadingLineBreaks: 1, trailingLineBreaks: 1 } },
      ...['td', 'th'].map((selector) => ({ selector, format: 'cell' })),
      ...['h1', 'h2', 'h3', 'h4', 'h5', 'h6'].map((selector) => ({
        selector,
        options: { uppercase: false },
      })),
    ],
    formatters: {
      imageDescription: (element, _walk, builder) => {
        const description = (element.attribs as Record<string, string> | undefined)?.['alt'];
        if (description) builder.addInline(description);
      },
      cell: (element, walk, builder) => {
        walk(element.children, builder);
        builder.addInline(' ');
      },
    },
  });
}

/** Plain text with LF line ends, without blank lines at either end; empty for HTML without text. */
export function htmlToText(html: string): string {
  convert ??= createConvert();
  const read = withoutDataUris(html);
  // The cut may fall between the halves of a character.
  return convert(read.slice(0, readableLength(read)).toWellFormed()).trim();
}

/** How much of the HTML lies within the limits. */
function readableLength(html: string): number {
  let tags = 0;
  for (let at = html.indexOf('<'); at >= 0 && at < limits.htmlChars; at = html.indexOf('<', at + 1)) {
    tags += 1;
    if (tags > limits.tags) return at;
  }
  return Math.min(html.length, limits.htmlChars);
}
