/** Runs the body of a hostile tool: one bundle for all, which makes a function of the email's text, so that a case costs milliseconds. */
import { beforeAll } from 'vitest';
import type { ToolBundle } from '../../src/runner/bundle.ts';
import type { RunRequest, RunResult } from '../../src/runner/sandbox/sandbox.ts';
import { email, useSandbox } from '../runner/tool-fixture.ts';

const SOURCE = `const AsyncFunction = (async () => {}).constructor;
  export const test = (email, context) => new AsyncFunction('email', 'context', email.text)(email, context);`;

export type RunCode = (body: string, request?: Partial<RunRequest>) => Promise<RunResult>;

export function useToolCode(): RunCode {
  const sandbox = useSandbox({ minChildren: 2, maxChildren: 2 });
  let bundle: ToolBundle;
  beforeAll(async () => {
    bundle = await sandbox.bundle(SOURCE);
  });
  return (body, request) =>
    sandbox.run(bundle, { exportName: 'test', email: { ...email, text: body }, ...request });
}
