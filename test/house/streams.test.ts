/** The table of streams in ARCHITECTURE.md against their names and retention in the code. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { retentionFor, streamNames } from '../../src/streams/records.ts';

const RETENTION_DAYS = 90;
const DAY_SECONDS = 86_400;

/** Names of streams, with how long they are kept. */
const documented = Object.fromEntries(
  readFileSync(new URL('../../ARCHITECTURE.md', import.meta.url), 'utf8')
    .replace(/^[^]*\n## Streams\n/, '')
    .split('\n')
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .filter((cells) => cells.length === 6 && cells[1]?.startsWith('`'))
    .flatMap(([, names = '', , , kept = '']) =>
      [...names.matchAll(/`([^`]+)`/g)].map(([, name = '']) => [placeholdersGone(name), kept] as const),
    ),
);

it('has every stream, and no other', () => {
  const { inboxPrefix, ...names } = streamNames;
  const real = Object.values(names).map((name) => (typeof name === 'string' ? name : name('x', 'x')));
  expect(real.some((name) => name.startsWith(inboxPrefix))).toBe(true);
  expect(Object.keys(documented).toSorted()).toEqual(real.toSorted());
});

it('says how long each is kept', () => {
  const retention = retentionFor(RETENTION_DAYS);
  const wrong = Object.entries(documented).filter(([name, kept]) => {
    const real = retention(name);
    if (real === RETENTION_DAYS * DAY_SECONDS) return kept !== '`RETENTION_DAYS`';
    if (real === 'forever') return !/^(?:as long as needed|for ever|the last \d+)/.test(kept);
    return kept !== 'an hour' || real !== 3_600;
  });
  expect(wrong).toEqual([]);
});

function placeholdersGone(name: string): string {
  return name.replaceAll(/<\w+>/g, 'x');
}
