/**
 * Runs what the command line says until it is done or a signal comes. An error of ours is two lines, what is wrong and
 * what to do, and an exit code: 2 where a person has to mend something first, 1 for anything else that failed. A bug
 * shows its stack.
 */
import { inspect } from 'node:util';
import { createCommandLine } from './command-line.ts';
import { MillraceError } from './platform/errors.ts';
import { warnLine } from './platform/terminal.ts';

// Whoever reads may have seen enough (`millrace mails | head`): that ends it without a word, and with the status that a
// shell gives a program that SIGPIPE ends, because what it was doing may not be done.
const STATUS_OF_SIGPIPE = 141;
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(STATUS_OF_SIGPIPE);
  warnLine(`millrace: the output cannot be written: ${error.message}`);
  process.exit(1);
});

try {
  await createCommandLine().parseAsync();
} catch (error) {
  if (!(error instanceof MillraceError)) {
    warnLine(inspect(error));
    process.exit(1);
  }
  warnLine(`millrace: ${error.message}${error.hint === undefined ? '' : `\n${error.hint}`}`);
  process.exitCode = error.kind === 'invalid' ? 2 : 1;
}
