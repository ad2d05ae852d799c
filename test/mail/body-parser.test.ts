/** What is the body of a message, and what its bytes say: of mail as careless programs write it. */
import { describe, expect, test } from 'vitest';
import { attachmentBytes, parseMessage } from '../../src/mail/message.ts';

/** Lines with CRLF, each character of which is a byte. */
function bytes(...lines: string[]): Buffer {
  return Buffer.from(lines.join('\r\n'), 'latin1');
}

/** A multipart/mixed message of these parts. */
function mixed(...parts: readonly (readonly [type: string, body: string])[]): Buffer {
  const inside = parts.flatMap(([type, body]) => ['--b', `Content-Type: ${type}`, '', body]);
  return bytes('Content-Type: multipart/mixed; boundary=b', '', ...inside, '--b--');
}

describe('parts of text and of HTML that are no alternatives', () => {
  test('are both text and HTML, in their order', async () => {
    const parts = [
      ['text/plain', 'a < b'],
      ['text/html', '<b>one</b>'],
      ['text/html', '<i>two</i>'],
      ['text/plain', 'end'],
    ] as const;
    const { text, html } = await parseMessage(mixed(...parts));
    expect(text.replaceAll(/\s+/g, ' ')).toBe('a < b one two end');
    expect(html?.replaceAll('\n', '')).toBe(
      '<div>a &lt; b</div><b>one</b><i>two</i><div>end</div>'.replaceAll('\n', ''),
    );
  });

  test('are all read where one is a document of its own', async () => {
    const document = '<html><head><title>Legal</title></head><body>Disclaimer</body></html>';
    const { text } = await parseMessage(mixed(['text/html', '<p>Hello</p>'], ['text/html', document]));
    expect(text).toBe('Hello\n\nDisclaimer');
  });

  test('in any number keep all their plain text', async () => {
    const parts = Array.from({ length: 40 }, (_, n): [string, string][] => [
      ['text/plain', `plain ${n}`],
      ['text/html', `<p>html ${n}</p>`],
    ]).flat();
    const { text, html } = await parseMessage(mixed(...parts));
    for (let n = 0; n < 40; n += 1) expect(text).toContain(`plain ${n}`);
    expect(text).toContain('html 9');
    expect(text).not.toContain('html 10');
    expect(html).toContain('html 39');
  });
});

describe('a named part of text', () => {
  const body = ['text/plain', 'See the notes.'] as const;

  test.each([
    ['text/plain; name=notes.txt', 'text/plain'],
    ['text/html; name="notes.txt"', 'text/html'],
    ['text/plain\r\nContent-Disposition: inline; filename=notes.txt', 'text/plain'],
  ])('after others is a file: %j', async (type, contentType) => {
    const message = mixed(body, [type, 'a note'], ['text/plain', 'Bye']);
    const { text, html, attachments } = await parseMessage(message);
    expect({ text, html }).toEqual({ text: 'See the notes.\n\nBye', html: null });
    expect(attachments).toMatchObject([{ filename: 'notes.txt', contentType }]);
    expect(
      Buffer.from(await attachmentBytes(message, 0))
        .toString()
        .trim(),
    ).toBe('a note');
  });

  test('after others is a file within multiparts, too', async () => {
    const inner = ['--c', 'Content-Type: text/plain; name=1.txt', '', '1', '--c', '', 'text', '--c--'];
    const message = mixed(body, ['multipart/mixed; boundary=c', `\r\n${inner.join('\r\n')}`]);
    const { text, attachments } = await parseMessage(message);
    expect(text).toBe('See the notes.\n\ntext');
    expect(attachments).toMatchObject([{ filename: '1.txt' }]);
  });

  test.each([
    ['first', ['text/plain; name=mail.txt', 'Hello'], 'Hello', null],
    [
      'an alternative',
      ['multipart/alternative; boundary=c', alternatives('text/html; name=mail.html', '<p>Hello</p>')],
      'plain',
      '<p>Hello</p>',
    ],
    [
      'at the head of an alternative',
      [
        'multipart/alternative; boundary=c',
        alternatives(
          'multipart/related; boundary=d',
          '--d\r\nContent-Type: text/html; name=mail.html\r\n\r\n<p>Hello</p>\r\n--d--',
        ),
      ],
      'plain',
      '<p>Hello</p>',
    ],
  ] as const)('is the body where it is %s', async (_, part, text, html) => {
    const email = await parseMessage(mixed(part, ['image/png; name=a.png', 'png']));
    expect(email).toMatchObject({ text, attachments: [{ filename: 'a.png' }] });
    expect(email.html?.trim() ?? null).toBe(html);
  });
});

