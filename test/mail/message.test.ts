/** What stands in the fields of a parsed email: one test a promise, on mail written for it. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parsedEmailSchema } from '../../src/mail/email.ts';
import { decodeHeaderValue } from '../../src/mail/header-field.ts';
import { attachmentBytes, parseMessage } from '../../src/mail/message.ts';

/** A message with CRLF line ends of these lines, each character of which is a byte. */
function raw(...lines: string[]): Uint8Array {
  return Buffer.from(lines.join('\r\n'), 'latin1');
}

/** The same line many times over. */
function times(count: number, line: string): string {
  return Array.from({ length: count }, () => line).join('\r\n');
}

function part(headers: string[], ...body: string[]): string[] {
  return ['--b', ...headers, '', ...body];
}

const MIXED = 'Content-Type: multipart/mixed; boundary=b';

describe('text', () => {
  test('comes from the plain part, with LF and without blank lines around it', async () => {
    const email = await parseMessage(raw('From: a@b.example', '', '', 'Hello', 'there', '', ''));
    expect(email).toMatchObject({ text: 'Hello\nthere', newText: 'Hello\nthere', html: null });
  });

  test('comes from the HTML where there is no plain part, or an empty one', async () => {
    const html = part(['Content-Type: text/html'], '<p>Hello <b>you</b></p>');
    const alternative = 'Content-Type: multipart/alternative; boundary=b';
    const only = await parseMessage(raw('Content-Type: text/html', '', '<p>Hello <b>you</b></p>'));
    const beside = await parseMessage(raw(alternative, '', ...part([], ''), ...html, '--b--'));
    expect([only.text, beside.text]).toEqual(['Hello you', 'Hello you']);
    expect(beside.html).toContain('<b>you</b>');
  });

  test.each([
    ['an empty message', ''],
    ['only headers', 'Subject: x\r\n'],
    ['an empty body', 'Subject: x\r\n\r\n'],
  ])('of %s is empty', async (_, message) => {
    expect(await parseMessage(raw(message))).toMatchObject({
      text: '',
      newText: '',
      html: null,
      attachments: [],
    });
  });

  test.each([
    ['iso-2022-jp', '\x1b$B$3$s\x1b(B', 'こん'],
    ['gb18030', '\xc4\xe3\xba\xc3', '你好'],
    ['utf-8', '\xef\xbb\xbfh\xc3\xa9', 'hé'],
    ['utf-8', 'a\xff\xc3', 'a\ufffd\ufffd'],
    ['no-such-charset', 'h\xe9', 'hé'],
    ['us-ascii', 'a\0b', 'ab'],
  ])('in %s is decoded (%#)', async (charset, body, text) => {
    const email = await parseMessage(raw(`Content-Type: text/plain; charset=${charset}`, '', body));
    expect(email.text).toBe(text);
  });

  test('in UTF-16 with a lone surrogate is well-formed', async () => {
    const body = Buffer.from('a\ud800b', 'utf16le').toString('base64');
    const headers = ['Content-Type: text/plain; charset=utf-16le', 'Content-Transfer-Encoding: base64'];
    expect((await parseMessage(raw(...headers, '', body))).text).toBe('a\ufffdb');
  });

  test('of a multipart message without a boundary is its body', async () => {
    expect((await parseMessage(raw('Content-Type: multipart/mixed', '', 'Hello'))).text).toBe('Hello');
  });
});

