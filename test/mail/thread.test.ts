import * as fc from 'fast-check';
import { decodeWords } from 'postal-mime';
import { describe, expect, test } from 'vitest';
import { baseSubject, fitSubject, replySubject, threadHeaders, threadKey } from '../../src/mail/thread.ts';
import { emailOf, hostileEmail, hostileText } from './email.fixture.ts';

// oxlint-disable-next-line no-control-regex
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;

/** RFC 2047 as a mailer would do it: base64 words of at most 75 octets, folded. */
function encodedField(subject: string): string {
  if (/^[\x20-\x7e]*$/.test(subject)) return `Subject: ${subject}`;
  const words = [''];
  for (const character of subject) {
    const longer = words.at(-1) + character;
    if (Buffer.byteLength(longer) <= 45) words[words.length - 1] = longer;
    else words.push(character);
  }
  return `Subject: ${words.map((word) => `=?UTF-8?B?${Buffer.from(word).toString('base64')}?=`).join('\r\n ')}`;
}

function isOneHeader(subject: string): boolean {
  return !UNSAFE.test(subject) && subject.isWellFormed() && encodedField(subject).length <= 998;
}

function isFit(subject: string): boolean {
  return isOneHeader(fitSubject(subject));
}

function isGoodReply(subject: string): boolean {
  const once = replySubject(subject);
  return isOneHeader(once) && once.startsWith('Re:') && replySubject(once) === once;
}

function ids(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `<r${index}@x.example>`);
}

function longId(letter: string): string {
  return `<${letter.repeat(400)}@x.example>`;
}

function withoutId(fields: string[]): ReturnType<typeof emailOf> {
  return emailOf(['Message-ID:', ...fields]);
}

describe('baseSubject', () => {
  test.each([
    ['Hello', 'Hello'],
    ['Re: Hello', 'Hello'],
    ['Re: RE: AW: Sv: 答复: Hello', 'Hello'],
    ['RE : FWD: Fw: WG:Antw: hello', 'hello'],
    ['回复：答覆: 你好', '你好'],
    ['Antwort: Réponse : ΣΧΕΤ: رد: hello', 'hello'],
    ['Antworten: keine', 'Antworten: keine'],
    ['Re[2]: RE(3): Re^4: Hello', 'Hello'],
    ['Re: [Ticket 5] Re: Hello', '[Ticket 5] Hello'],
    ['[a] [b] Re: Fwd: Hello', '[a] [b] Hello'],
    ['  Re:   Hello   world ', 'Hello world'],
    ['Re: Hello\r\nBcc: x@y.example', 'Hello Bcc: x@y.example'],
    ['Re:', ''],
    ['', ''],
    ['Regarding: Hello', 'Regarding: Hello'],
    ['Research: Re: x', 'Research: Re: x'],
    ['R: the language', 'R: the language'],
    ['Ref: 12345', 'Ref: 12345'],
    ['10:30 Re: lunch', '10:30 Re: lunch'],
  ])('%j → %j', (subject, expected) => {
    expect(baseSubject(subject)).toBe(expected);
  });
});

describe('replySubject', () => {
  test.each([
    ['Hello', 'Re: Hello'],
    ['Re: RE: AW: Sv: 答复: Hello', 'Re: Hello'],
    ['', 'Re:'],
    [' \t ', 'Re:'],
    ['Re: ', 'Re:'],
    ['a\0b\u2028c\u2029d\u0085e', 'Re: a b c d e'],
    ['half \ud83d of it', 'Re: half \ufffd of it'],
    ['undefined', 'Re: undefined'],
  ])('%j → %j', (subject, expected) => {
    expect(replySubject(subject)).toBe(expected);
  });

  test('of 5 kB as much as fits is kept, and no character is cut in two', () => {
    expect(replySubject('x'.repeat(5000))).toHaveLength(998 - 'Subject: '.length);
    const family = '👨‍👩‍👧';
    const families = replySubject(family.repeat(500));
    expect(families.slice('Re: '.length).replaceAll(family, '')).toBe('');
    expect(encodedField(families).length).toBeGreaterThan(800);
    // One endless character cannot be kept whole.
    expect(replySubject(`e${'\u0301'.repeat(5000)}`).length).toBeGreaterThan(200);
  });

  test('all of 2700 prefixes are taken away', () => {
    expect(replySubject('Re:'.repeat(2700))).toBe('Re:');
  });

  test('whatever comes in: one safe line of at most 998 octets, and twice is once', () => {
    expect(() => fc.assert(fc.property(hostileText, isGoodReply), { numRuns: 500 })).not.toThrow();
    expect(() => fc.assert(fc.property(hostileText, isFit), { numRuns: 500 })).not.toThrow();
  });

  test('what is encoded is what is read back', () => {
    const subject = replySubject('日本語の件名'.repeat(20));
    const words = encodedField(subject).slice('Subject: '.length).replaceAll('\r\n', '');
    expect(decodeWords(words)).toBe(subject);
  });
});

