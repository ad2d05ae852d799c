/** Mail to others: who may be written to, and what a forwarded email looks like. */
import { describe, expect, test } from 'vitest';
import { noReplyReason } from '../../src/mail/guard.ts';
import { composeForward, composeSend } from '../../src/mail/send.ts';
import { DOMAINS, emailOf } from './email.fixture.ts';

const inbox = { inbox: 'desk', inboxAddress: 'desk+x@agent.example', domains: DOMAINS };
const to = (...addresses: string[]) => ({ to: addresses });

describe('a mail to somebody else', () => {
  test('is one complete request, which says that a machine made it', async () => {
    const request = composeSend(
      { ...inbox, email: await emailOf(['Subject: Re: AW: Hello', 'References: <m0@x.example>']) },
      {
        recipients: { to: ['Ops <ops@far.example>'], cc: ['Boss@FAR.example'], bcc: ['log@far.example'] },
        content: { text: 'look', attachments: [{ filename: 'a.txt', contentBase64: 'YQ==' }] },
      },
    );
    expect(request).toEqual({
      from: 'desk+x@agent.example',
      to: ['ops@far.example'],
      cc: ['Boss@far.example'],
      bcc: ['log@far.example'],
      subject: 'Hello',
      text: 'look',
      attachments: [{ filename: 'a.txt', content: 'YQ==' }],
      headers: {
        'Auto-Submitted': 'auto-generated',
        'X-Auto-Response-Suppress': 'All',
        'X-Millrace': 'desk',
      },
    });
  });

  test('is answered by no machine of ours when it comes back', async () => {
    const email = await emailOf();
    const { headers } = composeForward({ ...inbox, email }, { ...mailTo('a@far.example'), files: [] });
    const returned = await emailOf(Object.entries(headers).map(([name, value]) => `${name}: ${value}`));
    const own = { domains: ['other.example'], address: 'y@other.example' };
    expect(noReplyReason(returned, own)).toBe('own-marker');
  });

  test('has a subject in any case', async () => {
    const email = await emailOf(['Subject:']);
    expect(composeSend({ ...inbox, email }, mailTo('a@far.example'))).toMatchObject({ subject: 'From desk' });
    const mail = { ...mailTo('a@far.example'), content: { text: 'x', subject: 'a\r\nBcc: b@far.example' } };
    expect(composeSend({ ...inbox, email }, mail)).toMatchObject({ subject: 'a Bcc: b@far.example' });
  });

  test('goes to each address once', async () => {
    const recipients = { to: ['a@far.example', 'A@far.example'], cc: ['a@FAR.example', 'b@far.example'] };
    const request = composeSend({ ...inbox, email: await emailOf() }, { recipients, content: { text: 'x' } });
    expect(request).toMatchObject({ to: ['a@far.example'], cc: ['b@far.example'] });
    expect(request).not.toHaveProperty('bcc');
  });

  test.each([
    ['nobody', 'effect.invalid_recipient'],
    ['a@far.example, b@far.example', 'effect.invalid_recipient'],
    ['a@far.example\r\nBcc: b@far.example', 'effect.invalid_recipient'],
    ['Group: a@far.example, b@far.example;', 'effect.invalid_recipient'],
    ['root@localhost', 'effect.invalid_recipient'],
    ['', 'effect.invalid_recipient'],
    [`${'x'.repeat(2000)}@far.example`, 'effect.invalid_recipient'],
    ['desk@agent.example', 'effect.own_address'],
    ['Desk <Other@AGENT.example>', 'effect.own_address'],
    ['x@xn--mnchen-3ya.example', 'effect.own_address'],
  ])('never goes to %j', async (address, code) => {
    const email = await emailOf();
    for (const key of ['to', 'cc', 'bcc'] as const) {
      const recipients = { to: ['a@far.example'], [key]: [address] };
      const compose = () => composeSend({ ...inbox, email }, { recipients, content: { text: 'x' } });
      expect(compose).toThrow(expect.objectContaining({ code, message: expect.stringContaining(key) }));
    }
  });

  test('has at most 50 recipients', async () => {
    const addresses = Array.from({ length: 51 }, (_, i) => `a${i}@far.example`);
    const compose = (count: number) => () =>
      composeSend(
        { ...inbox, email },
        { recipients: to(...addresses.slice(0, count)), content: { text: 'x' } },
      );
    const email = await emailOf();
    expect(compose(50)).not.toThrow();
    expect(compose(51)).toThrow(expect.objectContaining({ code: 'effect.too_many_recipients' }));
  });
});

describe('a forwarded email', () => {
  test('says what the tool says, who wrote to whom, and what; an answer goes to its author', async () => {
    const email = await emailOf(
      ['Date: Sun, 22 Nov 2026 10:00:00 +0000', 'Cc: Eve <eve@far.example>'],
      'Hi you',
    );
    const request = composeForward(
      { ...inbox, email },
      { recipients: to('boss@far.example'), content: { text: 'Please look.' }, files: [] },
    );
    expect(request).toMatchObject({
      to: ['boss@far.example'],
      replyTo: 'ann@sender.example',
      subject: 'Fwd: Hello',
      text: [
        'Please look.',
        '',
        '---------- Forwarded message ----------',
        'From: Ann <ann@sender.example>',
        'Date: 2026-11-22T10:00:00.000Z',
        'Subject: Hello',
        'To: reverser@agent.example',
        'Cc: Eve <eve@far.example>',
        '',
        'Hi you',
      ].join('\n'),
    });
    expect(request).not.toHaveProperty('html');
  });

  test('has its HTML made safe, and all that stands beside it escaped', async () => {
    const fields = ['Content-Type: text/html', 'From: "<b>Ann" <ann@sender.example>'];
    const email = await emailOf(fields, '<p onclick="x()">Hi</p><script>x()</script><img src="cid:logo">');
    const file = { filename: 'logo.png', contentBase64: 'YQ==', contentType: 'image/png', contentId: 'logo' };
    const request = composeForward(
      { ...inbox, email },
      { recipients: to('boss@far.example'), content: { text: '1 < 2' }, files: [file] },
    );
    expect(request.html).toContain('<p>1 &lt; 2</p>');
    expect(request.html).toContain('From: &lt;b&gt;Ann &lt;ann@sender.example&gt;<br');
    expect(request.html).toContain('<p>Hi</p>');
    expect(request.html).toContain('<img src="cid:logo"');
    expect(request.html).not.toMatch(/onclick|<script/);
    expect(request.attachments).toEqual([
      { filename: 'logo.png', content: 'YQ==', contentType: 'image/png', contentId: 'logo' },
    ]);
  });

  test('whose HTML is too large to be made safe is refused, and goes as text without it', async () => {
    const email = { ...(await emailOf()), html: '<b>'.repeat(60_000), text: 'the text\n'.repeat(60_000) };
    const forward = (forwarded: typeof email | (Omit<typeof email, 'html'> & { html: null })) =>
      composeForward(
        { ...inbox, email: forwarded },
        { recipients: to('boss@far.example'), content: { html: '<p>A note</p>' }, files: [] },
      );
    expect(() => forward(email)).toThrow(expect.objectContaining({ code: 'mail.html_too_large' }));
    const request = forward({ ...email, html: null });
    expect(request.text).toMatch(/^A note\n[^]*the text/);
    expect(request).not.toHaveProperty('html');
  });
});

function mailTo(address: string) {
  return { recipients: to(address), content: { text: 'x' } };
}