describe('header fields', () => {
  test.each([
    ['=?utf-8?q?caf=C3=A9?=\r\n =?utf-8?b?ICE=?=', 'café !'],
    ['folded\r\n\tover lines', 'folded over lines'],
    ['=?utf-8?q?a=0D=0ABcc:_x@y.example=0A?=', 'a Bcc: x@y.example'],
    ['=?utf-8?q?a=00b=E2=80=A8c?=', 'a b c'],
    ['', ''],
  ])('a subject %j is decoded on one line', async (value, subject) => {
    expect((await parseMessage(raw(`Subject: ${value}`, '', 'x'))).subject).toBe(subject);
  });

  test('are all kept in order, unfolded, as written, and not decoded', async () => {
    const email = await parseMessage(
      raw('X-One: 1', 'x-two: a', '  b', 'X-One: =?utf-8?q?=C3=A9?=', 'no field', 'X\xa0Y: bad', '', 'x'),
    );
    expect(email.headers).toEqual([
      ['X-One', '1'],
      ['x-two', 'a  b'],
      ['X-One', '=?utf-8?q?=C3=A9?='],
    ]);
    expect(decodeHeaderValue(email.headers[2]?.[1] ?? '')).toBe('é');
  });

  test.each([
    ['Subject: h\xe9 \x93x\x94', '', 'hé “x”'],
    ['Subject: h\xe9', '; charset=utf-8', 'hé'],
    ['Subject: h\xe9', '; charset=none-such', 'hé'],
    ['Subject: \xcf\xf0\xe8\xe2\xe5\xf2', ';\r\n charset="windows-1251"', 'Привет'],
    ['Subject: \xb0\xa1', '; charset=euc-kr', '가'],
    ['X-One: \xe9\r\nSubject: h\xc3\xa9', '', 'hé'],
    // The second byte is an ASCII character anywhere else.
    ['Subject: \x83\x40', '; charset=shift_jis', '\ufffd@'],
    ['Subject: \xe9', '; charset=utf-16le', '\ufffd'],
  ])(
    'bytes that are no UTF-8 are read by the charset of the text: %j, %j',
    async (field, charset, subject) => {
      const email = await parseMessage(raw(field, `Content-Type: text/plain${charset}`, '', 'x'));
      expect(email.subject).toBe(subject);
    },
  );

  test.each([
    ['<a@b.example>', '<a@b.example>'],
    [' <a@b.example> ', '<a@b.example>'],
    ['a@b.example', '<a@b.example>'],
    ['<a1@x> (added by postmaster@isp.example)', '<a1@x>'],
    ['(c <x@y.example>) <a@b>', '<a@b>'],
    ['< a@b >', '<a@b>'],
    ['a@b.example (added by <x@y.example>)', '<a@b.example>'],
    ['<a(1)@b>', '<a(1)@b>'],
    ['<a b@c.example>', null],
    ['<a@b> (c', null],
    ['<a@b.example> <c@d.example>', null],
    ['<a\0@b.example>', null],
    [`<${'a'.repeat(1000)}@b.example>`, null],
    ['', null],
  ])('a Message-ID %j', async (value, messageId) => {
    expect((await parseMessage(raw(`Message-ID: ${value}`, '', 'x'))).messageId).toBe(messageId);
  });

  test('references tolerate commas, comments and folds, and name each message once', async () => {
    const value = '<1@x>,<2@x> (sic)\r\n <1@x> junk <3@x> <broken@ x>';
    const email = await parseMessage(raw(`References: ${value}`, 'In-Reply-To: <9@x>', '', 'x'));
    expect(email.references).toEqual(['<1@x>', '<2@x>', '<3@x>']);
  });

  test('without References, an In-Reply-To with one id stands in', async () => {
    const one = await parseMessage(raw('In-Reply-To: <1@x> (of Monday)', '', 'x'));
    const two = await parseMessage(raw('In-Reply-To: <1@x> <2@x>', '', 'x'));
    expect([one.references, two.references]).toEqual([['<1@x>'], []]);
  });

  test('of many references the first and the newest are kept', async () => {
    const ids = Array.from({ length: 500 }, (_, index) => `<${index}@x>`);
    const { references } = await parseMessage(raw(`References: ${ids.join('\r\n ')}`, '', 'x'));
    expect(references).toEqual(['<0@x>', ...ids.slice(-199)]);
  });

  test.each([
    ['Fri, 21 Nov 1997 09:55:06 -0600', '1997-11-21T15:55:06.000Z'],
    ['21 Nov 97 09:55 EST', '1997-11-21T14:55:00.000Z'],
    ['Thu, 01 Jan 1970 00:00:00 +0000', '1970-01-01T00:00:00.000Z'],
    ['1 Jan 2099 00:00:00 GMT (later)', '2099-01-01T00:00:00.000Z'],
    ['1 Jan 2026 00:00:00', '2026-01-01T00:00:00.000Z'],
    ['Sun, 22 Nov 2026 10:00:00 +01:00', '2026-11-22T09:00:00.000Z'],
    ['Sun, 22 Nov 2026 10:00:00 -0530 (IST)', '2026-11-22T15:30:00.000Z'],
    ['22 Nov 2026 10:00:00 +0100 CET', '2026-11-22T09:00:00.000Z'],
    ['22 Nov 2026 10:00:00.250 GMT+0100', '2026-11-22T09:00:00.000Z'],
    ['22 Nov 2026 10:00:00 PM', null],
    ['22 Nov 2026 10:00 pm +0100', null],
    ['22 Nov 2026 10:00:00 +1', null],
    ['22 Nov 2026 10:00:00 Europe/Berlin', null],
    ['garbage 5', null],
    ['31 Feb 2026 00:00:00 +0000', null],
    ['1 Foo 2026 00:00:00 +0000', null],
    ['1 Jan 2026 25:00:00 +0000', null],
    ['', null],
  ])('a Date %j', async (value, date) => {
    expect((await parseMessage(raw(`Date: ${value}`, '', 'x'))).date).toBe(date);
  });
});

