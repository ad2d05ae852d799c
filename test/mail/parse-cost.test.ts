/**
 * No mail costs much more to read than other mail of its size. A regular expression that goes back over what a sender
 * wrote takes a hundred times and a thousand times as long, so the bound can be so wide that no load of the machine
 * matters: both sides are processor time of this thread.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseMessage } from '../../src/mail/message.ts';

/** What a hostile mail may cost of a harmless one of its size. */
const MAX_RATIO = 100;
/** A cubic cost shows in the small one, in under a second; a quadratic one in the large. */
const SIZES = [2 * 1024, 16 * 1024];

const MIXED = 'Content-Type: multipart/mixed; boundary=b\r\n\r\n';
const FLOWED = 'Content-Type: text/plain; format=flowed';

/** Where in a mail a sender's text can stand; `#` is the place. */
const PLACES = [
  '\r\n#',
  `${FLOWED}\r\n\r\n#`,
  `${FLOWED}; delsp=yes\r\n\r\n#`,
  'Content-Type: text/html\r\n\r\n#',
  `${MIXED}--b\r\nContent-Type: text/html\r\n\r\n#\r\n--b\r\n\r\nplain\r\n--b--`,
  `${MIXED}--b\r\nContent-Type: text/html\r\n\r\n<p>html\r\n--b\r\n\r\n#\r\n--b--`,
  'Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n#',
  'Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n#',
  'Content-Type: text/calendar; method=REQUEST; name=a.ics\r\n\r\n#',
  `${MIXED}#`,
  'Content-Type: #\r\n\r\nx',
  'Content-Type: multipart/mixed; boundary=b#\r\n\r\n--b\r\n\r\nx',
  'Content-Type: text/plain; name="#"\r\n\r\nx',
  'Content-Type: image/png\r\nContent-Disposition: attachment; filename=#\r\nContent-Description: #\r\n\r\nx',
  'Content-Transfer-Encoding: #\r\n\r\nx',
  ...[
    'Subject',
    'From',
    'To',
    'Reply-To',
    'Date',
    'Message-ID',
    'References',
    'In-Reply-To',
    'Return-Path',
  ].map((field) => `${field}: #\r\n\r\nx`),
  '#\r\n\r\nx',
];

const FRAGMENTS = [
  [
    '<a ',
    'href=x',
    '<a href="',
    '<a href=x>',
    '<b>',
    '<p>',
    '<td>',
    '<li>',
    '</p>',
    '<!--',
    '-->',
    '<![CDATA[',
  ],
  [
    '<script',
    '<style>',
    '<body ',
    '</head',
    '<',
    '>',
    '&',
    '&amp;',
    '&#x',
    '="data:a/b,',
    'url(data:,',
    '=',
    "='",
  ],
  [
    '=?utf-8?q?',
    '=?a?b?',
    '?=',
    '=?',
    '=20',
    '=\r\n',
    '=C3',
    '%C3',
    "utf-8''",
    '; a=b',
    '; a*0*=',
    '*1',
    ';',
    '\\',
  ],
  [
    '"',
    "'",
    '(',
    ')',
    '<a@b>',
    'a@b',
    '@',
    ',',
    ':',
    'a:',
    '[',
    'Re: ',
    ' ',
    '\t',
    '\r\n',
    '\r\n ',
    '\r',
    'a',
    '1',
  ],
  [
    '> ',
    '>',
    '-- \r\n',
    ' \r\n',
    '--b\r\n',
    '--b',
    '--',
    'On 5 May 2024 ',
    'wrote:',
    'From: ',
    '-----',
    '\u00a0',
  ],
].flat();

interface Hostile {
  readonly place: string;
  /** Stands there once, before what is repeated. */
  readonly first: string;
  readonly repeated: readonly string[];
}

function mailOf({ place, first, repeated }: Hostile, size: number): Buffer {
  const unit = repeated.join('');
  return Buffer.from(place.replaceAll('#', () => first + unit.repeat(Math.ceil(size / unit.length))));
}

/** Of processor time, for one of so many times. */
async function costMicros(message: Buffer, times = 1): Promise<number> {
  const before = process.threadCpuUsage();
  for (let time = 0; time < times; time += 1) await parseMessage(message);
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / times;
}

const HARMLESS: Hostile = { place: PLACES[3]!, first: '', repeated: ['<p>Hello, <b>you</b> there.</p>\r\n'] };

const hostile = fc.record({
  place: fc.constantFrom(...PLACES),
  first: fc.constantFrom('', ...FRAGMENTS),
  repeated: fc.array(fc.constantFrom(...FRAGMENTS), { minLength: 1, maxLength: 3 }),
});

/** What stalled a process: expressions of the parser's that turn a part's HTML into text. */
const KNOWN: Hostile[] = [
  { place: PLACES[4]!, first: '<a ', repeated: ['href=x'] },
  { place: PLACES[4]!, first: '', repeated: ['<a href="'] },
];

test('a mail that repeats anything anywhere costs what other mail costs', { timeout: 120_000 }, async () => {
  const usual = new Map<number, number>();
  for (const size of SIZES) {
    await costMicros(mailOf(HARMLESS, size), 20);
    usual.set(size, await costMicros(mailOf(HARMLESS, size), 50));
  }
  const asked = fc.asyncProperty(hostile, async (mail) => {
    for (const size of SIZES)
      expect((await costMicros(mailOf(mail, size))) / usual.get(size)!).toBeLessThan(MAX_RATIO);
  });
  await fc.assert(asked, { numRuns: 500, examples: KNOWN.map((mail): [Hostile] => [mail]) });
});
