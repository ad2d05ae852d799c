/** Emails for the tests of this folder: parsed from what a sender would write, or hostile ones field by field. */
import * as fc from 'fast-check';
import type { ParsedEmail } from '../../src/mail/email.ts';
import { parseMessage } from '../../src/mail/message.ts';

export const DOMAINS = ['agent.example', 'münchen.example'];

/** An ordinary email by Ann; each of `fields` replaces the field of its name or comes on top. */
export async function emailOf(fields: readonly string[] = [], body = 'Hello'): Promise<ParsedEmail> {
  const ordinary = [
    'Return-Path: <ann@sender.example>',
    'From: Ann <ann@sender.example>',
    'To: reverser@agent.example',
    'Subject: Hello',
    'Message-ID: <m1@sender.example>',
  ].filter((field) => !fields.some((other) => nameOf(other) === nameOf(field)));
  // `Name:` without a value takes the ordinary field away.
  const kept = [...fields.filter((field) => !/^[^:]*:$/.test(field)), ...ordinary];
  return parseMessage(Buffer.from(`${kept.join('\r\n')}\r\n\r\n${body}`));
}

/** What breaks headers: line ends of every kind, NUL, lone surrogates, marks, brackets and prefixes. */
const hostileCharacters = fc.constantFrom(
  '\r',
  '\n',
  '\r\n',
  '\0',
  '\u2028',
  '\u2029',
  '\u0085',
  '\ud800',
  '\udc00',
  '\u202e',
  '\u200b',
  '\ufeff',
  '<',
  '>',
  '@',
  ',',
  ';',
  ':',
  '"',
  '\\',
  '/',
  '..',
  '=?utf-8?q?=0D=0A?=',
  'Re:',
  'AW: ',
  '[x] ',
  '答复：',
  'a',
  'Ö',
  'é',
  '🙂',
  '👨‍👩‍👧',
  'agent.example',
  'reverser@agent.example',
  'Bcc: x@y.example',
  'undefined',
  ' ',
);
export const hostileText = fc.oneof(
  fc.string({ unit: hostileCharacters, maxLength: 60 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({ unit: hostileCharacters, minLength: 300, maxLength: 1500 }),
);
const hostileAddress = fc.oneof(
  hostileText,
  fc.emailAddress(),
  fc.tuple(hostileText, fc.constantFrom(...DOMAINS)).map(([local, domain]) => `${local}@${domain}`),
);
const hostileMailbox = fc.record({ name: hostileText, address: hostileAddress });
const hostileId = fc.oneof(
  hostileText,
  hostileText.map((text) => `<${text}>`),
  fc.stringMatching(/^<[a-z]{1,400}@[a-z]{1,400}>$/),
);

/** Any value of the type, as if the parser had kept nothing back. */
export const hostileEmail: fc.Arbitrary<ParsedEmail> = fc.record({
  from: fc.option(hostileMailbox),
  replyTo: fc.array(hostileMailbox, { maxLength: 4 }),
  to: fc.array(hostileMailbox, { maxLength: 2 }),
  cc: fc.constant([]),
  subject: hostileText,
  text: hostileText,
  html: fc.option(hostileText),
  newText: hostileText,
  headers: fc.array(fc.tuple(fc.constantFrom('From', 'Reply-To', 'In-Reply-To', 'X-Any'), hostileText), {
    maxLength: 4,
  }),
  attachments: fc.constant([]),
  messageId: fc.option(hostileId),
  references: fc.array(hostileId, { maxLength: 40 }),
  date: fc.constant(null),
});

function nameOf(field: string): string {
  return field.slice(0, field.indexOf(':')).toLowerCase();
}
