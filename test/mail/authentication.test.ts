/**
 * Who wrote a mail, by signatures that the tests make themselves: with real keys, and DNS records as they would be
 * published.
 */
import { describe, expect, it } from 'vitest';
import { authenticate, recordNames } from '../../src/mail/authentication.ts';
import type { Authentication, TextRecords } from '../../src/mail/authentication.ts';
import { parseMessage } from '../../src/mail/message.ts';
import { corpusFiles } from './corpus.ts';
import { KEY_RECORD, signedMail } from './signed-mail.ts';
import type { Signing } from './signed-mail.ts';

const RECEIVED_MS = Date.parse('2026-01-02T10:00:00Z');
const FROM = 'From: Ann <ann@sender.example>';
const HEAD = ['To: desk@agent.example', 'Subject: hi', 'Date: Sun, 22 Nov 2026 09:00:00 +0000'];

function message(head: readonly string[], body = 'Hello\r\n'): string {
  return `${head.join('\r\n')}\r\n\r\n${body}`;
}

function signed(text: string, signing: Partial<Signing> = {}): Promise<string> {
  const signedAt = new Date(RECEIVED_MS - 3_600_000);
  return signedMail(text, { domain: 'sender.example', signedAt, ...signing });
}

async function verdictOf(text: string, records: Record<string, TextRecords> = {}): Promise<Authentication> {
  const raw = Buffer.from(text);
  const email = await parseMessage(raw);
  const published: Record<string, TextRecords> = {
    's1._domainkey.sender.example': [KEY_RECORD],
    's1._domainkey.other.example': [KEY_RECORD],
    's1._domainkey.mail.sender.example': [KEY_RECORD],
    ...records,
  };
  const names = recordNames(email);
  const asked = Object.fromEntries(
    names.flatMap((name) => (published[name] ? [[name, published[name]]] : [])),
  );
  return authenticate({ raw, fields: { headers: email.headers }, records: asked, receivedMs: RECEIVED_MS });
}

/** A field, and more lines behind it than are kept of a header. */
function flooded(field: string): string {
  return `${field}\r\n${'Autocrypt: x\r\n'.repeat(2100)}`;
}

describe('an author is proven', () => {
  it('by a signature of the domain of From', async () => {
    expect(await verdictOf(await signed(message([FROM, ...HEAD])))).toEqual({
      result: 'pass',
      domain: 'sender.example',
      reason: 'signed by sender.example',
    });
  });

  it('by one of a subdomain, unless the policy of the domain is strict', async () => {
    const mail = await signed(message([FROM, ...HEAD]), { domain: 'mail.sender.example' });
    const relaxed = await verdictOf(mail, { '_dmarc.sender.example': ['v=DMARC1; p=reject'] });
    const strict = await verdictOf(mail, { '_dmarc.sender.example': ['v=DMARC1; p=reject; adkim=s'] });
    expect([relaxed.result, strict.result]).toEqual(['pass', 'fail']);
  });

  it('of a domain with letters beyond ASCII', async () => {
    const mail = await signed(message(['From: ann@münchen.example', ...HEAD]), {
      domain: 'xn--mnchen-3ya.example',
    });
    const verdict = await verdictOf(mail, { 's1._domainkey.xn--mnchen-3ya.example': [KEY_RECORD] });
    expect(verdict).toMatchObject({ result: 'pass', domain: 'xn--mnchen-3ya.example' });
  });

  it('by a signature that has expired since it came', async () => {
    const signing = { signedAt: new Date(RECEIVED_MS - 86_400_000), expires: new Date(RECEIVED_MS + 1) };
    const mail = await signed(message([FROM, ...HEAD]), signing);
    expect(await verdictOf(mail)).toMatchObject({ result: 'pass' });
  });

  it('when a second signature is broken', async () => {
    const broken = 'DKIM-Signature: v=1; a=rsa-sha256; d=list.example; s=x; h=from; bh=AAAA; b=AAAA\r\n';
    expect(await verdictOf(broken + (await signed(message([FROM, ...HEAD]))))).toMatchObject({
      result: 'pass',
    });
  });
});

