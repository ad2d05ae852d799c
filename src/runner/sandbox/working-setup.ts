/**
 * How children are started on this machine. That is found out by the first one, which mostly is then the pool's first:
 * it has all layers of protection around it and starts while its program is still being made. Only where it does not
 * come to be ready is each layer tried by itself.
 */
import { MillraceError } from '../../platform/errors.ts';
import type { ChildOptions } from './child-process.ts';
import { childProgram } from './kept-program.ts';
import { allProtections, probeProtections } from './protections.ts';

/**
 * @param start starts a child, and resolves when it is ready
 * @throws what `start` throws: at once if that is MillraceError `sandbox.closed`, otherwise if it does so again
 */
export async function workingSetup(
  usesJit: boolean,
  start: (options: ChildOptions) => Promise<void>,
): Promise<ChildOptions> {
  // Not before the process is on its way.
  const building = Promise.resolve().then(() => childProgram());
  building.catch(() => {}); // Whoever waits for it below hears of it.
  const protections = allProtections(usesJit);
  try {
    await start({ program: building, protections, usesJit });
    return { program: await building, protections, usesJit };
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'sandbox.closed') throw error;
    const program = await building;
    const setup = { program, protections: await probeProtections(usesJit), usesJit };
    await start(setup);
    return setup;
  }
}
