/** docs/commands.md against the command line: every command with its arguments; and how a wrong one is told. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { expect, it } from 'vitest';
import { createCommandLine } from '../../src/command-line.ts';

const documented = [
  ...readFileSync(new URL('../../docs/commands.md', import.meta.url), 'utf8').matchAll(/^\| `([^`]+)` \|/gm),
].map(([, command = '']) => command);

/** They do nothing themselves. */
const groups = ['streams', 'secrets', 'setup', 'init'];

it('every command is documented with what it must be given, and every documented one is there', () => {
  expect(documented.toSorted()).toEqual(commandsOf(createCommandLine()).toSorted());
});

it('every command says in one line what it does', () => {
  const undescribed = allOf(createCommandLine()).filter(
    (command) => !/^\S.{9,119}[^.]$/.test(command.description()),
  );
  expect(undescribed.map((command) => command.name())).toEqual([]);
});

it.each([
  ['is none', ['nosuch'], "unknown command 'nosuch'"],
  ['lacks its argument', ['trace'], "missing required argument 'id'"],
  ['contradicts itself', ['serve', '--once'], '--once is for --only sync'],
  ['is given where nothing is installed', ['upgrade', '--home', '/nowhere'], '/nowhere is not there'],
])('a command that %s ends with 2 and says so', async (_, args, message) => {
  const { code, stderr } = await millrace(args);
  expect({ code, firstLine: stderr.split('\n')[0] }).toEqual({
    code: 2,
    firstLine: expect.stringMatching(new RegExp(`^millrace: ${message}`)) as string,
  });
});

/** The commands below one, such as `streams read NAME`; of what only groups others, those. */
function commandsOf(parent: Command, prefix = ''): string[] {
  return parent.commands.flatMap((command) => {
    const name = `${prefix}${command.name()}`;
    const needed = command.registeredArguments.filter(({ required }) => required);
    const own = [name, ...needed.map((argument) => argument.name().toUpperCase())].join(' ');
    return [...(groups.includes(name) ? [] : [own]), ...commandsOf(command, `${name} `)];
  });
}

const allOf = (parent: Command): Command[] =>
  parent.commands.flatMap((command) => [command, ...allOf(command)]);

function millrace(args: readonly string[]): Promise<{ code: number; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, ['src/main.ts', ...args], (error, _, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, stderr }),
    );
  });
}
