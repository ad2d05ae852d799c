import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  inboxOf,
  isOwnAddress,
  normaliseAddress,
  normaliseDomain,
  routeRecipients,
  sendableAddress,
  toolInboxNames,
} from '../../src/mail/address.ts';
import { DOMAINS, hostileText } from './email.fixture.ts';

function inboxes(lists: Parameters<typeof routeRecipients>[0]): (string | null)[] {
  return routeRecipients(lists, DOMAINS).map(({ inbox }) => inbox);
}

function isStable(once: string | null): boolean {
  return once === null || normaliseAddress(once) === once;
}

function isHarmless(inbox: string | null): boolean {
  return inbox === null || /^(?!.*\.\.)(?!unrouted$)[^/\\\s\p{C}.][^/\\\s\p{C}]*$/u.test(inbox);
}

describe('normaliseAddress', () => {
  test.each([
    ['Ann@Sender.EXAMPLE', 'ann@sender.example'],
    ['a.b+c_d-e=f@sender.example', 'a.b+c_d-e=f@sender.example'],
    ['ann@MÜNCHEN.example', 'ann@xn--mnchen-3ya.example'],
    ['ann@xn--mnchen-3ya.example', 'ann@xn--mnchen-3ya.example'],
    ['ann@mu\u0308nchen.example', 'ann@xn--mnchen-3ya.example'],
    ['ann@ｓｅｎｄｅｒ.example', 'ann@sender.example'],
    ['Bu\u0308ro@sender.example', 'büro@sender.example'],
    ['ann@localhost', 'ann@localhost'],
    [`${'a'.repeat(239)}@sender.example`, `${'a'.repeat(239)}@sender.example`],
    [`${'a'.repeat(240)}@sender.example`, null],
  ])('%j → %j', (input, expected) => {
    expect(normaliseAddress(input)).toBe(expected);
  });

  test.each([
    '',
    '@',
    'ann',
    'ann@',
    '@sender.example',
    'a@b@sender.example',
    'ann@sender.example, bob@x.example',
    'Ann <ann@sender.example>',
    '<ann@sender.example>',
    '"a b"@sender.example',
    'a b@sender.example',
    ' ann@sender.example',
    'ann@sender.example\n',
    'ann@sender\t.example',
    'ann\r\nBcc:x@sender.example',
    'ann@sender.example/x',
    'ann@sender.example?x',
    'ann@sender.example#x',
    'ann@sender.example:25',
    'ann@%73ender.example',
    'ann@[127.0.0.1]',
    'ann@127.0.0.1',
    'ann@0x7f.1',
    'ann@sender..example',
    '.ann@sender.example',
    'ann.@sender.example',
    'a..b@sender.example',
    'ann@sender.example.',
    'ann@-sender.example',
    'ann@sender-.example',
    'ann@sender／x.example',
    'ann@send_er.example',
    'a\u037eb@sender.example',
    'a\0b@sender.example',
    'a\u2028b@sender.example',
    'a\u202eb@sender.example',
    'a\ud800b@sender.example',
    `ann@${'a'.repeat(64)}.example`,
    `ann@${'a.'.repeat(130)}example`,
    `${'a'.repeat(1000)}@x.example`,
  ])('%j is not exactly one address', (input) => {
    expect(normaliseAddress(input)).toBeNull();
  });

  test('what is normalised stays as it is', () => {
    const local = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 });
    const input = fc.oneof(
      hostileText,
      fc.emailAddress(),
      local.map((text) => `${text}@b.example`),
    );
    const property = fc.property(input, (text) => isStable(normaliseAddress(text)));
    expect(() => fc.assert(property)).not.toThrow();
  });
});

test('an address to write to keeps the case of its local part', () => {
  expect(sendableAddress('Ann.B@MÜNCHEN.example')).toBe('Ann.B@xn--mnchen-3ya.example');
});

test('a domain and its punycode twin are equal', () => {
  expect(normaliseDomain('MÜNCHEN.example')).toBe(normaliseDomain('xn--mnchen-3ya.example'));
  expect(normaliseDomain('no domain')).toBeNull();
});

