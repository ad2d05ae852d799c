import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isOwnAddress } from '../../src/mail/address.ts';
import type { ParsedEmail, ProviderRequest } from '../../src/mail/email.ts';
import { providerRequestSchema } from '../../src/mail/email.ts';
import { noReplyReason } from '../../src/mail/guard.ts';
import { parseMessage } from '../../src/mail/message.ts';
import { composeReply } from '../../src/mail/reply.ts';
import type { MailContent } from '../../src/mail/content.ts';
import type { ComposedReply } from '../../src/mail/reply.ts';
import { hasCode } from '../../src/platform/errors.ts';
import { DOMAINS, emailOf, hostileEmail, hostileText } from './email.fixture.ts';

const inbox = { inbox: 'reverser', inboxAddress: 'reverser+x@agent.example', domains: DOMAINS };

function compose(email: ParsedEmail, reply: MailContent): ComposedReply {
  return composeReply({ ...inbox, email, reply });
}

async function requestFor(reply: MailContent, fields: string[] = []): Promise<ProviderRequest> {
  const { request } = compose(await emailOf(fields), reply);
  if (request === null) throw new Error('there is no request');
  return request;
}

const file = { filename: 'a.txt', contentBase64: 'YQ==' };

function megabytes(count: number): string {
  return 'YWFh'.repeat((count * 1_000_000) / 4);
}

async function filenameOf(filename: string | null | undefined): Promise<string | undefined> {
  const request = await requestFor({ attachments: [{ ...file, filename }] });
  return request.attachments?.[0]?.filename;
}

describe('a reply', () => {
  test('is one complete request', async () => {
    const fields = ['Subject: AW: Hello', 'References: <m0@x.example>', 'To: a@agent.example, b@x.example'];
    expect(await requestFor({ text: 'olleH' }, fields)).toEqual({
      from: 'reverser+x@agent.example',
      to: 'ann@sender.example',
      subject: 'Re: Hello',
      text: 'olleH',
      headers: {
        'In-Reply-To': '<m1@sender.example>',
        References: '<m0@x.example> <m1@sender.example>',
        'Auto-Submitted': 'auto-replied',
        'X-Auto-Response-Suppress': 'All',
        'X-Millrace': 'reverser',
      },
    });
  });

  test('that quotes a document has a text of answer and quotation', async () => {
    const original = '<html><head><title>T</title></head><body>old</body></html>';
    const { text } = await requestFor({ html: `<p>My answer</p><blockquote>${original}</blockquote>` });
    expect(text).toBe('My answer\n\n> old');
  });

  test('is never answered by another of us, even where its sender is not known as one', async () => {
    const { headers } = await requestFor({ text: 'x' });
    const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
    const own = { domains: ['other.example'], address: 'y@other.example' };
    expect(noReplyReason(await emailOf(fields), own)).toBe('own-marker');
    const withoutMarker = fields.filter((field) => !field.startsWith('X-Millrace'));
    expect(noReplyReason(await emailOf(withoutMarker), own)).toBe('auto-submitted');
  });

  test('to an email without a usable Message-ID has no threading headers', async () => {
    const { headers } = await requestFor({ text: 'x' }, ['Message-ID: <a b@x.example>']);
    expect(Object.keys(headers)).toEqual(['Auto-Submitted', 'X-Auto-Response-Suppress', 'X-Millrace']);
  });

  test('of an inbox with letters outside ASCII is marked in ASCII', async () => {
    const options = { ...inbox, inbox: 'büro', email: await emailOf(), reply: { text: 'x' } };
    expect(composeReply(options).request?.headers['X-Millrace']).toBe('b%C3%BCro');
  });

  test.each([
    [['From:']],
    [['From: ann@sender.example, bob@x.example']],
    [['From: other@agent.example', 'Reply-To: third@agent.example']],
  ])('goes to nobody rather than to anybody: %j', async (fields) => {
    expect(compose(await emailOf(fields), { text: 'x' })).toEqual({ request: null, skipped: 'no-recipient' });
  });

  test('never goes to the inbox itself, also where its domain is not listed', async () => {
    const email = await emailOf(['From: a@elsewhere.example']);
    const options = { ...inbox, inboxAddress: 'b@elsewhere.example', email, reply: { text: 'x' } };
    expect(composeReply(options).skipped).toBe('no-recipient');
  });
});

