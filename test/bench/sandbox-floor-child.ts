/**
 * The least that runs a tool in a context of its own: what `bench:sandbox` starts beside the sandbox's child process.
 * One isolate for good, the bundle compiled once, a fresh context for each run, made ahead; no prelude, no limits.
 */
import { writeSync } from 'node:fs';
import ivm from 'isolated-vm';
import { createFrameReader, frameOf } from '../../src/runner/sandbox/frames.ts';

const STDOUT = 1;
const MEMORY_LIMIT_MB = 64;

/** The first frame is the bundle, each after it an email. */
type Run = (json: string) => Promise<unknown>;

let run: Promise<Run> | null = null;
let turn: Promise<unknown> = Promise.resolve();

async function load(code: string): Promise<Run> {
  const isolate = new ivm.Isolate({ memoryLimit: MEMORY_LIMIT_MB });
  const script = await isolate.compileScript(
    `${code};(email) => JSON.stringify(__millraceTools.reverser(JSON.parse(email)))`,
  );
  let next = isolate.createContext();
  return async (email) => {
    const context = await next;
    const tool = await script.run(context, { reference: true });
    writeSync(STDOUT, frameOf((await tool.apply(undefined, [email])) as string));
    tool.release();
    context.release();
    next = isolate.createContext();
  };
}

const read = createFrameReader((payload) => {
  if (run) turn = turn.then(async () => (await run!)(payload));
  else run = load(payload);
});
process.stdin.on('data', read);
process.stdin.on('close', () => process.kill(process.pid, 'SIGKILL'));
