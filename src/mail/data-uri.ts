/**
 * HTML without what its `data:` addresses hold. An image that stands in the HTML itself is megabytes of base64, none of
 * which is text and all of which would count where HTML is cut or refused for its size.
 *
 * Only an attribute's value and a style's `url()` are cut: the word in a sentence stays. Each piece of the HTML is looked
 * at once, whatever it is made of.
 */
const DATA = 'data:[\\w.+/-]{0,127}[;,]';

/** Up to the quote that ends the value; without quotes up to its end; in a style up to what ends the address. */
const DATA_URI = new RegExp(
  `(=\\s*")\\s*${DATA}[^"]*|(=\\s*')\\s*${DATA}[^']*|(=)\\s*${DATA}[^\\s>]*|(url\\(\\s*["']?)\\s*${DATA}[^)"'<>]*`,
  'gi',
);

export function withoutDataUris(html: string): string {
  return html.replace(DATA_URI, '$1$2$3$4');
}
