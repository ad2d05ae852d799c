/** New text of replies: the rules one by one, then a corpus of 64 mails in ten languages as a floor. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { newTextOf } from '../../src/mail/new-text.ts';
import { corpusFiles, MISSING_CORPUS } from './corpus.ts';
import { costRatio } from './cost.ts';

/** Of 64; what is measured, so that a regression goes red. */
const EXACT_MATCHES = 61;

test.each([
  ['On Mon, 2 Feb 2026 at 10:00, Ann <ann@x.example> wrote:', 'English'],
  ['On Mon, 2 Feb 2026 at 10:00, Ann with a long name <\nann@x.example> wrote:', 'wrapped'],
  ['Am 02.02.2026 um 10:00 schrieb Ann <ann@x.example>:', 'German'],
  ['Le lun. 2 févr. 2026 à 10:00, Ann <ann@x.example> a écrit :', 'French'],
  ['El lun, 2 feb 2026 a las 10:00, Ann (<ann@x.example>) escribió:', 'Spanish'],
  ['Em seg., 2 de fev. de 2026 às 10:00, Ann <ann@x.example> escreveu:', 'Portuguese'],
  ['Il giorno lun 2 feb 2026 alle ore 10:00 Ann <ann@x.example> ha scritto:', 'Italian'],
  ['Op ma 2 feb 2026 om 10:00 schreef Ann <ann@x.example>:', 'Dutch'],
  ['Den mån 2 feb. 2026 kl 10:00 skrev Ann <ann@x.example>:', 'Swedish'],
  ['pon., 2 lut 2026 o 10:00 Ann <ann@x.example> napisał(a):', 'Polish'],
  ['2 февраля 2026 г., 10:00 пользователь Ann <ann@x.example> написал:', 'Russian'],
  ['在 2026年2月2日 10:00，Ann <ann@x.example> 写道：', 'Chinese'],
  ['-----Original Message-----\nFrom: Ann\nSent: Monday\nTo: Bob\nSubject: Hi', 'Outlook'],
  ['From: Ann <ann@x.example>\nSent: Monday, 2 February 2026\nTo: Bob\nSubject: Hi', 'Outlook, no ruler'],
  ['Von: Ann\nGesendet: Montag\nAn: Bob\nBetreff: Hallo', 'Outlook, German'],
  ['From: ann@x.example\nSent: Monday\nTo: Bob', 'an address and no subject'],
  ['-----Message d’origine-----', 'French ruler'],
  ['-----Oorspronkelijk bericht-----', 'Dutch ruler'],
  ['----- Пересылаемое сообщение -----', 'Russian ruler'],
  ['-----原始邮件-----', 'Chinese ruler'],
  ['----- Forwarded by Ann/ACME on 02/02/2026 -----', 'Notes'],
])('an introduction ends the new text: %s', (introduction) => {
  expect(newTextOf(`Yes.\n\n${introduction}\n\n> Shall we?\n> Ann`)).toBe('Yes.');
  expect(newTextOf(`Yes.\n\n${introduction}\n\nShall we?\nAnn`)).toBe('Yes.');
});

test.each([
  ['пн, 2 нояб. 2026 г. в 10:00, Ann <ann@x.example>:', 'Russian'],
  ['пн, 2 нояб. 2026 г. в 10:00, Ann with a long name <\nann@x.example>:', 'Russian, wrapped'],
  ['2026年11月2日(月) 10:00 Ann <ann@x.example>:', 'Japanese'],
  ['2026/11/02 10:00、Ann <ann@x.example>のメール：', 'Japanese, Apple'],
  ['On Mon, 2 Nov 2026, Ann wrote:', 'English, no address'],
])('a date, an author and a quotation below need no more: %s', (introduction) => {
  expect(newTextOf(`Yes.\n\n${introduction}\n\n> Shall we?\n> Ann`)).toBe('Yes.');
});

