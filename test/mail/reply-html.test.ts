/** The HTML of a reply: nothing active leaves, whatever a tool echoes; what mail needs for its looks stays. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { escapeHtml, sanitiseReplyHtml } from '../../src/mail/reply-html.ts';

describe('what is active', () => {
  test.each([
    ['<p>Hi <img src=x onerror=alert(1)></p>', '<p>Hi <img src="x" /></p>'],
    ['<p>a<script>alert(1)</script>b</p>', '<p>ab</p>'],
    ['<a href="javascript:alert(1)">x</a>', '<a>x</a>'],
    ['<a href=" java\tscript:alert(1)">x</a>', '<a>x</a>'],
    ['<a href="&#106;avascript:alert(1)">x</a>', '<a>x</a>'],
    ['<a href="data:text/html,x">x</a>', '<a>x</a>'],
    ['a<iframe src="https://x.example"><b>c</b></iframe>b', 'ab'],
    ['<form action="/x">Name <input name="a"><button>Go</button></form>', '<div>Name Go</div>'],
    ['a<svg onload=alert(1)><a xlink:href="javascript:x">b</a></svg>', 'a<a>b</a>'],
    [
      'a<textarea></p><script>x</script></textarea>b<noscript><img src=x onerror=y></noscript>',
      'ab<img src="x" />',
    ],
    ['<object data="x">No player</object>', 'No player'],
    ['<img src="https://a.example/b.png" srcset="javascript:1 1x">', '<img src="https://a.example/b.png" />'],
    ['<p style="background:url(https://t.example)">x</p>', '<p>x</p>'],
    ['<p style="background:u\\72l(x)">x</p>', '<p>x</p>'],
    ['<p style="width:expression(alert(1))">x</p>', '<p>x</p>'],
    ['<b onclick="x" onmouseover=y>x</b>', '<b>x</b>'],
  ])('%s', (html, expected) => {
    expect(sanitiseReplyHtml(html)).toBe(expected);
  });

  test('of a template’s head is left out without a trace', () => {
    const head =
      '<meta http-equiv="refresh" content="0;url=//x"><base href="//x"><link rel="x"><style>p{}</style>';
    expect(
      sanitiseReplyHtml(`<!doctype html><html><head>${head}</head><body><!-- c --><p>x</p></body></html>`),
    ).toBe('<html><head></head><body><p>x</p></body></html>');
  });
});

describe('what mail looks like', () => {
  test.each([
    '<table border="1" cellpadding="4"><tbody><tr><td colspan="2" bgcolor="#fff" align="right">a</td></tr></tbody></table>',
    '<a href="https://e.example/?a=1&amp;b=2" target="_blank">x</a> <a href="mailto:a@b.example">m</a>',
    '<img src="cid:logo" alt="L" width="10" /><img src="https://a.example/b.png" />',
    '<p style="color:#333;font-family:Arial, sans-serif;margin:0 auto">x</p>',
    '<h1>T</h1><ul><li>a</li></ul><blockquote><em>q</em></blockquote><br /><hr />',
    '1 &lt; 2 &amp; 3',
  ])('%s', (html) => {
    expect(sanitiseReplyHtml(html)).toBe(html);
  });
});

// They came out as text: a reader saw the source of the page.
describe('a tag that is not for mail goes, and what it holds stays', () => {
  test.each([
    ['<details open><summary>A</summary>B <b>c</b></details>', '<div><div>A</div>B <b>c</b></div>'],
    ['<p><label for="x">A</label> <button type="button">B</button></p>', '<p>A B</p>'],
    [
      '<picture><source srcset="x.webp"><img src="https://x.example/a.png"></picture>',
      '<img src="https://x.example/a.png" />',
    ],
    ['<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby>', '漢(kan)'],
    [
      '<hgroup><h1>T</h1></hgroup><search>s</search><data value="1">one</data>',
      '<div><h1>T</h1></div><div>s</div>one',
    ],
    ['<my-card><o:p>x</o:p></my-card>', 'x'],
    ['<video src="x">No video</video>', 'No video'],
  ])('%s', (html, expected) => {
    expect(sanitiseReplyHtml(html)).toBe(expected);
  });
});

describe('what is no tag is text', () => {
  test.each([
    ['<p>Ann <ann.o-neil@x.example> wrote:</p>', '<p>Ann &lt;ann.o-neil@x.example&gt; wrote:</p>'],
    [
      'See <https://x.example/a?b=1> or <mailto:a@x.example>',
      'See &lt;https://x.example/a?b=1&gt; or &lt;mailto:a@x.example&gt;',
    ],
    ['<i title="<ann@x.example>">a < b, 1 <2</i>', '<i title="&lt;ann@x.example&gt;">a &lt; b, 1 &lt;2</i>'],
  ])('%s', (html, expected) => {
    expect(sanitiseReplyHtml(html)).toBe(expected);
  });
});

test('too much is refused, not cut', () => {
  for (const html of ['x'.repeat(6 * 1024 * 1024), '<b>'.repeat(60_000)]) {
    expect(() => sanitiseReplyHtml(html)).toThrow(expect.objectContaining({ code: 'mail.html_too_large' }));
  }
});

test('an image in the HTML counts for nothing, and goes', () => {
  const image = `<img alt="Logo" src="data:image/png;base64,${'A'.repeat(6 * 1024 * 1024)}">`;
  const html = sanitiseReplyHtml(`${image}<p>Hi</p>`);
  expect(html).toMatch(/^<img alt="Logo"[^>]*><p>Hi<\/p>$/);
  expect(html).not.toContain('AAAA');
});

test('whatever goes in, no active tag or attribute comes out', () => {
  const pieces =
    `<|>|"|'|=| |/|-->|<!--|<![CDATA[|]]>|&lt;|&#x3c;|\0|<p title="|<p |<svg>|<math>|<mtext>|<style>|</style>|<title>` +
    '|</title>|<noscript>|<textarea>|<xmp>|<img src=x onerror=1>|<script>|javascript:|href=|style=|url(|<table>' +
    '|<a |<plaintext>|<meta ';
  const piece = fc.constantFrom(...pieces.split('|'));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 25 }), (some) => {
      const out = sanitiseReplyHtml(some.join(''));
      // In what comes out, every `<` opens a tag and attributes are quoted.
      for (const [, name, attributes = ''] of out.matchAll(/<\/?([^\s>]*)([^>]*)>?/g)) {
        expect(['p', 'table', 'a', 'img']).toContain(name);
        expect(attributes.replaceAll(/"[^"]*"/g, '""')).toMatch(
          /^(?: (?:title|href|src|style)="")*(?: \/)?$/,
        );
        expect(attributes).not.toMatch(/(?:href|src)="\s*javascript|style="[^"]*url\(/i);
      }
    }),
    { numRuns: 2000 },
  );
});

test('escaped text is the text again, and ends neither an element nor an attribute', () => {
  const entities: Record<string, string> = {
    '&lt;': '<',
    '&gt;': '>',
    '&amp;': '&',
    '&quot;': '"',
    '&#39;': "'",
  };
  fc.assert(
    fc.property(fc.string(), (text) => {
      const escaped = escapeHtml(text);
      expect(escaped).not.toMatch(/[<>"']/);
      expect(escaped.replaceAll(/&[^;]+;/g, (entity) => entities[entity] ?? '?')).toBe(text);
    }),
  );
});
