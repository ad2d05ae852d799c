/** The record of an email for an inbox: it fits into the store, whatever its sender made long. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { fittedMail, inboxRecord } from '../../src/ingest/inbox-record.ts';
import type { MailFields } from '../../src/ingest/inbox-record.ts';
import type { ParsedEmail } from '../../src/mail/email.ts';
import { parseMessage } from '../../src/mail/message.ts';
import { threadKey } from '../../src/mail/thread.ts';
import { inboxRecordSchema } from '../../src/streams/records.ts';

const MAX_RECORD_BYTES = 1024 * 1024;
const ROOM_FOR_HEADERS = 64 * 1024;

const FOO = { inbox: 'foo', tag: null, address: 'foo@ours.example' };

function fieldsOf(email: ParsedEmail): MailFields {
  const raw = { stream: 'mail/x', bytes: 1, sha256: 'x' };
  return { emailId: 'x', receivedAt: new Date(0).toISOString(), raw, email };
}

function bodyOf(email: ParsedEmail): { bytes: number; record: ReturnType<typeof inboxRecordSchema.parse> } {
  const body = Buffer.from(inboxRecord(fittedMail(fieldsOf(email), 1), FOO, 'k').body);
  return { bytes: body.length, record: inboxRecordSchema.parse(JSON.parse(body.toString())) };
}

const plain = await parseMessage(Buffer.from('From: ann@sender.example\r\nSubject: hi\r\n\r\nHello'));

it('keeps an email that fits whole', () => {
  expect(bodyOf(plain).record).toMatchObject({ complete: true, email: plain });
});

it('cuts a long list of Reply-To beside a text of control characters', async () => {
  const list = Array.from({ length: 1000 }, (_, index) => `"${'n'.repeat(650)}" <a${index}@x.example>`);
  const head = ['From: ann@sender.example', `Reply-To: ${list.join(',\r\n ')}`].join('\r\n');
  const email = await parseMessage(Buffer.from(`${head}\r\n\r\n${'\x01'.repeat(760_000)}`));
  expect(email.replyTo).toHaveLength(1000);
  const { bytes, record } = bodyOf(email);
  expect(bytes).toBeLessThanOrEqual(MAX_RECORD_BYTES - ROOM_FOR_HEADERS);
  expect(record).toMatchObject({ complete: false, email: { from: email.from } });
  expect(record.email.replyTo.length).toBeGreaterThan(0);
});

it('fits, whatever is long, and stays in its conversation', () => {
  // What JSON makes six bytes of, three bytes of UTF-8, and a character of two halves.
  const piece = fc.constantFrom('a', '\x01', '\u2028', '€', '😀');
  const long = (maxChars: number): fc.Arbitrary<string> =>
    fc
      .tuple(piece, fc.integer({ min: 0, max: maxChars }))
      .map(([char, chars]) => char.repeat(chars / char.length));
  const many = <T>(item: fc.Arbitrary<T>, most: number): fc.Arbitrary<T[]> =>
    fc
      .tuple(item, fc.integer({ min: 0, max: most }))
      .map(([one, count]) => Array.from({ length: count }, () => one));
  const mailbox = fc.record({ name: long(1000), address: long(320) });
  const attachment = fc.record({
    index: fc.nat(),
    filename: long(255),
    contentType: long(255),
    disposition: fc.constant('inline' as const),
    contentId: long(255),
    size: fc.nat(),
  });
  const email: fc.Arbitrary<ParsedEmail> = fc.record({
    from: mailbox,
    replyTo: many(mailbox, 1000),
    to: many(mailbox, 1000),
    cc: many(mailbox, 1000),
    subject: long(16_384),
    text: long(1_000_000),
    html: fc.constant(null),
    newText: long(1_000_000),
    headers: many(fc.tuple(long(200), long(65_536)), 30),
    attachments: many(attachment, 200),
    messageId: long(900),
    references: many(long(900), 200).map((ids) => ['<root@x.example>', ...ids]),
    date: fc.constant(null),
  });
  fc.assert(
    fc.property(email, (parsed) => {
      const { bytes, record } = bodyOf(parsed);
      expect(bytes).toBeLessThanOrEqual(MAX_RECORD_BYTES - ROOM_FOR_HEADERS);
      expect(threadKey(record.email)).toBe(threadKey(parsed));
    }),
    // To shrink what is made of megabytes would take minutes.
    { numRuns: 30, endOnFailure: true },
  );
});

it('stays in its conversation where only In-Reply-To names it, behind more fields than are kept', async () => {
  const fields = Array.from({ length: 200 }, (_, n) => `X-Field-${n}: x`);
  const head = ['From: ann@sender.example', 'Message-ID: <second@x.example>', ...fields];
  const answer = `${[...head, 'In-Reply-To: <root@x.example> <other@x.example>'].join('\r\n')}\r\n\r\n`;
  const email = await parseMessage(Buffer.from(answer + 'x'.repeat(1_100_000)));
  const { record } = bodyOf(email);
  expect(record.complete).toBe(false);
  expect(threadKey(record.email)).toBe(threadKey(email));
});
