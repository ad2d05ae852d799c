/** A repository over SSH, from a real sshd on loopback: the key that the owner set, and whose host it is sent to. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../../src/platform/clock.ts';
import { createGitRepository } from '../../../src/runner/sync/git-checkout.ts';
import { sshAccess } from '../../../src/runner/sync/ssh-access.ts';
import type { SshOptions } from '../../../src/runner/sync/ssh-access.ts';
import { freePort } from '../../e2e/daemon.ts';
import { createBareRepository } from './bare-repository.ts';
import type { BareRepository } from './bare-repository.ts';

const SSHD = '/usr/sbin/sshd';
if (process.env['REQUIRE_SSHD'] === '1' && !existsSync(SSHD)) throw new Error(`there is no ${SSHD}`);

const signal = new AbortController().signal;
const stack = new AsyncDisposableStack();
let folder: string;
let repository: BareRepository;
let port: number;

const at = (name: string): string => join(folder, name);
const keyGenerated = (name: string): string => {
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', at(name)]);
  return readFileSync(at(name), 'utf8').trim();
};
const keyLine = (name: string): string => readFileSync(at(`${name}.pub`), 'utf8').trim();
const knownHost = (name: string): string => `[127.0.0.1]:${port} ${keyLine(name)}`;

/** Serves with this host key until the returned function is called. */
async function startSshd(hostKey: string): Promise<() => Promise<void>> {
  // Only root has it separate privileges, and then it wants this folder.
  if (userInfo().uid === 0) mkdirSync('/run/sshd', { recursive: true });
  await writeFile(
    at('sshd_config'),
    [
      `Port ${port}`,
      'ListenAddress 127.0.0.1',
      `HostKey ${at(hostKey)}`,
      `AuthorizedKeysFile ${at('authorized_keys')}`,
      'PidFile none',
      'StrictModes no',
      'UsePAM no',
      'PasswordAuthentication no',
      'PermitRootLogin yes',
    ].join('\n'),
  );
  const child = spawn(SSHD, ['-D', '-e', '-f', at('sshd_config')], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const listening = Promise.withResolvers<void>();
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    if (output.includes('Server listening')) listening.resolve();
  });
  void ended.then(() => listening.reject(new Error(output)));
  await listening.promise;
  return async () => {
    child.kill('SIGTERM');
    await ended;
  };
}

beforeAll(async () => {
  if (!existsSync(SSHD)) return;
  folder = await mkdtemp(join(tmpdir(), 'millrace-sshd-'));
  stack.defer(() => rm(folder, { recursive: true }));
  repository = stack.use(await createBareRepository());
  await repository.push({ 'tools/index.ts': `export const echo = () => 'over SSH';` });
  port = await freePort();
  for (const name of ['host', 'other-host', 'owner', 'stranger']) keyGenerated(name);
  await writeFile(at('authorized_keys'), keyLine('owner'));
});
afterAll(() => stack.disposeAsync());

function overSsh(ssh: Partial<SshOptions>) {
  return createGitRepository(
    { clock },
    {
      url: `ssh://${userInfo().username}@127.0.0.1:${port}${repository.path}`,
      branch: 'main',
      token: null,
      environment: { PATH: process.env['PATH']!, HOME: folder },
      ssh: {
        key: readFileSync(at('owner'), 'utf8').trim(),
        knownHosts: null,
        directory: at("host keys of 'ours' 100%"),
        memoryDirectory: null,
        ...ssh,
      },
    },
  );
}

const failed = (words: RegExp) => ({
  code: 'tools.git_failed',
  message: expect.stringMatching(words) as string,
});

describe.skipIf(!existsSync(SSHD))('a repository over SSH', () => {
  it('is read with the owner’s key, which lies in a file only meanwhile', async () => {
    const stop = await startSshd('host');
    try {
      const id = await overSsh({}).head(signal);
      await overSsh({}).checkout(id, at('checkout'), signal);
      expect(readFileSync(at('checkout/tools/index.ts'), 'utf8')).toContain('over SSH');
      expect(readdirSync(tmpdir()).filter((name) => name.startsWith('millrace-git-key-'))).toEqual([]);
    } finally {
      await stop();
    }
  });

  it('is not read with a key that it does not know', async () => {
    const stop = await startSshd('host');
    try {
      const key = readFileSync(at('stranger'), 'utf8').trim();
      const failure: unknown = await overSsh({ key })
        .head(signal)
        .catch((error: unknown) => error);
      expect(failure).toMatchObject(failed(/Permission denied/));
      expect(String(failure)).not.toContain(key.split('\n')[1]);
    } finally {
      await stop();
    }
  });

  it('has to show the host key that was seen first, or the one that the owner named', async () => {
    const stop = await startSshd('other-host');
    try {
      await expect(overSsh({}).head(signal)).rejects.toMatchObject(failed(/Host key verification failed/));
      const expected = overSsh({ knownHosts: knownHost('host') }).head(signal);
      await expect(expected).rejects.toMatchObject(failed(/Host key verification failed/));
      await overSsh({ knownHosts: knownHost('other-host') }).head(signal);
    } finally {
      await stop();
    }
  });
});

it('keeps the key in the service’s folder in memory, where it has one', async () => {
  const memoryDirectory = await mkdtemp(join(tmpdir(), 'millrace-memory-'));
  stack.defer(() => rm(memoryDirectory, { recursive: true }));
  const options = { key: 'a key', knownHosts: null, directory: join(memoryDirectory, 'seen') };
  {
    using access = sshAccess({ ...options, memoryDirectory });
    const [path = ''] = new RegExp(`${memoryDirectory}/[^/]+/key`).exec(access.command) ?? [];
    expect(readFileSync(path, 'utf8')).toBe('a key\n');
  }
  expect(readdirSync(memoryDirectory)).toEqual(['seen']);
});
