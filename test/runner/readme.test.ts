/** The tools that the README shows, built as the server builds what is pushed: bundled, their types checked, tried. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createCheckedBuild } from '../../src/runner/sync/checked-build.ts';
import { folderWith, useSandbox } from './tool-fixture.ts';

const sandbox = useSandbox();
const readme = readFileSync(join(import.meta.dirname, '../../README.md'), 'utf8');
const examples = [...readme.matchAll(/^```tsx?\n([^]*?)^```/gm)].map(([, code]) => code).join('\n');

const tests = `
import type { Tests } from 'millrace';
export const tests: Tests = {
  reverser: [{ email: { text: 'abc' }, expect: { text: 'cba' } }],
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
};`;

const directory = folderWith({
  'index.tsx': `${examples}\n${tests}`,
  'tsconfig.json': '{ "compilerOptions": { "strict": true } }',
});

it('are what they say', async () => {
  const build = createCheckedBuild({ clock, pool: sandbox.pool });
  const { exports } = await build({ directory }, new AbortController().signal);
  expect(exports.toSorted()).toEqual(['default', 'reverser', 'ticket']);
});