/** The inside of a multipart/alternative of plain text and this. */
function alternatives(type: string, body: string): string {
  return ['', '--c', '', 'plain', '--c', `Content-Type: ${type}`, '', body, '--c--'].join('\r\n');
}

describe('the only part of a message', () => {
  test.each([
    'text',
    'text/',
    'plain text',
    '',
    'text/markdown',
    'text/enriched',
    'TEXT/X-Log; charset=utf-8',
  ])('of type %j is its text', async (type) => {
    const email = await parseMessage(bytes(`Content-Type: ${type}`, '', 'Hello'));
    expect(email).toMatchObject({ text: 'Hello', attachments: [] });
  });

  test.each([
    ['Content-Type: text/csv; name=a.csv', 'text/csv'],
    ['Content-Type: text/csv\r\nContent-Disposition: attachment', 'text/csv'],
    ['Content-Type: text\r\nContent-Disposition: inline; filename=a', 'application/octet-stream'],
    ['Content-Type: application/pdf', 'application/pdf'],
  ])('is a file where it says so: %j', async (head, contentType) => {
    const email = await parseMessage(bytes(head, '', 'Hello'));
    expect(email).toMatchObject({ text: '', attachments: [{ contentType }] });
  });
});

describe('bytes of text', () => {
  test.each([
    ['', 'h\xe9', 'hé'],
    ['', 'h\xc3\xa9', 'hé'],
    ['us-ascii', 'h\xc3\xa9', 'hé'],
    ['us-ascii', '\x93h\xe9\x94', '“hé”'],
    ['unknown-8bit', 'h\xc3\xa9', 'hé'],
    ['unknown-8bit', 'h\xe9', 'hé'],
    ['iso-8859-1', 'h\xc3\xa9', 'hÃ©'],
    ['utf-8', 'h\xe9', 'h\ufffd'],
    ['iso-8859-1', '\xef\xbb\xbfh\xc3\xa9', 'hé'],
    ['cp932', '\x82\xb1', 'こ'],
    ['iso-2022-jp-2', '\x1b$B$3$s\x1b(B', 'こん'],
  ])('said to be %j: %j', async (charset, body, text) => {
    const type = `Content-Type: text/plain${charset === '' ? '' : `; charset=${charset}`}`;
    expect((await parseMessage(bytes(type, '', body))).text).toBe(text);
    const html = await parseMessage(bytes(type.replace('plain', 'html'), '', body));
    expect(html.text).toBe(text);
  });

  test.each(['utf-16', 'utf-16le', 'utf-8'])('of %s with a mark are what the mark says', async (charset) => {
    const head = [`Content-Type: text/plain; charset=${charset}`, 'Content-Transfer-Encoding: base64', ''];
    const little = Buffer.from('\ufeffhé', 'utf16le');
    for (const body of [little, Buffer.from(little).swap16()])
      expect((await parseMessage(bytes(...head, body.toString('base64')))).text).toBe('hé');
  });

  test('of a body that is not MIME after all are read by the same rule', async () => {
    expect((await parseMessage(bytes('Content-Type: multipart/mixed', '', 'h\xe9'))).text).toBe('hé');
  });
});

describe('flowed text', () => {
  const read = async (body: string, parameter = ''): Promise<string> =>
    (await parseMessage(bytes(`Content-Type: text/plain; format=flowed${parameter}`, '', body))).text;

  test.each([
    ['one \ntwo \nthree', 'one two three'],
    ['one\ntwo', 'one\ntwo'],
    ['> Which day is good for \nFriday.', '> Which day is good for \nFriday.'],
    ['Friday. \n> Which day?', 'Friday. \n> Which day?'],
    ['> one \n> two\n>> deep \n>>er', '> one two\n>> deep er'],
    ['Hi \n-- \nAnn \nBob', 'Hi \n-- \nAnn Bob'],
    ['> Hi \n> -- \n> Ann', '> Hi \n> -- \n> Ann'],
    [' > no quote\n  indented', '> no quote\n indented'],
    ['one \n \ntwo', 'one \ntwo'],
    ['> one\n>\n> two', '> one\n>\n> two'],
  ])('%j', async (body, text) => {
    expect(await read(body)).toBe(text);
  });

  test('loses the space at its breaks where that is none of its own', async () => {
    expect(await read('wo \nrd\n> qu \n> ote', '; delsp=yes')).toBe('word\n> quote');
  });

  test('leaves the answer to a quotation whose last line is open', async () => {
    const body = 'On Monday Bob <bob@x.example> wrote:\n> Which day is good for \nFriday.';
    const { newText } = await parseMessage(bytes('Content-Type: text/plain; format=flowed', '', body));
    expect(newText).toContain('Friday.');
  });
});