/** What they name in `h=`, as seen in mail of 2019 to 2026, without repetitions. */
const PROVIDERS = {
  gmail:
    'content-transfer-encoding:mime-version:references:in-reply-to:message-id:date:subject:cc:to:from:reply-to',
  microsoft: 'From:Date:Subject:Message-ID:Content-Type:MIME-Version:X-MS-Exchange-SenderADCheck',
  icloud: 'From:To:Subject:Date:Message-ID:MIME-Version:Content-Type:x-icloud-hme',
  yahoo: 'From:To:Cc:Subject:Date:In-Reply-To:References:Reply-To',
  fastmail:
    'cc:content-transfer-encoding:content-type:date:from:in-reply-to:message-id:mime-version:references:reply-to:subject:to',
  proton: 'Date:To:From:Cc:Subject:Message-ID:In-Reply-To:References:Feedback-ID:Reply-To:BIMI-Selector',
} as const;
/** Fields of theirs that have to be there, to be named. */
const MARKERS = ['X-MS-Exchange-SenderADCheck: 1', 'X-iCloud-HME: 1'];
const REPLY = ['Cc: eve@far.example', 'Message-ID: <2@x>', 'In-Reply-To: <1@x>', 'References: <1@x>'];
const alternative = (boundary: string): string =>
  ['text/plain', 'text/html']
    .map((type) => `--${boundary}\r\nContent-Type: ${type}\r\n\r\n<p>Hi\r\n`)
    .join('') + `--${boundary}--\r\n`;

describe.each(Object.entries(PROVIDERS))('what %s signs', (_provider, fields) => {
  const sign = (head: readonly string[], body: string): Promise<string> =>
    signed(message([FROM, ...HEAD, ...REPLY, ...MARKERS, 'MIME-Version: 1.0', ...head], body), { fields });

  it.each<[string, string[], string]>([
    ['without a type', [], 'Hello\r\n'],
    [
      'as text',
      ['Content-Type: text/plain; charset="UTF-8"', 'Content-Transfer-Encoding: 8bit'],
      'Hello\r\n',
    ],
    [
      'as quoted-printable',
      [
        'Content-Type: text/plain; charset=utf-8; format=flowed',
        'Content-Transfer-Encoding: quoted-printable',
      ],
      'Gr=C3=BC=C3=9Fe, this line goes =\r\non.\r\n',
    ],
    ['in parts', ['Content-Type: multipart/alternative; boundary="b_1"'], alternative('b_1')],
    [
      'in parts below what Thunderbird writes',
      ['Content-Type: multipart/alternative;\r\n boundary="------------a"'],
      `This is a multi-part message in MIME format.\r\n${alternative('------------a')}`,
    ],
    [
      'in parts below a blank line, as Apple does',
      ['Content-Type: multipart/alternative;\r\n\tboundary=Apple-Mail-7'],
      `\r\n\r\n${alternative('Apple-Mail-7')}\r\n`,
    ],
    ['as HTML', ['Content-Type: text/html; charset=utf-8'], '<p>Hello</p>\r\n'],
  ])('proves a reply %s', async (_, head, body) => {
    expect(await verdictOf(await sign(head, body))).toMatchObject({ result: 'pass' });
  });

  it.each<[string, string[], string, (mail: string) => string]>([
    ['the subject', [], 'Hello\r\n', (mail) => mail.replace('Subject: hi', 'Subject: ho')],
    ['who is answered', [], 'Hello\r\n', (mail) => `Reply-To: eve@far.example\r\n${mail}`],
    [
      'at which line it is divided',
      ['Content-Type: multipart/mixed; boundary=b'],
      `--b\r\n\r\nNo.\r\n--x\r\n\r\nYes.\r\n--x--\r\n--b--\r\n`,
      (mail) => mail.replace('boundary=b', 'boundary=x'),
    ],
    [
      'that it is divided',
      ['Content-Type: text/plain'],
      'No.\r\n----- Original -----\r\nYes.\r\n----- Original -------\r\n',
      (mail) => mail.replace('text/plain', 'multipart/mixed; boundary="--- Original -----"'),
    ],
    [
      'that tags are left out',
      ['Content-Type: text/plain'],
      'No.\r\n> Yes.\r\n',
      (mail) => mail.replace('text/plain', 'text/html'),
    ],
    [
      'that it is decoded',
      ['Content-Type: text/plain'],
      'No.\r\n> Well=0AYes.\r\n',
      (mail) => `Content-Transfer-Encoding: quoted-printable\r\n${mail}`,
    ],
  ])(`does not prove %s, where somebody else says it`, async (_, head, body, change) => {
    const mail = await sign(head, body);
    expect(await verdictOf(mail)).toMatchObject({ result: 'pass' });
    expect(await verdictOf(change(mail))).toMatchObject({ result: 'fail' });
  });
});

