/** What a mail says cannot move the cursor of who reads it, nor turn the line around; of errors neither. And where output goes. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
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

// `millrace dead-letters | head` ended with the stack of an EPIPE that nobody handled.
it('ends quietly where nobody reads any more, and says so where nothing can be written', async () => {
  const list = async (stdout: 'pipe' | number): Promise<[code: unknown, stderr: string]> => {
    const child = spawn(process.execPath, ['src/main.ts', 'secrets', 'list'], {
      stdio: ['ignore', stdout, 'pipe'],
    });
    child.stdout?.destroy();
    let said = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (said += text));
    const [code] = await once(child, 'close');
    return [code, said];
  };
  expect(await list('pipe')).toEqual([141, '']);
  const full = openSync('/dev/full', 'w');
  const ended = await list(full);
  closeSync(full);
  expect(ended).toEqual([1, expect.stringMatching(/^millrace: the output cannot be written: ENOSPC.*\n$/)]);
});