describe('quotations', () => {
  test('answers between them keep what they answer', () => {
    const text = 'On Monday 2 Feb 2026, Ann wrote:\n> One?\n\nYes.\n\n> Two?\n\nNo.';
    expect(newTextOf(`Hi,\n${text}\n\n> Three?`)).toBe('Hi,\n> One?\n\nYes.\n\n> Two?\n\nNo.');
  });

  test('answers that begin below the first one keep it', () => {
    const text = '> One?\nYes.\n> Two?\nNo.';
    expect(newTextOf(`On Mon, 2 Nov 2026 at 10:00, Ann <ann@x.example> wrote:\n${text}`)).toBe(text);
    expect(newTextOf('On 2 Nov 2026, Ann wrote:\n> One?\nOn 1 Nov 2026, Bob wrote:\n> Two?')).toBe('');
  });

  test('an answer below the whole quotation stands alone', () => {
    expect(newTextOf('On Monday 2 Feb 2026, Ann wrote:\n> One?\n> Two?\n\nYes to both.')).toBe(
      'Yes to both.',
    );
  });

  test('a text that is one quotation is kept, a quoted history alone is nothing new', () => {
    expect(newTextOf('> just this')).toBe('> just this');
    expect(newTextOf('> On Monday 2 Feb 2026, Ann <ann@x.example> wrote:\n>> hello')).toBe('');
    expect(newTextOf('On Monday 2 Feb 2026, Ann <ann@x.example> wrote:\n> hello')).toBe('');
  });

  test('a forwarded mail without a word of its own is its body', () => {
    const header = 'From: Ann\nDate: Monday\nSubject: Hi\nTo: Bob';
    expect(newTextOf(`---------- Forwarded message ---------\n${header}\n\nHello Bob`)).toBe('Hello Bob');
  });
});

describe('signatures', () => {
  test.each([
    '-- \nAnn\nACME',
    '--\nAnn',
    'Sent from my iPhone',
    'Von meinem iPhone gesendet',
    '发自我的iPhone',
  ])('are left out: %j', (signature) => {
    expect(newTextOf(`Yes.\n\n${signature}`)).toBe('Yes.');
  });

  test('what is too long for one stays', () => {
    const text = `Yes.\n--\n${'line\n'.repeat(30)}end`;
    expect(newTextOf(text)).toBe(text);
  });
});

test.each([
  'In her 2015 book she wrote:\n\nHello',
  'On this day\n\nI wrote something:\n\nwell',
  'Please fix:\nAt 10:30 the server wrote:\nERROR disk full\nand then stopped.',
  'Please fix:\n\nOn 2 Feb 2026 at 10:30 the server wrote:\n\nERROR disk full',
  'Who is it?\nMon, 2 Nov 2026 at 10:00, login of <ann@x.example>:\nfrom Berlin',
  'Steps:\n-----\n1. From: here\n2. To: there',
  '2026-02-02 10:00 UTC server down\n2026-02-02 10:05 UTC server up',
  '2026-02-02 10:00:01 GMT+01:00 login of <root>\nnext line',
  'From: field is required\nTo: field too',
  '| a | b |\n|---|---|\n| 1 | 2 |',
  'Message:\n--- a/file\n+++ b/file\n@@\n-x\n+y',
  'Sent from the office:\nthe parcel\nis underway',
  'From: Berlin\nTo: Paris\nDate: Friday\nCan you book it?',
  'Bitte buchen:\nVon: Berlin\nAn: Paris\nDatum: 5. Mai\n\nZwei Plätze bitte.',
  'Deploy note\n--- commit message ---\nfix: x',
  'Hello\n\n--- Nachricht für Bob ---\nbitte anrufen',
  'Please decrypt this:\n\n-----BEGIN PGP MESSAGE-----\n\nhQEMA\n-----END PGP MESSAGE-----',
  'Signed:\n-----BEGIN PGP SIGNED MESSAGE-----\nyes\n-----END PGP SIGNATURE-----',
])('is left whole: %j', (text) => {
  expect(newTextOf(text)).toBe(text);
});

test('only ever leaves lines out, in order', () => {
  const lines = '> q|text||-- |On 1 Jan 2026, A wrote:|From: a|To: b|Subject: c|Sent from my x|----';
  const line = fc.constantFrom(...lines.split('|'));
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(line).map((some) => some.join('\n')),
      ),
      (text) => {
        const left = text.split('\n');
        const kept = newTextOf(text);
        for (const wanted of kept === '' ? [] : kept.split('\n')) {
          let candidate;
          do candidate = left.shift();
          while (candidate !== undefined && candidate.trimEnd() !== wanted.trimEnd());
          expect(candidate).toBeDefined();
        }
      },
    ),
  );
});