describe('the body', () => {
  test.each([
    [{}],
    [{ text: '' }],
    [{ text: ' \n' }],
    [{ text: null, html: undefined }],
    [{ html: ' ', attachments: [] }],
  ])('of %j is nothing to send', async (reply) => {
    expect(compose(await emailOf(), reply)).toEqual({ request: null, skipped: 'empty-reply' });
  });

  test.each([
    [{ html: '<p>Hi <b>Ann</b></p>' }, 'Hi Ann'],
    [{ html: '<p>Hi</p>', text: '' }, 'Hi'],
    [{ html: '<p>Hi</p>', text: 'Plain' }, 'Plain'],
    [{ html: '<img src="https://x.example/a.png">' }, 'This message is in HTML.'],
    [{ attachments: [file, { ...file, filename: 'b.txt' }] }, 'a.txt\nb.txt'],
    [{ text: 'a\r\nb\rc\0d' }, 'a\nb\ncd'],
    [{ text: 'half \ud83d' }, 'half \ufffd'],
    [{ text: 'undefined' }, 'undefined'],
  ])('of %j has the text %j', async (reply, text) => {
    expect((await requestFor(reply)).text).toBe(text);
  });

  test('has no HTML where the tool gave none, and none that runs where it did', async () => {
    expect(await requestFor({ text: 'x' })).not.toHaveProperty('html');
    const { html } = await requestFor({ html: '<p onclick="x()">Hi<script>x()</script></p>' });
    expect(html).not.toMatch(/<script|onclick/);
  });
});

describe('what a tool puts into headers', () => {
  test.each([
    ['Status\r\nBcc: x@y.example', 'Status Bcc: x@y.example'],
    ['a\0b\nc\u2028d\u2029e', 'a b c d e'],
    ['Weekly report', 'Weekly report'],
    ['Re: Re: as I like it', 'Re: Re: as I like it'],
    ['', 'Re: Hello'],
    [' \n', 'Re: Hello'],
    [null, 'Re: Hello'],
    [undefined, 'Re: Hello'],
  ])('the subject %j becomes %j', async (subject, expected) => {
    expect((await requestFor({ text: 'x', subject })).subject).toBe(expected);
  });

  test.each([
    ['report.pdf', 'report.pdf'],
    ['../../etc/passwd', '.._.._etc_passwd'],
    ['C:\\Users\\x', 'C:_Users_x'],
    ['a\r\nContent-Type: text.html', 'a Content-Type: text.html'],
    ['a\0b.txt', 'a b.txt'],
    ['fdp.\u202etxt.exe', 'fdp. txt.exe'],
    ['a\ud800.txt', 'a\ufffd.txt'],
    ['日本語.txt', '日本語.txt'],
    ['..', 'attachment-1'],
    ['/', 'attachment-1'],
    ['', 'attachment-1'],
    [' ', 'attachment-1'],
    [null, 'attachment-1'],
    [undefined, 'attachment-1'],
  ])('the file name %j becomes %j', async (filename, expected) => {
    expect(await filenameOf(filename)).toBe(expected);
  });

  test('a long file name keeps its extension and whole characters', async () => {
    expect(await filenameOf(`${'x'.repeat(300)}.pdf`)).toBe(`${'x'.repeat(251)}.pdf`);
    expect(await filenameOf(`${'日'.repeat(300)}.pdf`)).toBe(`${'日'.repeat(83)}.pdf`);
    expect(await filenameOf(`${'日'.repeat(90)}.${'日'.repeat(16)}`)).toBe(
      `${'日'.repeat(68)}.${'日'.repeat(16)}`,
    );
  });

  test.each([
    ['image/png', 'image/png'],
    ['Text/Plain; charset=utf-8', 'text/plain;charset=utf-8'],
    ['', undefined],
    [null, undefined],
  ])('the content type %j becomes %j', async (contentType, expected) => {
    const { attachments } = await requestFor({ attachments: [{ ...file, contentType }] });
    expect(attachments?.[0]?.contentType).toBe(expected);
  });
});