describe('inboxOf', () => {
  test.each([
    ['Reverser@AGENT.example', 'reverser', null, 'reverser@agent.example'],
    ['reverser+News+2@agent.example', 'reverser', 'news+2', 'reverser+news+2@agent.example'],
    ['reverser+@agent.example', 'reverser', null, 'reverser+@agent.example'],
    ['reverser@xn--mnchen-3ya.example', 'reverser', null, 'reverser@xn--mnchen-3ya.example'],
    ['Bu\u0308ro@münchen.example', 'büro', null, 'büro@xn--mnchen-3ya.example'],
    ['constructor@agent.example', 'constructor', null, 'constructor@agent.example'],
    ['toString@agent.example', 'tostring', null, 'tostring@agent.example'],
  ])('%j → inbox %j, tag %j', (address, inbox, tag, normalised) => {
    expect(inboxOf(address, DOMAINS)).toEqual({ inbox, tag, address: normalised });
  });

  test.each([
    '../outbox',
    'a/b',
    '"a b"',
    'a b',
    '%2e%2e',
    '__proto__',
    '.hidden',
    'a..b',
    '+tag',
    '',
    'a@b',
    '🙂',
    'a'.repeat(65),
    'a'.repeat(320),
    'a\0b',
    'a\r\nb',
    'a\u202eb',
    '-rf',
    '*',
    'unrouted',
    'Unrouted+x',
  ])('%j at our domain names no inbox, and is not foreign', (local) => {
    expect(inboxOf(`${local}@agent.example`, DOMAINS)).toMatchObject({ inbox: null, tag: null });
  });

  test.each(['ann@sender.example', 'x@sub.agent.example', 'x@agent.example.com', 'agent.example', '', 'x@'])(
    '%j is foreign',
    (address) => {
      expect(inboxOf(address, DOMAINS)).toBeNull();
      expect(isOwnAddress(address, DOMAINS)).toBe(false);
    },
  );
});

describe('toolInboxNames', () => {
  test.each([
    ['reverser', ['reverser']],
    ['dailyReport', ['daily-report', 'dailyreport']],
    ['daily-report', ['daily-report']],
    ['Daily', ['daily']],
    ['HTMLToText', ['html-to-text', 'htmltotext']],
    ['report2Daily', ['report2-daily', 'report2daily']],
    ['daily_report', ['daily_report']],
    ['büroPost', ['büro-post', 'büropost']],
    ['toString', ['to-string', 'tostring']],
    ['default', ['default']],
    ['_private', []],
    ['__proto__', []],
    ['$', []],
    ['a/b', []],
    ['a..b', []],
    ['a.', []],
    ['a+b', []],
    ['', []],
    ['unrouted', []],
    ['a'.repeat(65), []],
  ])('%j serves %j', (name, expected) => {
    expect(toolInboxNames(name)).toEqual(expected);
  });

  test('mail to every name that a tool serves reaches an inbox of that name', () => {
    const property = fc.property(fc.oneof(hostileText, fc.string({ unit: 'grapheme' })), (name) =>
      toolInboxNames(name).every((inbox) => inboxOf(`${inbox}@agent.example`, DOMAINS)?.inbox === inbox),
    );
    expect(() => fc.assert(property)).not.toThrow();
  });
});

