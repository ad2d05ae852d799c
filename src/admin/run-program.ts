/**
 * Runs a program of this machine (git, npm, systemctl …) with plain arguments: no shell reads them. What it says is
 * kept, up to a limit, for whoever wants to show it; it is ended with SIGKILL at its time limit.
 */
import { spawn } from 'node:child_process';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';

export interface Program {
  readonly file: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Default 60 s. */
  readonly timeoutMs?: number;
  /** In a session of its own: Ctrl-C at the terminal, or its end, is not for it; nor can it ask there. */
  readonly detached?: boolean;
}

export interface ProgramEnd {
  /** Null where it was ended by a signal, took too long, or could not be started. */
  readonly exitCode: number | null;
  readonly stdout: string;
  /** Its last words: of both outputs, or why it did not run. */
  readonly said: string;
}

export type RunProgram = (program: Program, signal?: AbortSignal) => Promise<ProgramEnd>;

const DEFAULT_TIMEOUT_MS = 60_000;
const MAX_OUTPUT_CHARS = 1_000_000;
const SAID_CHARS = 4_000;

/** Never rejects but for the caller's own abort. */
export function createRunProgram(clock: Clock): RunProgram {
  return async (program, signal) => {
    signal?.throwIfAborted();
    using deadline = createDeadline(clock, program.timeoutMs ?? DEFAULT_TIMEOUT_MS, signal);
    const end = await run(program, deadline.signal);
    signal?.throwIfAborted();
    return end;
  };
}

function run(program: Program, signal: AbortSignal): Promise<ProgramEnd> {
  const { promise, resolve } = Promise.withResolvers<ProgramEnd>();
  const child = spawn(program.file, program.args, {
    ...(program.cwd !== undefined && { cwd: program.cwd }),
    ...(program.environment && { env: { ...program.environment } }),
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: program.detached ?? false,
    signal,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout = (stdout + text).slice(0, MAX_OUTPUT_CHARS);
    said = (said + text).slice(-SAID_CHARS);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-SAID_CHARS)));
  child.once('error', (error) => {
    const message = signal.aborted ? `${program.file} took too long` : error.message;
    resolve({ exitCode: null, stdout, said: `${said}${message}` });
  });
  child.once('close', (exitCode) => resolve({ exitCode, stdout, said: said.trim() }));
  return promise;
}
