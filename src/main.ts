/**
 * Runs what the command line says until it is done or a signal comes. An error of ours is two lines, what is wrong and
 * what to do, and an exit code: 2 where a person has to mend something first, 1 for anything else that failed. A bug
 * shows its stack.
 */
import { createCommandLine } from './command-line.ts';
import { MillraceError } from './platform/errors.ts';

try {
  await createCommandLine().parseAsync();
} catch (error) {
  if (!(error instanceof MillraceError)) throw error;
  process.stderr.write(`millrace: ${error.message}\n${error.hint === undefined ? '' : `${error.hint}\n`}`);
  process.exitCode = error.kind === 'invalid' ? 2 : 1;
}
