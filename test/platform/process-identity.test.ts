/** Who is gone for sure: real processes, as Linux shows them. Elsewhere nobody is ever said to be gone. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { systemProcesses } from '../../src/platform/process-identity.ts';

const { own, isGone } = systemProcesses;

/** The identity that a process of this machine with that pid has now. */
function identityOf(pid: number): string {
  const [boot, namespace] = own!.split(' ');
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return [boot, namespace, pid, stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]].join(' ');
}

it.runIf(process.platform === 'linux')('knows a process that runs from one that has ended', async () => {
  expect(identityOf(process.pid)).toBe(own);
  const child = spawn('sleep', ['60']);
  await once(child, 'spawn');
  const identity = identityOf(child.pid!);
  expect(isGone(identity)).toBe(false);
  child.kill('SIGSTOP');
  expect(isGone(identity)).toBe(false);
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(isGone(identity)).toBe(true);
});

it.runIf(process.platform === 'linux')('is not misled by another process under the same pid', () => {
  const [boot, namespace, pid] = own!.split(' ');
  expect(isGone(`${boot} ${namespace} ${pid} 1`)).toBe(true);
});

it.each(['', 'another-boot pid:[1] 1 1', 'no identity at all'])(
  'does not judge what it cannot see: %j',
  (identity) => {
    expect(isGone(identity)).toBe(false);
  },
);

it.runIf(process.platform === 'linux')('does not judge processes of another namespace', () => {
  const [boot] = own!.split(' ');
  expect(isGone(`${boot} pid:[1] 999999999 1`)).toBe(false);
});

it.runIf(process.platform === 'linux' && process.getuid?.() === 0)(
  'does not take a process for gone that it may not see (ProtectProc=invisible)',
  () => {
    const module = new URL('../../src/platform/process-identity.ts', import.meta.url).href;
    const ask = `const { systemProcesses } = await import(${JSON.stringify(module)});
      const [boot, namespace] = systemProcesses.own.split(' ');
      console.log([${process.pid}, 4194303].map((pid) => systemProcesses.isGone([boot, namespace, pid, 1].join(' '))).join());`;
    // Another user, in a /proc of its own that shows it no process of ours.
    const hidden =
      'mount -t proc -o hidepid=invisible proc /proc && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"';
    const command = ['--mount', 'sh', '-c', hidden, 'sh', process.execPath, '--input-type=module', '-e', ask];
    expect(execFileSync('unshare', command, { encoding: 'utf8' })).toBe('false,true\n');
  },
);
