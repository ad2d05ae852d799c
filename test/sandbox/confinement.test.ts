/**
 * What a sandbox process cannot do although its code is Node's: what is left to somebody who broke out of the
 * isolate, and of Node's own permissions. Each act is done in a process without the fences too, where it
 * must succeed: a refusal that is none of the fence's would show nothing.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { MillraceError } from '../../src/platform/errors.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createSandboxChild } from '../../src/runner/sandbox/child-process.ts';
import type { ChildOptions } from '../../src/runner/sandbox/child-process.ts';
import type { Capability } from '../../src/runner/sandbox/sandbox.ts';
import { workingSetup } from '../../src/runner/sandbox/working-setup.ts';
import { repliesOf, sandboxPids, useSandbox } from '../runner/tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });
/** Resolves when a child has come to be ready; it is gone then. */
async function startOnce(options: ChildOptions): Promise<void> {
  const child = createSandboxChild({ clock: systemClock }, options);
  await child.ready.finally(() => child.kill());
}
const { command, inForce, missing } = (await workingSetup(false, startOnce)).protections;
/** A container may forbid some of it; where the tests of the release run it must be there. */
const isPartial = missing.length > 0 && process.env['REQUIRE_NETNS'] !== '1';

const server = createServer((socket) => socket.end());
beforeAll(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
afterAll(() => void server.close());

/** Each ends well, or throws. */
const acts: Record<string, string> = {
  'reads a file of the machine': `fs.readFileSync('/etc/passwd')`,
  'lists a folder': `fs.readdirSync('/')`,
  'reads its parent’s environment': `fs.readFileSync('/proc/' + process.ppid + '/environ')`,
  'reads its parent’s memory': `fs.closeSync(fs.openSync('/proc/' + process.ppid + '/mem'))`,
  'reads the programs of this repository': `fs.readFileSync(${JSON.stringify(import.meta.filename)})`,
  'writes a file': `const path = '/tmp/millrace-confinement-' + process.pid; fs.writeFileSync(path, ''); fs.unlinkSync(path)`,
  'makes a folder': `fs.rmdirSync(fs.mkdtempSync('/tmp/millrace-confinement-'))`,
  'changes the mode of a file': `fs.chmodSync('/tmp', 0o1777)`,
  'starts a program': `childProcess.execFileSync('/bin/true')`,
  'starts a shell': `childProcess.execSync('true')`,
  'starts itself again': `childProcess.execFileSync(process.execPath, ['--version'])`,
  'connects over TCP': `await new Promise((resolve, reject) => net.connect(PORT, '127.0.0.1', resolve).on('error', reject))`,
  'listens over TCP': `await new Promise((resolve, reject) => net.createServer().on('error', reject).listen(0, '127.0.0.1', resolve))`,
  'listens on a name of the machine': `await new Promise((resolve, reject) => net.createServer().on('error', reject).listen('\\0millrace-confinement', resolve))`,
  'opens a UDP socket': `await new Promise((resolve, reject) => dgram.createSocket('udp4').on('error', reject).bind(0, '127.0.0.1', resolve))`,
  'asks for a name': `await dns.promises.lookup('localhost')`,
  'signals its parent': `process.kill(process.ppid, 0)`,
  'signals another process': `process.kill(1, 0)`,
  'changes its parent’s priority': `os.setPriority(process.ppid, os.getPriority(process.ppid))`,
};

async function outcomes(wrapping: string[]): Promise<Record<string, string>> {
  const { port } = server.address() as AddressInfo;
  const script = `
    const fs = require('fs'), childProcess = require('child_process'), net = require('net'), dgram = require('dgram'), dns = require('dns'), os = require('os');
    (async () => {
      const seen = {};
      ${Object.entries(acts)
        .map(
          ([name, act]) =>
            `try { ${act.replace('PORT', String(port))}; seen[${JSON.stringify(name)}] = 'done' } catch { seen[${JSON.stringify(name)}] = 'refused' }`,
        )
        .join('\n')}
      fs.writeSync(1, JSON.stringify(seen));
      process.kill(process.pid, 'SIGKILL');
    })();`;
  const line: string[] = [...wrapping, process.execPath, '--jitless', '-e', script];
  const [program = '', ...args] = line;
  // It ends by its own signal, which is one of the things that it may do.
  const end = await promisify(execFile)(program, args, { env: {}, timeout: 20_000 }).catch(
    (error: { stdout: string; signal: string }) => error,
  );
  expect(end).toMatchObject({ signal: 'SIGKILL' });
  return JSON.parse(end.stdout) as Record<string, string>;
}

describe.skipIf(isPartial)('in its fences, Node itself no longer', () => {
  let fenced: Record<string, string>;
  let free: Record<string, string>;
  beforeAll(async () => {
    [fenced, free] = await Promise.all([outcomes(command), outcomes([])]);
  }, 40_000);

  it.each(Object.keys(acts))('%s', (name) => {
    expect(free[name], 'without the fences').toBe('done');
    expect(fenced[name]).toBe('refused');
  });
});

it.skipIf(isPartial)('the kernel has it on record while a tool runs', async () => {
  let seen: unknown;
  const fetch: Capability = async () => {
    const [pid = 0] = sandboxPids();
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string): string | undefined =>
      new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1];
    const limit = (name: string): string | undefined =>
      new RegExp(`^${name}\\s+(\\d+)`, 'm').exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1];
    seen = {
      environment: readFileSync(`/proc/${pid}/environ`, 'utf8'),
      interfaces: readFileSync(`/proc/${pid}/net/dev`, 'utf8').match(/^\s*[\w-]+:/gm),
      noNewPrivileges: field('NoNewPrivs'),
      seccomp: field('Seccomp'),
      capabilities: [field('CapInh'), field('CapBnd'), field('CapEff'), field('CapAmb')],
      mayWrite: limit('Max file size'),
      core: limit('Max core file size'),
    };
    return { value: { status: 200, headers: [] } };
  };
  const result = await sandbox.runBody(`await context.fetch('https://example.com'); return 'done';`, {
    capabilities: { fetch },
  });
  expect(repliesOf(result)).toMatchObject([{ text: 'done' }]);
  const none = '0000000000000000';
  expect(seen).toEqual({
    environment: '',
    interfaces: [expect.stringMatching(/lo:/)],
    noNewPrivileges: '1',
    seccomp: '2',
    capabilities: [none, none, none, none],
    mayWrite: '0',
    core: '0',
  });
});

it('where a child does not start with all layers, each is tried, and what works is in force', async () => {
  const tried: ChildOptions[] = [];
  const setup = await workingSetup(false, async (options) => {
    tried.push(options);
    if (tried.length === 1) throw new Error('one of them does not work here');
  });
  expect(tried).toHaveLength(2);
  expect(tried[1]).toBe(setup);
  expect(setup.protections).toMatchObject({ inForce, missing });
});

it('a pool that is closed meanwhile is not started for again', async () => {
  const closed = new MillraceError('transient', 'sandbox.closed', 'closed');
  const start = vi.fn<() => Promise<void>>().mockRejectedValue(closed);
  await expect(workingSetup(false, start)).rejects.toBe(closed);
  expect(start).toHaveBeenCalledOnce();
});