describe('routeRecipients', () => {
  test('one mail to two inboxes reaches both, each once', () => {
    expect(
      inboxes({
        to: ['a@agent.example', 'B <b@agent.example>'],
        cc: ['A@agent.example', 'a+x@agent.example'],
      }),
    ).toEqual(['a', 'b']);
  });

  test('of several addresses of one inbox the first counts', () => {
    const to = ['a+x@agent.example', 'a@agent.example', 'a+y@münchen.example'];
    expect(routeRecipients({ to }, DOMAINS)).toEqual([
      { inbox: 'a', tag: 'x', address: 'a+x@agent.example' },
    ]);
  });

  test('the envelope decides, whatever the header names', () => {
    const to = ['other@agent.example'];
    expect(inboxes({ receivedFor: ['hidden@agent.example'], to })).toEqual(['hidden']);
    expect(inboxes({ receivedFor: ['hidden@sender.example'], to })).toEqual([]);
  });

  test.each([[undefined], [[]], [['', ' ']]])(
    'without an envelope (%j) To, Cc and Bcc decide',
    (receivedFor) => {
      const lists = { to: ['a@agent.example'], cc: ['b@agent.example'], bcc: ['c@agent.example'] };
      expect(inboxes({ receivedFor, ...lists })).toEqual(['a', 'b', 'c']);
    },
  );

  test('auto-forwarded mail is routed by its envelope, though To is somebody else', () => {
    expect(inboxes({ receivedFor: ['a@agent.example'], to: ['boss@sender.example'] })).toEqual(['a']);
  });

  test.each([
    ['"Doe, John" <a@agent.example>', ['a']],
    ['=?utf-8?q?b=40agent=2Eexample=2C?= <a@agent.example>', ['a']],
    ['"b@agent.example" <x@sender.example>', []],
    ['"b@agent.example, c" <a@agent.example>', ['a']],
    ['friends: a@agent.example, Bo <b@agent.example>;', ['a', 'b']],
    ['<a@agent.example>, b@agent.example', ['a', 'b']],
    // Without brackets an entry is one address, and no inbox has such a name.
    ['a@agent.example, b@agent.example', [null]],
    ['rev;a@agent.example', [null]],
    ['x,a@agent.example', [null]],
    ['x:a@agent.example', [null]],
    ['(c)a@agent.example', [null]],
    ['a(c)@agent.example', [null]],
    ['a@agent.example (b@sender.example)', []],
    ['(a (b) <a@agent.example>) <x@sender.example>', []],
    ['<x@sender.example> <a@agent.example>', []],
    ['undisclosed-recipients:;', []],
    ['"a b"@agent.example', [null]],
    ['a b@agent.example', [null]],
    ['<../outbox@agent.example>', [null]],
    ['a@agent.example@sender.example', []],
    ['a@sender.example@agent.example', [null]],
  ])('the entry %j names %j', (entry, expected) => {
    expect(inboxes({ to: [entry] })).toEqual(expected);
    expect(inboxes({ receivedFor: [entry] })).toEqual(expected);
  });

  test('what is ours but no inbox is reported, once each', () => {
    const to = [
      '../outbox@agent.example',
      '../outbox@agent.example',
      'a/b@agent.example',
      'x@sender.example',
    ];
    expect(routeRecipients({ to }, DOMAINS)).toEqual([
      { inbox: null, tag: null, address: '../outbox@agent.example' },
      { inbox: null, tag: null, address: 'a/b@agent.example' },
    ]);
  });

  test('others in any number hide no inbox, and of a million inboxes a thousand are given', () => {
    const others = Array.from({ length: 5_000 }, (_, index) => `person${index}@sender.example`);
    expect(inboxes({ to: [...others, 'a@agent.example'] })).toEqual(['a']);
    expect(
      inboxes({ to: [`${'x@sender.example, '.repeat(100)}<x@sender.example>`, '<a@agent.example>'] }),
    ).toEqual(['a']);
    const many = Array.from({ length: 1_000_000 }, (_, index) => `inbox${index}@agent.example`);
    expect(inboxes({ to: many })).toHaveLength(1000);
  });

  test('no inbox ever has a name that reaches another stream', () => {
    const entry = fc.oneof(
      hostileText,
      hostileText.map((text) => `${text}@agent.example`),
      hostileText.map((text) => `<${text}@agent.example>`),
    );
    const property = fc.property(fc.array(entry, { maxLength: 5 }), (to) =>
      inboxes({ to }).every(isHarmless),
    );
    expect(() => fc.assert(property)).not.toThrow();
  });
});
