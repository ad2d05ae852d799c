/**
 * The floor of the sandbox's figures: isolated-vm with as little around it as there can be, in as many processes, with
 * the same flags, pipe, bundle and email. It has no prelude, no limits, no capabilities and no protections: what the
 * sandbox takes beyond it is the sandbox's own.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { createFrameReader, frameOf } from '../../src/runner/sandbox/frames.ts';
import { CHILD_LOADER, isolatedVmByPath } from '../../src/runner/sandbox/programs.ts';

export interface Floor {
  /** @returns what the tool answered */
  run(email: object): Promise<unknown>;
  close(): void;
}

interface Child {
  process: ChildProcess;
  answer: (payload: string) => void;
}

export async function startFloor(options: {
  code: string;
  children: number;
  usesJit: boolean;
}): Promise<Floor> {
  const program = await childProgram();
  const flags = ['--no-node-snapshot', ...(options.usesJit ? [] : ['--jitless']), '-e', CHILD_LOADER];
  const idle = Array.from({ length: options.children }, () => startChild(flags, [program, options.code]));
  const all = [...idle];
  const waiting: ((child: Child) => void)[] = [];
  return {
    async run(email) {
      const child = idle.shift() ?? (await new Promise<Child>((resolve) => void waiting.push(resolve)));
      const answer = new Promise<string>((resolve) => void (child.answer = resolve));
      child.process.stdin!.write(frameOf(JSON.stringify(email)));
      const payload = await answer;
      const next = waiting.shift();
      if (next) next(child);
      else idle.push(child);
      return JSON.parse(payload);
    },
    close: () => all.forEach((child) => child.process.kill('SIGKILL')),
  };
}

function startChild(flags: string[], firstFrames: string[]): Child {
  const child: Child = {
    process: spawn(process.execPath, flags, { env: {}, stdio: ['pipe', 'pipe', 'inherit'] }),
    answer: () => {},
  };
  child.process.on('exit', (code) => {
    if (code !== null) throw new Error('a process of the floor has ended');
  });
  child.process.stdout!.on(
    'data',
    createFrameReader((payload) => child.answer(payload)),
  );
  for (const frame of firstFrames) child.process.stdin!.write(frameOf(frame));
  return child;
}

async function childProgram(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('sandbox-floor-child.ts', import.meta.url))],
    bundle: true,
    write: false,
    format: 'cjs',
    platform: 'node',
    plugins: [isolatedVmByPath],
  });
  return outputFiles[0]!.text;
}
