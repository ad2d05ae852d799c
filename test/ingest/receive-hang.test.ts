/** A mail over which the process hangs, or is killed, is parked by one of the next, and others go on. */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { HANGS, POISONED } from './hanging-mail-work.ts';

/** So that no process outlives a test that fails. */
const MAX_PROCESS_MS = 30_000;

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'millrace-hang-'));
});
afterEach(() => rm(directory, { recursive: true }));

/** What a process that receives wrote until it was killed, which is after so many lines. */
async function receiveUntilLine(count: number, ...args: string[]): Promise<string[]> {
  const script = join(import.meta.dirname, 'receive-process.ts');
  const child = spawn(process.execPath, [script, directory, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: MAX_PROCESS_MS,
    killSignal: 'SIGKILL',
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout }))
    if (lines.push(line) === count) child.kill('SIGKILL');
  await ended;
  return lines;
}

it('a mail that hangs the process is parked by a later one', { timeout: 150_000 }, async () => {
  expect(await receiveUntilLine(1, 'two mails arrive')).toEqual([HANGS]);
  // Killed in the middle, again and again.
  expect(await receiveUntilLine(1)).toEqual([HANGS]);
  expect(await receiveUntilLine(1)).toEqual([HANGS]);
  const lines = await receiveUntilLine(3);
  expect(lines.slice(0, 2)).toEqual([HANGS, `${POISONED} dead-letter mail.thread_ended`]);
  expect(lines[2]).toMatch(/^[-\da-f]{36} done$/);
});
