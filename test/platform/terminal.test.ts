/** What a mail says cannot move the cursor of who reads it, nor turn the line around; of errors neither. */
import { execFile } from 'node:child_process';
import { expect, it } from 'vitest';
import { printable } from '../../src/platform/terminal.ts';

it('has escapes in place of what a terminal would obey, and means the same as JSON', () => {
  expect(printable('a\u001b[2Jb\rc\u202ed\u009be\tf\n')).toBe('a\\u001b[2Jb\\u000dc\\u202ed\\u009be\tf\n');
  expect(JSON.parse(printable(JSON.stringify('\u202e👩‍👩‍👧')))).toBe('\u202e👩‍👩‍👧');
});

// Only the commands that look at streams did so; `send`, `check`, `dev` and every error came as they were.
it('is so in an error, too', async () => {
  const stderr = await new Promise<string>((resolve) => {
    execFile(
      process.execPath,
      ['src/main.ts', 'upgrade', '--home', '/no\u001b[2J\u202e'],
      (_error, _stdout, said) => resolve(said),
    );
  });
  expect(stderr).toContain('/no\\u001b[2J\\u202e is not there');
  expect(stderr).not.toContain('\u001b');
});
