/** docs/errors.md against the sources: every code that an error is made with, and its kinds. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { parseSource, readSources } from './source.ts';
import type { ErrorCode } from './source.ts';

const sources = readSources();
const made = kindsByCode(sources.flatMap(({ errorCodes }) => errorCodes));
const answered = new Set(sources.flatMap(({ answeredCodes }) => answeredCodes));
const documented = kindsByCode(
  readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')))
    .flatMap(([, code = '', kinds = '']) => kinds.split(', ').map((kind) => ({ code, kind }))),
);

it('finds the ways in which codes are written', () => {
  const text = `
    throw new MillraceError('invalid', 'a.one', 'message');
    fail('bug', 'a.two');
    const verdict = { kind: 'transient', code: 'a.three', retryAfterMs: 1 };
    throw new MillraceError('permanent', \`a.\${reason}\`, 'message');
    new StreamConditionError('a.four', 'message');
    throw new MillraceError('invalid', answer.code ?? 'a.seven', 'message');
    c.json({ error: { code: 'a.eight', message, hint: null } }, 413);
    log.info({}, 'a.five'); hasCode(error, 'a.six');
  `;
  const source = parseSource('src/mail/a.ts', text);
  expect(source.answeredCodes).toEqual(['a.eight']);
  expect(kindsByCode(source.errorCodes)).toEqual({
    'a.one': 'invalid',
    'a.two': 'bug',
    'a.three': 'transient',
    'a.*': 'permanent',
    'a.four': 'permanent',
    'a.seven': 'invalid',
  });
});

it('every code that is made is documented with its kinds', () => {
  const fixed = Object.fromEntries(Object.entries(made).filter(([code]) => !code.endsWith('*')));
  expect(documented).toMatchObject(fixed);
});

it('every code that is answered is documented', () => {
  expect([...answered].filter((code) => !(code in documented))).toEqual([]);
});

it('every code that is documented is made somewhere', () => {
  const open = Object.keys(made).filter((code) => code.endsWith('*'));
  const text = sources.map((source) => source.text).join('\n');
  const isMade = (code: string): boolean => {
    const prefix = open.map((pattern) => pattern.slice(0, -1)).find((start) => code.startsWith(start));
    return (
      code in made ||
      answered.has(code) ||
      (prefix !== undefined && text.includes(`'${code.slice(prefix.length)}'`))
    );
  };
  expect(Object.keys(documented).filter((code) => !isMade(code))).toEqual([]);
  // A code that is put together at run time is documented by its members.
  for (const pattern of open) {
    expect(Object.keys(documented).filter((code) => code.startsWith(pattern.slice(0, -1)))).not.toEqual([]);
  }
});

function kindsByCode(codes: readonly ErrorCode[]): Record<string, string> {
  const kinds = new Map<string, Set<string>>();
  for (const { code, kind } of codes) kinds.set(code, (kinds.get(code) ?? new Set()).add(kind));
  return Object.fromEntries([...kinds].map(([code, set]) => [code, [...set].toSorted().join(', ')]));
}
