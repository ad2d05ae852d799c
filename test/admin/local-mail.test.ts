/** Mail from "outside" without an outside: what it leaves on the streams, and what it refuses. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MAX_MESSAGE_BYTES, createLocalMail } from '../../src/admin/local-mail.ts';
import type { LocalMail } from '../../src/admin/local-mail.ts';
import { parseMessage } from '../../src/mail/message.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { findBlob, readBlob } from '../../src/streams/blob.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';

const log = createLog('silent');
const clock = { ...systemClock, nowMs: () => Date.parse('2026-02-22T23:41:12.126Z') };
let directory: string;
let store: StreamStore;
let localMail: LocalMail;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'millrace-local-mail-'));
  store = await openLocalStore({ clock, log }, { directory, retentionFor: () => 'forever' });
  localMail = createLocalMail({ store, clock, log }, { domains: ['agent.example', 'second.example'] });
});

afterEach(async () => {
  await store.close();
  await rm(directory, { recursive: true });
});

const rawOf = (...lines: string[]): Uint8Array => Buffer.from(lines.join('\r\n'));
const eml = rawOf(
  'From: Ann <ann@sender.example>',
  'To: Reverser@Agent.Example, somebody@else.example',
  'Cc: upper@second.example',
  'Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=',
  'Message-ID: <m1@sender.example>',
  '',
  'Hello',
);

async function events() {
  const { records } = await store.stream('events').read({ fromSeqNum: 0 });
  return records;
}

describe('deliver', () => {
  it('leaves what a webhook leaves, and the raw message before it', async () => {
    const { emailId } = await localMail.deliver(eml);
    const [record, ...others] = await events();
    expect(others).toEqual([]);
    expect(record?.headers).toEqual([
      ['kind', 'event'],
      ['version', '1'],
      ['key', `received/${emailId}`],
      ['svix-id', `local_${emailId}`],
      ['type', 'email.received'],
    ]);
    const event = JSON.parse(Buffer.from(record!.body).toString()) as unknown;
    expect(event).toEqual({
      type: 'email.received',
      created_at: '2026-02-22T23:41:12.126Z',
      data: {
        email_id: emailId,
        created_at: '2026-02-22T23:41:12.126Z',
        from: 'ann@sender.example',
        to: ['Reverser@Agent.Example', 'somebody@else.example'],
        bcc: [],
        cc: ['upper@second.example'],
        received_for: ['Reverser@Agent.Example', 'upper@second.example'],
        message_id: '<m1@sender.example>',
        subject: 'Grüße',
        attachments: [],
      },
    });
    const blob = await findBlob(store.stream(`mail/${emailId}`));
    expect(Buffer.from(await readBlob(store, blob!)).equals(eml)).toBe(true);
  });

  it('takes the envelope it is given, whatever the header says', async () => {
    await localMail.deliver(eml, { recipients: ['shout@agent.example'] });
    const [record] = await events();
    const { data } = JSON.parse(Buffer.from(record!.body).toString()) as { data: { received_for: string[] } };
    expect(data.received_for).toEqual(['shout@agent.example']);
  });

  it('gives the same message twice two ids', async () => {
    const [first, second] = [await localMail.deliver(eml), await localMail.deliver(eml)];
    expect(first.emailId).not.toBe(second.emailId);
  });

  it('takes a message that needs several records', async () => {
    const big = Buffer.concat([eml, Buffer.alloc(3_000_000, 'x')]);
    const { emailId } = await localMail.deliver(big);
    expect((await findBlob(store.stream(`mail/${emailId}`)))?.bytes).toBe(big.length);
  });

  it.each([
    ['nothing', Buffer.alloc(0), 'local_mail.empty'],
    ['more than the limit', Buffer.alloc(MAX_MESSAGE_BYTES + 1), 'local_mail.too_large'],
    ['mail for others', rawOf('From: a@b.example', 'To: c@d.example', '', 'x'), 'local_mail.no_recipient'],
  ])('refuses %s and leaves nothing', async (_, raw, code) => {
    await expect(localMail.deliver(raw)).rejects.toMatchObject({ kind: 'invalid', code });
    expect(await events()).toEqual([]);
  });

  it('refuses an envelope that is not ours', async () => {
    const delivering = localMail.deliver(eml, { recipients: ['c@d.example'] });
    await expect(delivering).rejects.toMatchObject({ code: 'local_mail.no_recipient' });
  });
});

describe('compose', () => {
  const fields = {
    from: 'Änn <ann@sender.example>',
    to: 'reverser@agent.example',
    subject: 'Hi',
    text: 'Hello',
  };

  it('makes a message that reads back as what was written', async () => {
    const raw = await localMail.compose({
      ...fields,
      html: '<b>Hello</b>',
      inReplyTo: '<m2@x.example>',
      references: ['<m1@x.example>'],
      attachments: [
        {
          filename: 'grüße.txt',
          contentBase64: Buffer.from('data').toString('base64'),
          contentType: 'text/plain',
        },
      ],
    });
    const email = await parseMessage(raw);
    expect(email).toMatchObject({
      from: { name: 'Änn', address: 'ann@sender.example' },
      to: [{ name: '', address: 'reverser@agent.example' }],
      subject: 'Hi',
      text: 'Hello',
      html: '<b>Hello</b>',
      references: ['<m1@x.example>', '<m2@x.example>'],
      attachments: [{ filename: 'grüße.txt', contentType: 'text/plain', size: 4 }],
    });
    expect(Date.parse(email.date ?? '')).toBe(Date.parse('2026-02-22T23:41:12Z'));
    expect(email.messageId).toMatch(/^<[\w-]{36}@sender\.example>$/);
  });

  it('keeps any text and subject whole', async () => {
    const word = fc
      .string({ unit: 'binary' })
      .map((text) => text.replaceAll(/[\p{Cc}\u2028\u2029]/gu, ' ').toWellFormed());
    await fc.assert(
      fc.asyncProperty(word, word, async (subject, text) => {
        const email = await parseMessage(await localMail.compose({ ...fields, subject, text: `a${text}z` }));
        expect(email.text).toBe(`a${text}z`);
        expect(email.headers.filter(([name]) => name.toLowerCase() === 'bcc')).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });

  it.each([
    ['a line break in the subject', { subject: 'Hi\r\nBcc: evil@x.example' }, 'subject'],
    ['a sender that is no address', { from: 'ann' }, 'from'],
    ['a line break in the sender', { from: 'A\r\nBcc: x@y.example <ann@sender.example>' }, 'from'],
    ['no recipient', { to: [] }, 'to'],
    ['a Message-ID with a space', { inReplyTo: '<a b>' }, 'inReplyTo'],
    [
      'an attachment that is not base64',
      { attachments: [{ filename: 'a', contentBase64: '§' }] },
      'attachments.0.contentBase64',
    ],
  ])('refuses %s and names the field', async (_, wrong, field) => {
    const composing = localMail.compose({ ...fields, ...wrong });
    await expect(composing).rejects.toMatchObject({ kind: 'invalid', code: 'local_mail.malformed' });
    await expect(composing).rejects.toThrow(field);
  });

  it.each([null, 'text', [], 7])('refuses %j', async (message) => {
    await expect(localMail.compose(message)).rejects.toMatchObject({ code: 'local_mail.malformed' });
  });

  it('reads no file and fetches no address that a field names', async () => {
    const attachments = [
      { filename: 'a', path: '/etc/hostname', href: 'http://127.0.0.1:1/', contentBase64: '' },
    ];
    const email = await parseMessage(await localMail.compose({ ...fields, attachments }));
    expect(email.attachments).toMatchObject([{ size: 0 }]);
  });
});