describe('addresses', () => {
  test('have decoded names; members of groups stand for themselves', async () => {
    const email = await parseMessage(
      raw(
        'From: =?utf-8?q?Doe=2C_Jane?= <jane@b.example>',
        'To: "Last, First" <x@b.example>, Team: p@b.example, "Q" <q@b.example>;, undisclosed-recipients:;',
        'Cc: nobody, two@three@b.example extra, y@b.example',
        '',
        'x',
      ),
    );
    expect(email.from).toEqual({ name: 'Doe, Jane', address: 'jane@b.example' });
    expect(email.to).toEqual([
      { name: 'Last, First', address: 'x@b.example' },
      { name: '', address: 'p@b.example' },
      { name: 'Q', address: 'q@b.example' },
    ]);
    expect(email.cc).toContainEqual({ name: '', address: 'y@b.example' });
  });

  test.each([
    ['no From', []],
    ['an empty From', ['From: ']],
    ['two From fields', ['From: a@x.example', 'From: b@x.example']],
    ['two addresses', ['From: a@x.example, b@x.example']],
    ['a second address that is none', ['From: a@x.example, b c@x.example']],
  ])('%s gives no author', async (_, headers) => {
    const email = await parseMessage(raw(...headers, '', 'x'));
    expect(email.from).toBeNull();
    expect(email.headers).toHaveLength(headers.length);
  });

  test('an encoded word cannot smuggle an address in', async () => {
    const email = await parseMessage(raw('From: =?utf-8?q?boss=40x=2Eexample?= <evil@y.example>', '', 'x'));
    expect(email.from?.address).toBe('evil@y.example');
  });
});

describe('attachments', () => {
  const listed = [
    part(['Content-Type: application/ms-tnef; name=winmail.dat'], 'tnef'),
    part(['Content-Type: text/calendar; method=REQUEST'], 'BEGIN:VCALENDAR'),
    part(['Content-Type: application/pkcs7-signature; name=smime.p7s'], 'sig'),
    part(['Content-Type: application/pgp-encrypted'], 'Version: 1'),
    part(['Content-Type: message/rfc822'], 'Subject: inner', '', 'inner text'),
    part(
      [
        'Content-Type: IMAGE/PNG',
        'Content-ID: <img1>',
        'Content-Disposition: inline',
        'Content-Transfer-Encoding: base64',
      ],
      'AAEC/w==',
    ),
  ];
  const message = raw(MIXED, '', ...part([], 'outer text'), ...listed.flat(), '--b--');

  test('are all that is not text, attached messages included', async () => {
    const email = await parseMessage(message);
    expect(email.text).toBe('outer text');
    expect(email.attachments.map((attachment) => [attachment.contentType, attachment.filename])).toEqual([
      ['application/ms-tnef', 'winmail.dat'],
      ['text/calendar', null],
      ['application/pkcs7-signature', 'smime.p7s'],
      ['application/pgp-encrypted', null],
      ['message/rfc822', null],
      ['image/png', null],
    ]);
    expect(email.attachments[5]).toMatchObject({
      index: 5,
      disposition: 'inline',
      contentId: 'img1',
      size: 4,
    });
  });

  test('give their decoded bytes by index', async () => {
    expect([...(await attachmentBytes(message, 5))]).toEqual([0, 1, 2, 255]);
    expect(Buffer.from(await attachmentBytes(message, 4)).toString()).toContain('inner text');
    await expect(attachmentBytes(message, 6)).rejects.toMatchObject({ code: 'mail.no_such_attachment' });
  });

  test.each([
    ['../../etc/passwd', 'passwd'],
    ['C:\\Users\\me\\a.txt', 'a.txt'],
    ['a/..', null],
    ['..', null],
    ['a\0b.txt', 'a b.txt'],
    ['=?utf-8?q?txt=E2=80=AEexe.a?=', 'txtexe.a'],
    [`${'x'.repeat(300)}.pdf`, `${'x'.repeat(251)}.pdf`],
  ])('a file name %j is no path', async (filename, expected) => {
    const quoted = filename.replaceAll('\\', '\\\\');
    const email = await parseMessage(
      raw(MIXED, '', ...part([`Content-Disposition: attachment; filename="${quoted}"`], 'x'), '--b--'),
    );
    expect(email.attachments[0]?.filename).toBe(expected);
  });

  test('duplicates keep their names, empty ones are listed, and 200 are the most', async () => {
    const parts = Array.from({ length: 300 }, () =>
      part(['Content-Disposition: attachment; filename=a'], ''),
    );
    const email = await parseMessage(raw(MIXED, '', ...parts.flat(), '--b--'));
    expect(email.attachments).toHaveLength(200);
    expect(new Set(email.attachments.map(({ filename }) => filename))).toEqual(new Set(['a']));
  });
});

