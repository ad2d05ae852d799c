/**
 * The program of a sandbox child process: runs one guest at a time, as the pool tells it over its pipes.
 *
 * It holds nothing worth stealing. The isolate works on another thread, so this one always hears the pipe:
 * when the parent is gone, it ends at once, however hard the tool spins. It ends by SIGKILL alone, because
 * an orderly exit waits for a thread that may be lost, and it leaves SIGTERM to the parent, who drains.
 */
import { read, writeSync } from 'node:fs';
import ivm from 'isolated-vm';
import { createFrameReader, frameOf } from './frames.ts';
import { createGuestIsolate } from './guest-isolate.ts';
import type { GuestIsolate } from './guest-isolate.ts';
import type { FromChild, ToChild } from './messages.ts';

/** Put in place when this program is bundled: see `programs.ts`. */
declare const GUEST_PRELUDE: string;

const STDIN = 0;
const STDOUT = 1;
const MAX_READ_BYTES = 64 * 1024;

let bundle = { revision: '', code: '' };
/** Ready for a run of the bundle, or at one. */
let isolate: GuestIsolate | null = null;
/** Settles when what came before is done with. */
let turn = Promise.resolve();

function endProcess(): void {
  process.kill(process.pid, 'SIGKILL');
}

/** Blocks while the pipe is full: a guest that floods waits for its parent. */
function send(message: FromChild): void {
  const frame = frameOf(JSON.stringify(message));
  try {
    for (let written = 0; written < frame.length;) written += writeSync(STDOUT, frame, written);
  } catch {
    endProcess();
  }
}

async function load(message: ToChild & { type: 'load' }): Promise<void> {
  bundle = { revision: message.revision, code: message.code };
  isolate?.dispose();
  isolate = null;
}

async function run({ run: number, task, limits }: ToChild & { type: 'run' }): Promise<void> {
  const { memoryLimitMb } = limits;
  if (isolate?.memoryLimitMb !== memoryLimitMb) {
    isolate?.dispose();
    isolate = newIsolate(memoryLimitMb);
  }
  const isReusable = await isolate.run({ number, task, limits });
  // The next run is likely to be of the same bundle.
  if (!isReusable) isolate = newIsolate(memoryLimitMb);
}

function newIsolate(memoryLimitMb: number): GuestIsolate {
  return createGuestIsolate({ prelude: GUEST_PRELUDE, bundle, memoryLimitMb, send });
}

/** A run is answered before its isolate is ready for the next; what the parent sends meanwhile waits its turn. */
function receive(message: ToChild): void {
  switch (message.type) {
    case 'load':
      turn = turn.then(() => load(message));
      break;
    case 'run':
      turn = turn.then(() => run(message)).catch(endProcess);
      break;
    case 'answer':
      isolate?.answer(message);
      break;
  }
}

/** Not by `process.stdin`: what Node loads for it takes as long as all else that this program does at its start. */
function listen(): void {
  const take = createFrameReader((payload) => receive(JSON.parse(payload) as ToChild));
  const buffer = Buffer.allocUnsafe(MAX_READ_BYTES);
  const readNext = (): void =>
    read(STDIN, buffer, 0, MAX_READ_BYTES, null, (error, length) => {
      // At its end, the parent is gone.
      if (error || length === 0 || !take(Buffer.from(buffer.subarray(0, length)))) endProcess();
      else readNext();
    });
  readNext();
}

listen();
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => {});
// Who is told that this process is ready takes it that all of what holds it down lets isolates be.
const trial = new ivm.Isolate();
trial.createContextSync();
trial.dispose();
send({ type: 'ready' });