test.each([
  '>',
  'a',
  ' ',
  '-',
  'On ',
  '<a@b ',
  'wrote: ',
  '--\n',
  '>\n',
  'From: \n',
  'On 2015 a\n',
  'On 2015 a wrote:\n> b\nc\n',
])('a megabyte of %j is taken', (piece) => {
  expect(typeof newTextOf(piece.repeat(1_000_000 / piece.length))).toBe('string');
});

describe('a hostile line costs no more than a few ordinary ones', () => {
  /** As many bytes of lines as long as a line may be that is looked at. */
  const pageOf = (line: string): string => `${line.slice(0, 393)}\n`.repeat(300);
  const ordinary = pageOf(`On ${'some words '.repeat(40)}`);

  test.each([
    ['openers before an address that never comes', `On ${';'.repeat(400)}`],
    ['openers of all kinds', `On ${'"(;<'.repeat(100)}`],
    ['openers before an @', `On ${';'.repeat(389)}@`],
    ['at signs', `On ${'a@'.repeat(200)}`],
    ['at signs in brackets, after a date', `2026-01-01 <${'a@'.repeat(200)}`],
    ['brackets after a date', `2026-01-01 ${'<a@b>'.repeat(80)}`],
    ['times after a year', `2026 ${'10:00 '.repeat(70)}`],
    ['years', `On ${'2026 10:00, '.repeat(33)}`],
    ['colons after an address', `2026-01-01 <a@b>${' : '.repeat(120)}`],
    ['a table with semicolons', '1;2;;;"x";'.repeat(40)],
    ['ends of rulers that go on', `---a${'original'.repeat(8)}${'-'.repeat(310)}x---`],
    ['verbs and blanks', `On ${`wrote${' '.repeat(50)}`.repeat(7)}x`],
    ['blanks', `${' '.repeat(392)}x`],
    ['what may begin a signature', `${'('.repeat(392)}x`],
    ['a signature of a device that does not end', `Sent from my iPhone${' , please excuse any'.repeat(20)}`],
    ['names of devices', `Gesendet mit ${'Android-Mac '.repeat(31)}x`],
  ])('%s', (_, line) => {
    const hostile = pageOf(line);
    expect(
      costRatio(
        () => newTextOf(ordinary),
        () => newTextOf(hostile),
      ),
    ).toBeLessThan(4);
  });
});

test('an introduction far down, where nobody writes one, ends nothing', () => {
  const introduction = 'On Mon, 2 Feb 2026 at 10:00, Ann <ann@x.example> wrote:';
  const textOf = (above: number): string => `${`${'a'.repeat(99)}\n`.repeat(above)}${introduction}\n> old`;
  expect(newTextOf(textOf(2_000))).not.toContain('wrote:');
  expect(newTextOf(textOf(3_000))).toContain(introduction);
});

test('the corpus of replies in ten languages', async (context) => {
  const emails = corpusFiles('email-reply-trimmer/emails/*.txt');
  context.skip(emails.length === 0, MISSING_CORPUS);
  const trimmed = corpusFiles('email-reply-trimmer/trimmed/*.txt');
  let exact = 0;
  let f1 = 0;
  for (const [index, email] of emails.entries()) {
    const got = normalised(newTextOf(normalised(email.bytes().toString())));
    const wanted = normalised(trimmed[index]?.bytes().toString() ?? '');
    exact += got === wanted ? 1 : 0;
    f1 += lineF1(got, wanted);
  }
  await context.annotate(
    `exact ${exact} of ${emails.length}, mean line F1 ${(f1 / emails.length).toFixed(3)}`,
  );
  expect(emails).toHaveLength(64);
  expect(exact).toBeGreaterThanOrEqual(EXACT_MATCHES);
});

function normalised(text: string): string {
  return text
    .split(/\r\n?|\n/)
    .map((line) => line.trimEnd())
    .join('\n')
    .replace(/^\n+|\n+$/g, '');
}

/** Harmonic mean of precision and recall over lines, blank ones aside. */
function lineF1(got: string, wanted: string): number {
  const [ours, theirs] = [got, wanted].map((text) => text.split('\n').filter((line) => line !== ''));
  const total = (ours?.length ?? 0) + (theirs?.length ?? 0);
  const left = [...(theirs ?? [])];
  const hits = (ours ?? []).filter((line) => {
    const at = left.indexOf(line);
    if (at >= 0) left.splice(at, 1);
    return at >= 0;
  }).length;
  return total === 0 ? 1 : (2 * hits) / total;
}