describe('beyond the limits', { timeout: 60_000 }, () => {
  const nested = (depth: number): string[] =>
    Array.from({ length: depth }, (_, level) => [
      `Content-Type: multipart/mixed; boundary=b${level}`,
      '',
      `--b${level}`,
    ]).flat();

  test.each([
    ['1000 levels', raw('Subject: deep', ...nested(1000), '', 'x')],
    ['1,000,000 header bytes in one field', raw('Subject: deep', `X: ${'a'.repeat(2_000_000)}`, '', 'x')],
    ['200,000 lines', raw('Subject: deep', '', times(200_000, 'a'))],
    ['20,000 parts', raw('Subject: deep', MIXED, '', times(20_000, '--b\r\n\r\na'))],
  ])('a message of %s is carried whole', async (_, message) => {
    const email = await parseMessage(message);
    expect(email.subject).toBe('deep');
    expect(email.attachments).toMatchObject([{ contentType: 'message/rfc822', size: message.length }]);
    expect(Buffer.compare(await attachmentBytes(message, 0), message)).toBe(0);
  });

  test('a text that begins with four million blank lines is read', async () => {
    const text = `${'\n'.repeat(4_000_000)}${' \t\n'.repeat(1_000_000)}  Hello\n\nthere\n \n`;
    const base64 = Buffer.from(text).toString('base64');
    const email = await parseMessage(raw('Content-Transfer-Encoding: base64', '', base64));
    expect(email.text).toBe('  Hello\n\nthere');
  });

  test('the text of a long message is read as far as the limit', async () => {
    const email = await parseMessage(
      raw('', Array.from({ length: 200_000 }, (_, line) => line).join('\r\n')),
    );
    expect(email.text.startsWith('0\n1\n2\n')).toBe(true);
  });

  test('of too many header fields those that decide are kept', async () => {
    const noise = Array.from({ length: 40_000 }, (_, index) => `X-${index}: a`);
    const email = await parseMessage(
      raw(...noise, 'From: a@b.example', 'Auto-Submitted: auto-replied', '', 'x'),
    );
    expect(email.headers).toHaveLength(1002);
    expect(email.headers.at(-1)).toEqual(['Auto-Submitted', 'auto-replied']);
    expect(email.from?.address).toBe('a@b.example');
  });

  test('of too many addresses the first 1000 are kept', async () => {
    const list = Array.from({ length: 5000 }, (_, index) => `a${index}@b.example`).join(',\r\n ');
    expect((await parseMessage(raw(`To: ${list}`, '', 'x'))).to).toHaveLength(1000);
  });

  test('a message of 25 MB is parsed', async () => {
    const base64 = `${'QUJD'.repeat(19)}\r\n`.repeat(320_000);
    const headers = ['Content-Type: application/pdf', 'Content-Transfer-Encoding: base64'];
    const message = raw(MIXED, '', ...part([], 'see below'), ...part(headers, base64), '--b--');
    const email = await parseMessage(message);
    expect(email.text).toBe('see below');
    expect(email.attachments).toMatchObject([{ contentType: 'application/pdf', size: 57 * 320_000 }]);
  });

  test('HTML of a million open tags is turned into text', async () => {
    const email = await parseMessage(
      raw('Content-Type: text/html', '', `<p>first</p>${'<b>'.repeat(1_000_000)}`),
    );
    expect(email.text).toBe('first');
  });
});

test('whatever the bytes, the result fits the schema and survives JSON', async () => {
  const lines =
    'From: a@b|To: <<<>|Subject: =?utf-8?b?////?=|Content-Type: multipart/mixed; boundary="b"|--b|--b--|Date: 99||\0|' +
    'Content-Type: text/html|Content-Transfer-Encoding: base64|\xff\xfe|<b>=ED=A0=80|Message-ID: <| folded|' +
    'Content-Transfer-Encoding: quoted-printable|Content-Type: message/rfc822';
  const line = fc.constantFrom(...lines.split('|'));
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.array(line, { maxLength: 30 }).map((some) => new Uint8Array(raw(...some))),
  );
  await fc.assert(
    fc.asyncProperty(bytes, async (message) => {
      const email = await parseMessage(message);
      expect(parsedEmailSchema.parse(JSON.parse(JSON.stringify(email)))).toEqual(email);
      expect(JSON.stringify(email).isWellFormed()).toBe(true);
      expect(JSON.stringify({ ...email, text: '', html: '', newText: '' })).not.toMatch(/\\u00[01]|\\[nrt]/);
    }),
    { numRuns: 500 },
  );
});
