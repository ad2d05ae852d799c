/** HTML to text: what a reader of plain text needs of it, within limits. */
import { expect, test } from 'vitest';
import { htmlToText } from '../../src/mail/text.ts';

test.each([
  ['<p>One</p><p>Two<br>Three</p>', 'One\n\nTwo\nThree'],
  ['<a href="https://e.example/x">here</a>', 'here <https://e.example/x>'],
  ['<a href="https://e.example/">https://e.example/</a>', 'https://e.example/'],
  ['<a href="#top">up</a>', 'up'],
  ['<ul><li>a</li><li>b</li></ul><ol><li>c</li></ol>', ' * a\n * b\n\n 1. c'.trim()],
  [
    '<img src="cid:1" alt="Logo"><img src="https://t.example/pixel"><img src="data:image/png;base64,AA">',
    'Logo',
  ],
  ['<h1>Title</h1>text', 'Title\n\ntext'],
  ['<style>p{}</style><script>x()</script><p>seen</p>', 'seen'],
  ['&lt;b&gt; &amp; &eacute;', '<b> & é'],
  ['<table><tr><td>a</td><td>b</td></tr></table>', 'a b'],
  ['<table><tr><th>Paid<th>Left<tr><td>100<td>200</table>', 'Paid Left\n100 200'],
  ['<table><tr><td><p>a</p></td><td>b</td></tr></table><p>c</p>', 'a\n\nb\n\nc'],
  ['<html><head><title>T</title><style>p{}</style></head><body>seen</body></html>', 'seen'],
  ['<title>T</title><p>seen</p>', 'seen'],
  ['<html><head><title>T</title><p>a head without an end</p>', 'a head without an end'],
  ['<head><xml><o:Dpi>96</o:Dpi></xml><noscript>old</noscript></head><body>seen</body>', 'seen'],
  ['', ''],
  ['   <p> </p> ', ''],
])('%s', (html, text) => {
  expect(htmlToText(html)).toBe(text);
});

test.each([
  ['<p>Answer</p><html><body>old</body></html>', 'Answer\n\nold'],
  ['Answer<html><body>old</body></html>Footer', 'Answer\n\nold\n\nFooter'],
  ['<html><body><p>Hello</p></body></html>\n<p>Footer of a list</p>', 'Hello\n\nFooter of a list'],
  ['<html><body>one</body></html><html><body>two</body></html>', 'one\n\ntwo'],
  ['<p>Answer</p><blockquote><html><body>old</body></html></blockquote>', 'Answer\n\n> old'],
])('text outside a body is text too: %s', (html, text) => {
  expect(htmlToText(html)).toBe(text);
});

test.each([
  (payload: string) => `<img src="data:image/png;base64,${payload}">`,
  (payload: string) => `<IMG SRC = ' data:image/svg+xml;utf8,<svg id="${payload}"/>'>`,
  (payload: string) => `<img src=data:,${payload}>`,
  (payload: string) => `<p style="background: url(data:image/png;base64,${payload})">`,
  (payload: string) => `<style>p { background: URL("data:image/png;base64,${payload}") }</style>`,
])('an image in the HTML leaves room for the text after it: %s', (image) => {
  expect(htmlToText(`${image('A'.repeat(3 * 1024 * 1024))}<p>Please order 5 boxes.</p>`)).toBe(
    'Please order 5 boxes.',
  );
});

test('what looks like an image’s data in a sentence stays', () => {
  const text = 'Our data: a, b; data:text/plain,x and "data:,y"';
  expect(htmlToText(`<p title="data:image/png;base64,AA">${text}</p>`)).toBe(text);
});

test('a long line is not wrapped', () => {
  const line = 'word '.repeat(100).trim();
  expect(htmlToText(`<p>${line}</p>`)).toBe(line);
});

test.each([
  '<b>',
  '<body>',
  '<table><tr><td>',
  '<ul><li>',
  '<blockquote>',
  '<a href=x>',
  '<',
  '&',
  '<!--',
  '<p ',
])(
  'a megabyte of %s is read as far as the limits go',
  (piece) => {
    const html = `<p>first</p>${piece.repeat(1_000_000 / piece.length)}`;
    expect(htmlToText(html).startsWith('first')).toBe(true);
  },
  30_000,
);

test('text inside 80 nested tables is found', () => {
  expect(htmlToText(`${'<table><tr><td>'.repeat(80)}deep`)).toBe('deep');
});

test('a cut through a character leaves well-formed text', () => {
  const text = htmlToText(`${'a'.repeat(2 * 1024 * 1024 - 1)}\u{1f600}`);
  expect(text.endsWith('a\ufffd')).toBe(true);
});