it.each(['gmail', 'yahoo', 'fastmail', 'proton'] as const)(
  'what %s signs does not prove a conversation, where somebody else says it',
  async (provider) => {
    const mail = await signed(message([FROM, ...HEAD]), { fields: PROVIDERS[provider] });
    expect(await verdictOf(mail)).toMatchObject({ result: 'pass' });
    expect(await verdictOf(`References: <offer@x>\r\n${mail}`)).toMatchObject({ result: 'fail' });
  },
);

describe('an author is not proven', () => {
  const forged = 'Authentication-Results: amazonses.com; dkim=pass header.d=sender.example; dmarc=pass';

  it('without a signature, whatever the header fields claim', async () => {
    const verdict = await verdictOf(
      message([forged, 'ARC-Authentication-Results: i=1; x; dkim=pass', FROM, ...HEAD]),
    );
    expect(verdict).toMatchObject({ result: 'none' });
  });

  it('by the signature of a domain that is not the author’s', async () => {
    const mail = await signed(message([forged, FROM, ...HEAD]), { domain: 'other.example' });
    expect(await verdictOf(mail)).toEqual({
      result: 'fail',
      domain: 'sender.example',
      reason: 'it is signed by another domain',
    });
  });

  it.each<[string, (mail: string) => string]>([
    ['the body was changed', (mail) => mail.replace('Hello', 'Hallo')],
    ['the subject was changed', (mail) => mail.replace('Subject: hi', 'Subject: ho')],
    ['From was changed', (mail) => mail.replace('<ann@', '<bob@')],
    ['there is a second From before it', (mail) => `From: eve@other.example\r\n${mail}`],
    ['there is a second Subject', (mail) => `Subject: pay now\r\n${mail}`],
    [
      'there is a second Content-Type',
      (mail) => `Content-Type: text/html\r\nContent-Type: text/plain\r\n${mail}`,
    ],
    ['there is a Reply-To that was not signed', (mail) => `Reply-To: eve@other.example\r\n${mail}`],
    [
      'there is a Subject, and a thousand lines later another',
      (mail) => `${flooded('Subject: pay now')}${mail}`,
    ],
    [
      'there is a Reply-To, and a thousand lines later another',
      (mail) => `${flooded('Reply-To: eve@x.example')}${mail}`,
    ],
    ['its header ends twice', (mail) => mail.replace('\r\n\r\n', '\r\nX-Note: y\r\n\r\r\nPay now.\r\n\r\n')],
    ['it is put into a conversation', (mail) => `References: <offer@shop.example>\r\n${mail}`],
    ['it is made the answer to a mail', (mail) => `In-Reply-To: <offer@shop.example>\r\n${mail}`],
    ['it is said to be base64', (mail) => `Content-Transfer-Encoding: base64\r\n${mail}`],
    [
      'it is said to be base64 far down',
      (mail) => `${flooded('X-Note: y')}Content-Transfer-Encoding: base64\r\n${mail}`,
    ],
    ['it is divided at a line of it', (mail) => `Content-Type: multipart/mixed; boundary="b"\r\n${mail}`],
    ['there are too many signatures', (mail) => 'DKIM-Signature: v=1; d=a.example; s=x\r\n'.repeat(8) + mail],
  ])('where %s', async (_, change) => {
    const mail = await signed(message([FROM, ...HEAD]));
    expect(await verdictOf(mail)).toMatchObject({ result: 'pass' });
    expect(await verdictOf(change(mail))).toMatchObject({ result: 'fail' });
  });

  it('where only a part of the body is signed', async () => {
    const mail = await signed(message([FROM, ...HEAD]), { maxBodyLength: 5 });
    expect(await verdictOf(`${mail}and more\r\n`)).toMatchObject({
      result: 'fail',
      reason: 'its signature does not cover all of it',
    });
  });

  it('where its domain has a policy and the signature does not hold', async () => {
    const mail = (await signed(message([FROM, ...HEAD]))).replace('Hello', 'Hallo');
    const policy = { '_dmarc.sender.example': ['v=DMARC1; p=none'] };
    expect(await verdictOf(mail, policy)).toMatchObject({ result: 'fail' });
  });

  it('by a signature that has expired when it came', async () => {
    const mail = await signed(message([FROM, ...HEAD]), { expires: new Date(RECEIVED_MS - 60_000) });
    expect(await verdictOf(mail)).toMatchObject({
      result: 'fail',
      reason: expect.stringContaining('expired'),
    });
  });

  it('where no key is published, and where it was withdrawn', async () => {
    const mail = await signed(message([FROM, ...HEAD]));
    const key = 's1._domainkey.sender.example';
    expect(await verdictOf(mail, { [key]: [] })).toMatchObject({ result: 'fail' });
    expect(await verdictOf(mail, { [key]: ['v=DKIM1; k=rsa; p='] })).toMatchObject({ result: 'fail' });
  });

  it('where a group, or several authors, stand in From', async () => {
    for (const from of [
      'From: ann@sender.example, eve@other.example',
      'From: all: ann@sender.example, eve@other.example;',
    ])
      expect(await verdictOf(await signed(message([from, ...HEAD])))).toMatchObject({ result: 'fail' });
  });
});

