/** The grammar of address fields: who is named, and where it is not said exactly. Whom a reply goes to: recipient.test.ts. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { mailboxesOf } from '../../src/mail/address-field.ts';
import { costRatio } from './cost.ts';

const UNCLEAR = { name: '', address: '' };
const ann = { name: '', address: 'ann@x.example' };

test.each([
  ['', []],
  ['Ann', []],
  ['"ann@x.example"', []],
  ['(ann@x.example)', []],
  ['<>', []],
  [',;,', []],
  ['undisclosed-recipients:;', []],
  ['ann@x.example', [ann]],
  ['<ann@x.example>', [ann]],
  ['ann@x.example (Ann Lee)', [{ ...ann, name: 'Ann Lee' }]],
  ['Ann (of (the) office) Lee <ann@x.example> (away)', [{ ...ann, name: 'Ann Lee' }]],
  ['"Lee, \\"Ann\\"" <ann@x.example>', [{ ...ann, name: 'Lee, "Ann"' }]],
  ['"a b"@x.example', [{ name: '', address: '"a b"@x.example' }]],
  ['<@a,@b:ann@x.example>', [{ name: '', address: '@a,@b:ann@x.example' }]],
  ['bob@x.example <ann@x.example>', [{ ...ann, name: 'bob@x.example' }]],
  ['Team: ann@x.example, "A, B" <ann@x.example>; ann@x.example', [ann, { ...ann, name: 'A, B' }, ann]],
  ['ann@x.example bob@x.example, ann@x.example', [UNCLEAR, ann]],
  ['a@x.example(c)b@x.example', [UNCLEAR]],
  ['ann@x.example, (a', [UNCLEAR]],
  ['ann@x.example, "a\\"', [UNCLEAR]],
  ['ann@x.example <>', [UNCLEAR]],
  ['> ann@x.example <', [UNCLEAR]],
  ['<ann@x.example>>', [UNCLEAR]],
])('%j names %j', (field, mailboxes) => {
  expect(mailboxesOf(field)).toEqual(mailboxes);
});

test('a comment, whatever it holds, changes no address', () => {
  const plain = fc.stringMatching(/^[^()\\]*$/);
  const escaped = fc.constantFrom('\\(', '\\)', '\\\\', '\\<');
  const hostile = fc.constantFrom('<evil@x.example>', 'evil@x.example', ',', ';', ':', '"', '<', '>');
  const { comment } = fc.letrec<{ comment: string }>((tie) => ({
    comment: fc
      .array(fc.oneof({ maxDepth: 4 }, plain, escaped, hostile, tie('comment')), { maxLength: 5 })
      .map((parts) => `(${parts.join('')})`),
  }));
  fc.assert(
    fc.property(comment, comment, comment, (first, second, third) => {
      const fields = [`${first}ann@x.example${second}`, `${first}Ann${second}<ann@x.example>${third}`];
      for (const field of fields) expect(mailboxesOf(field)).toMatchObject([{ address: 'ann@x.example' }]);
    }),
  );
});

test.each(['(', '()', '"', '""', '"a@"', '<', '<>', ',', ':', '\\', ' ', 'a', 'a@b ', 'a@b,', '(a)<'])(
  'four times as many %j cost about four times as much',
  (piece) => {
    const field = (bytes: number): string => `x@y ${piece.repeat(bytes / piece.length)}`;
    const [small, large] = [field(50_000), field(200_000)];
    expect(
      costRatio(
        () => mailboxesOf(small),
        () => mailboxesOf(large),
      ),
    ).toBeLessThan(10);
  },
);
