/** The process of a sandbox child: what it is started with, and what it is denied. Its program comes over its pipe. */
import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { CHILD_LOADER, childReadPaths } from './programs.ts';
import type { Protections } from './protections.ts';

export function spawnChild(options: {
  protections: Protections;
  usesJit: boolean;
}): ChildProcessWithoutNullStreams {
  const command = [
    ...options.protections.command,
    process.execPath,
    // isolated-vm cannot live with Node's start-up snapshot.
    '--no-node-snapshot',
    ...(options.usesJit ? [] : ['--jitless']),
    '--permission',
    '--allow-addons',
    // Of the line above. To print it takes as long as to load isolated-vm.
    '--no-warnings',
    ...childReadPaths().map((path) => `--allow-fs-read=${path}`),
    '-e',
    CHILD_LOADER,
  ];
  return spawn(command[0]!, command.slice(1), { env: {}, cwd: '/', stdio: ['pipe', 'pipe', 'pipe'] });
}
