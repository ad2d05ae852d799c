/** The tools that the README shows, each block by itself, built as the server builds what is pushed: bundled, their types checked, tried. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createCheckedBuild } from '../../src/runner/sync/checked-build.ts';
import { folderWith, useSandbox } from './tool-fixture.ts';

const sandbox = useSandbox();
const readme = readFileSync(join(import.meta.dirname, '../../README.md'), 'utf8');
const blocks = [...readme.matchAll(/^```tsx?\n([^]*?)^```/gm)].map(([, code = '']) => code);

const reverser = "{ reverser: [{ email: { text: 'abc' }, expect: { text: 'cba' } }] }";
const ticket = `{
  ticket: [
    {
      email: { subject: 'a < b', text: 'It is down.' },
      state: { last: 6 },
      expect: {
        text: '<p>a &lt; b is number 7.</p>',
        send: { to: 'ops@example.org', subject: 'Ticket 7', text: 'It is down.' },
        state: { last: 7 },
      },
    },
  ],
}`;

it('there are two', () => {
  expect(blocks).toHaveLength(2);
});

// Both in one file, the second stood on what the first imports: nobody could paste it.
it.each([
  ['the first', 0, reverser, ['reverser']],
  ['the one that writes tickets', 1, ticket, ['default', 'ticket']],
])('%s is what it says', async (_name, block, tests, tools) => {
  const index = `${blocks[block]}\nimport type { Tests } from 'millrace';\nexport const tests: Tests = ${tests};`;
  const directory = folderWith({
    'index.tsx': index,
    'tsconfig.json': '{ "compilerOptions": { "strict": true } }',
  });
  const build = createCheckedBuild({ clock, pool: sandbox.pool });
  const { exports } = await build({ directory }, new AbortController().signal);
  expect(exports.toSorted()).toEqual(tools);
});