describe('threadHeaders', () => {
  test.each([
    [[], '<m1@sender.example>'],
    [['References: <a@x.example> <b@x.example>'], '<a@x.example> <b@x.example> <m1@sender.example>'],
    [['In-Reply-To: <b@x.example>'], '<b@x.example> <m1@sender.example>'],
    [
      ['References: <a@x.example>,<b@x.example>, junk <c d@x>'],
      '<a@x.example> <b@x.example> <m1@sender.example>',
    ],
    [['References: <a@x.example> <m1@sender.example> <a@x.example>'], '<a@x.example> <m1@sender.example>'],
    [['References: <ä@x.example> <a@x.example>'], '<a@x.example> <m1@sender.example>'],
  ])('%j → References: %s', async (fields, references) => {
    const email = await emailOf(fields);
    expect(threadHeaders(email)).toEqual({ 'In-Reply-To': '<m1@sender.example>', References: references });
  });

  test.each([
    ['Message-ID:'],
    ['Message-ID: <a b@x.example>'],
    ['Message-ID: <ä@x.example>'],
    ['Message-ID: <>'],
  ])('%j → no threading headers', async (field) => {
    expect(threadHeaders(await emailOf([field, 'References: <a@x.example>']))).toEqual({});
  });

  test('of 200 references the first and the newest are kept', async () => {
    const email = await emailOf([`References: ${ids(200).join('\r\n ')}`]);
    const kept = threadHeaders(email)['References']?.split(' ');
    expect(kept).toEqual(['<r0@x.example>', ...ids(200).slice(-18), '<m1@sender.example>']);
  });

  test('long ids are left out rather than cut', async () => {
    const email = await emailOf([`References: ${longId('a')} ${longId('b')} ${longId('c')}`]);
    expect(threadHeaders(email)['References']).toBe(`${longId('a')} ${longId('c')} <m1@sender.example>`);
  });

  test('whatever an email holds: ids of printable ASCII that fit on a line', () => {
    const property = fc.property(hostileEmail, (email) =>
      Object.values(threadHeaders(email)).every(
        (value) => /^(?:<[!-;=?-~]+> ?){1,20}$/.test(value) && value.length <= 900,
      ),
    );
    expect(() => fc.assert(property)).not.toThrow();
  });
});

describe('threadKey', () => {
  test('a conversation has one key, however its members name it', async () => {
    const first = await emailOf([]);
    const second = await emailOf(['Message-ID: <m2@x.example>', 'In-Reply-To: <m1@sender.example>']);
    const third = await emailOf([
      'Message-ID: <m3@x.example>',
      'References: <m1@sender.example> <m2@x.example>',
      'In-Reply-To: <m2@x.example>',
    ]);
    const two = await emailOf([
      'Message-ID: <m4@x.example>',
      'In-Reply-To: <m1@sender.example> <m2@x.example>',
    ]);
    expect([second, third, two].map(threadKey)).toEqual(Array.from({ length: 3 }, () => threadKey(first)));
    expect(threadKey(first)).toMatch(/^[0-9a-f]{32}$/);
  });

  test('another conversation has another key', async () => {
    const other = await emailOf(['Message-ID: <m9@sender.example>']);
    expect(threadKey(other)).not.toBe(threadKey(await emailOf([])));
  });

  test('without ids the author and the subject name it', async () => {
    const key = threadKey(await withoutId(['Subject: Plan']));
    expect(threadKey(await withoutId(['Subject: RE: plan', 'From: ANN@sender.example']))).toBe(key);
    expect(threadKey(await withoutId(['Subject: Plan', 'From: bob@x.example']))).not.toBe(key);
    expect(threadKey(await withoutId(['Subject: Plan B']))).not.toBe(key);
  });
});