describe('what cannot be sent is refused', () => {
  test.each<[string, MailContent]>([
    ['reply.invalid_attachment', { attachments: [{ ...file, contentBase64: 'no base64!' }] }],
    ['reply.invalid_attachment', { attachments: [{ ...file, contentBase64: 'YQ=' }] }],
    ['reply.invalid_attachment', { attachments: [{ ...file, contentBase64: 'Y=Q=' }] }],
    ['reply.invalid_attachment', { attachments: [{ ...file, contentBase64: 'YQ\n=' }] }],
    ['reply.invalid_attachment', { attachments: [{ ...file, contentType: 'text' }] }],
    ['reply.invalid_attachment', { attachments: [{ ...file, contentType: 'text/plain\r\nX-Evil: 1' }] }],
    ['reply.invalid_attachment', { attachments: [{ ...file, contentType: 'text/plain;a="\u0085"' }] }],
    ['reply.invalid_attachment', { attachments: [{ ...file, contentType: `text/${'x'.repeat(300)}` }] }],
    ['reply.too_many_attachments', { attachments: Array.from({ length: 101 }, () => file) }],
  ])('%s: %j', async (code, reply) => {
    await expect(requestFor(reply)).rejects.toSatisfy(
      (error) => hasCode(error, code) && error.kind === 'permanent',
    );
  });

  test('a reply of more than 40 MB, counted as it is sent', async () => {
    const tooLarge = {
      attachments: [
        { ...file, contentBase64: megabytes(20) },
        { ...file, contentBase64: megabytes(20) },
      ],
    };
    await expect(requestFor(tooLarge)).rejects.toSatisfy((error) => hasCode(error, 'reply.too_large'));
    const { attachments } = await requestFor({ attachments: [{ ...file, contentBase64: megabytes(38) }] });
    expect(attachments?.[0]?.content).toHaveLength(38_000_000);
    await expect(requestFor({ text: 'x'.repeat(31_000_000) })).rejects.toSatisfy((error) =>
      hasCode(error, 'reply.too_large'),
    );
  });

  test('an inbox without an address', async () => {
    const options = { ...inbox, inboxAddress: 'no address', email: await emailOf(), reply: { text: 'x' } };
    expect(() => composeReply(options)).toThrow(expect.objectContaining({ code: 'reply.invalid_address' }));
  });
});

const hostileReply: fc.Arbitrary<MailContent> = fc.record(
  {
    text: fc.option(hostileText),
    html: fc.option(hostileText),
    subject: fc.option(hostileText),
    attachments: fc.array(fc.record({ filename: hostileText, contentBase64: fc.base64String() }), {
      maxLength: 3,
    }),
  },
  { requiredKeys: [] },
);

// oxlint-disable-next-line no-control-regex
const LINE_BREAKING = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;

function isSafe({ request }: ComposedReply): boolean {
  if (request === null) return true;
  const names = (request.attachments ?? []).map(({ filename }) => filename);
  const to = [request.to].flat();
  const onOneLine = [request.from, ...to, request.subject, ...names].concat(
    Object.entries(request.headers).flat(),
  );
  return (
    onOneLine.every((value) => value !== '' && !LINE_BREAKING.test(value) && value.isWellFormed()) &&
    Object.values(request.headers).every((value) => /^[\x20-\x7e]+$/.test(value)) &&
    names.every((name) => !/[/\\\u202e]/.test(name) && Buffer.byteLength(name) <= 255) &&
    !to.some((address) => isOwnAddress(address, DOMAINS)) &&
    request.text.trim() !== '' &&
    !request.text.includes('\0') &&
    providerRequestSchema.parse(JSON.parse(JSON.stringify(request).toWellFormed())).text === request.text
  );
}

test('whatever the email and the tool hold: headers on one line, and never to ourselves', () => {
  // Half of the emails have a sender, so that there is a request to look at.
  const email = fc
    .tuple(hostileEmail, fc.boolean())
    .map(([hostile, isKnown]) =>
      isKnown ? { ...hostile, headers: [], from: { name: '', address: 'ann@sender.example' } } : hostile,
    );
  let composed = 0;
  const property = fc.property(email, hostileReply, (hostile, reply) => {
    const result = compose(hostile, reply);
    if (result.request !== null) composed += 1;
    return isSafe(result);
  });
  expect(() => fc.assert(property, { numRuns: 500 })).not.toThrow();
  expect(composed).toBeGreaterThan(100);
});

test('an echo of a raw message cannot add a header of its own', async () => {
  const raw =
    'From: ann@sender.example\r\nSubject: =?utf-8?q?a=0D=0ABcc:_x@y.example=0D=0A?=\r\n\r\nHi\r\n.\r\n';
  const email = await parseMessage(Buffer.from(raw));
  const { request } = compose(email, { text: email.text, subject: email.subject });
  expect(request).toMatchObject({ subject: 'a Bcc: x@y.example', text: 'Hi\n.' });
});