it.each([
  'ann@sender.example (a (b) <eve@other.example>)',
  '(a (b) eve@other.example) ann@sender.example',
  '<eve@other.example> <ann@sender.example>',
  '"ann@sender.example" eve@other.example <>',
])('a signature proves no other author than the one who is answered: From: %s', async (from) => {
  const mail = await signed(message([`From: ${from}`, ...HEAD]), { domain: 'other.example' });
  const { from: author } = await parseMessage(Buffer.from(mail));
  expect(author?.address ?? null).not.toBe('eve@other.example');
  expect(await verdictOf(mail)).toMatchObject({ result: 'fail' });
});

it('is in doubt while the DNS does not say', async () => {
  const mail = await signed(message([FROM, ...HEAD]));
  await expect(verdictOf(mail, { 's1._domainkey.sender.example': 'failed' })).rejects.toMatchObject({
    kind: 'transient',
    code: 'authentication.dns_failed',
  });
});

it('asks for few names, and only for names', async () => {
  const labels = Array.from({ length: 60 }, (_, index) => `l${index}`).join('.');
  const hostile = [
    `DKIM-Signature: v=1; d=${labels}.example; s=a; h=from; bh=x; b=x`,
    'DKIM-Signature: v=1; d=../../etc; s=%00; h=from; bh=x; b=x',
    'DKIM-Signature: v=1; d=; s=; h=from; bh=x; b=x',
    `DKIM-Signature: ${'d=a.example;'.repeat(10_000)}`,
  ];
  const email = await parseMessage(Buffer.from(message([...hostile, FROM, ...HEAD])));
  const names = recordNames(email);
  expect(names.length).toBeLessThan(40);
  for (const name of names) expect(name).toMatch(/^[a-z0-9_.-]{1,253}$/);
  expect(names).toContain('_dmarc.sender.example');
});

it('has a verdict on every mail of the corpus', { timeout: 60_000 }, async () => {
  for (const file of corpusFiles('**/*.eml')) {
    const raw = file.bytes();
    const email = await parseMessage(raw);
    const { result } = await authenticate({ raw, fields: email, records: {}, receivedMs: RECEIVED_MS });
    expect(['fail', 'none']).toContain(result);
  }
});
