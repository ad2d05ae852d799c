/**
 * The program of a sandbox child process: runs one guest at a time, as the pool tells it over its pipes.
 *
 * It holds nothing worth stealing. The isolate works on another thread, so this one always hears the pipe:
 * when the parent is gone, it ends at once, however hard the tool spins. It ends by SIGKILL alone, because
 * an orderly exit waits for a thread that may be lost, and it leaves SIGTERM to the parent, who drains.
 */
import { writeSync } from 'node:fs';
import { createFrameReader, frameOf } from './frames.ts';
import { createGuestIsolate } from './guest-isolate.ts';
import type { GuestIsolate } from './guest-isolate.ts';
import type { FromChild, ToChild } from './messages.ts';

/** Put in place when this program is bundled: see `programs.ts`. */
declare const GUEST_PRELUDE: string;

const STDOUT = 1;

interface Prepared {
  isolate: GuestIsolate;
  memoryLimitMb: number;
}

let bundle = { revision: '', code: '' };
let spare: Prepared | null = null;
let running: GuestIsolate | null = null;

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

function prepare(memoryLimitMb: number): Prepared {
  return {
    isolate: createGuestIsolate({ prelude: GUEST_PRELUDE, bundle, memoryLimitMb, send }),
    memoryLimitMb,
  };
}

async function runOnce(message: ToChild & { type: 'run' }): Promise<void> {
  const { memoryLimitMb } = message.limits;
  const prepared = spare?.memoryLimitMb === memoryLimitMb ? spare : prepare(memoryLimitMb);
  spare = null;
  running = prepared.isolate;
  await running.run({ number: message.run, task: message.task, limits: message.limits });
  running = null;
  // The next run is likely to be of the same bundle.
  spare = prepare(memoryLimitMb);
}

function receive(message: ToChild): void {
  switch (message.type) {
    case 'load':
      bundle = { revision: message.revision, code: message.code };
      spare = null;
      break;
    case 'run':
      runOnce(message).catch(endProcess);
      break;
    case 'answer':
      running?.answer(message);
      break;
  }
}

const read = createFrameReader((payload) => receive(JSON.parse(payload) as ToChild));
process.stdin.on('data', (chunk: Buffer) => {
  if (!read(chunk)) endProcess();
});
process.stdin.on('close', endProcess);
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => {});
send({ type: 'ready' });
