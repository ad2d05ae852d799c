/** docs/metrics.md against the code: every metric, its type and its labels. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { readSources } from './source.ts';

const DECLARATION = /new (Counter|Gauge|Histogram)\(\{\s*name: '(\w+)'([^]*?)\}\)/g;

const declared = Object.fromEntries(
  readSources()
    .flatMap(({ text }) => [...text.matchAll(DECLARATION)])
    .map(([, type = '', name = '', rest = '']) => {
      const labels = /labelNames: \[(.*?)\]/.exec(rest)?.[1] ?? '';
      return [name, `${type.toLowerCase()} ${labels.replaceAll("'", '') || '–'}`];
    }),
);

const documented = Object.fromEntries(
  readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => /^\| `\w+` \| (?:counter|gauge|histogram) /.test(line))
    .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')))
    .map(([, name = '', type = '', labels = '']) => [name, `${type} ${labels}`]),
);

it('every metric is documented, and every documented one is there', () => {
  expect(Object.keys(declared).length).toBeGreaterThan(10);
  expect(documented).toEqual(declared);
});
