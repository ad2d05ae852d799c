/** Every document of this repository: what it links to is there, down to the heading, and so is every path that it names. */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');
const patterns = ['*.md', '{docs,src,test,tools,deploy}/**/*.md'];
const documents = patterns
  // The benchmark installs its peers below `test`.
  .flatMap((pattern) => globSync(pattern, { cwd: root, exclude: ['**/node_modules'] }))
  .toSorted();

it('finds what is dead, and only that', () => {
  const text = `
[a](README.md) [b](README.md#try-it) [c](https://example.com/none.md) \`src/main.ts\` \`test/**/*.ts\`
[d](none.md) [e](README.md#none) [f](#none) \`src/none.ts\`
\`\`\`
[g](none-either.md)
\`\`\`
`;
  expect(deadIn('ANY.md', text)).toEqual(['none.md', 'README.md#none', '#none', 'src/none.ts']);
});

it('finds the documents', () => {
  expect(documents).toEqual(expect.arrayContaining(['README.md', 'docs/setup.md', 'docs/adr/0025-setup.md']));
});

describe.each(documents)('%s', (path) => {
  it('names nothing that is not there', () => {
    expect(deadIn(path, readFileSync(join(root, path), 'utf8'))).toEqual([]);
  });
});

it('decisions are numbered once each, as their titles say', () => {
  const decisions = globSync('docs/adr/*.md', { cwd: root });
  const numbers = decisions.map((path) => /\/(\d{4})-/.exec(path)?.[1] ?? path);
  expect(new Set(numbers).size).toBe(decisions.length);
  const titles = decisions.map(
    (path) => /^# (\d+)\. /.exec(readFileSync(join(root, path), 'utf8'))?.[1] ?? '',
  );
  expect(titles.map((number) => number.padStart(4, '0'))).toEqual(numbers);
});

function deadIn(path: string, text: string): string[] {
  const prose = text.replaceAll(/^```[^]*?^```/gm, '');
  const links = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target);
  const paths = prose.matchAll(/`((?:src|test|tools|deploy|docs|\.github|\.ci)\/[\w./-]+)`/g);
  return [
    ...links.filter((target) => !/^[a-z]+:/.test(target) && !isThere(path, target, text)),
    ...[...paths].map(([, named = '']) => named).filter((named) => !existsSync(join(root, named))),
  ];
}

/** A file or folder, relative to the document; of a Markdown file, the heading too. */
function isThere(from: string, target: string, ownText: string): boolean {
  const [path = '', anchor] = target.split('#');
  const file = join(root, dirname(from), path);
  if (path !== '' && !existsSync(file)) return false;
  return (
    anchor === undefined || anchorsOf(path === '' ? ownText : readFileSync(file, 'utf8')).includes(anchor)
  );
}

/** Of the headings, as GitHub makes them. */
const anchorsOf = (text: string): string[] =>
  [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  );
