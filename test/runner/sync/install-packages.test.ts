/** `npm ci` for a tools repository, against a registry on loopback: what is installed, and what never runs. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { execFile } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../../src/platform/clock.ts';
import { createInstallPackages } from '../../../src/runner/sync/install-packages.ts';
import { folderWith } from '../tool-fixture.ts';

const run = promisify(execFile);
const signal = new AbortController().signal;
const environment = { PATH: process.env['PATH']! };
let cacheDirectory: string;
let tarball: Buffer;
let registry: { url: string; close: () => void };

/** Serves one package whose scripts leave a trace when they run. */
beforeAll(async () => {
  cacheDirectory = await mkdtemp(join(tmpdir(), 'millrace-npm-'));
  const folder = folderWith({
    'package/package.json': JSON.stringify({
      name: 'shout',
      version: '1.0.0',
      scripts: { install: 'touch ran', postinstall: 'touch ran' },
    }),
    'package/index.js': 'module.exports = (text) => text.toUpperCase();',
  });
  await run('tar', ['-czf', join(folder, 'shout.tgz'), '-C', folder, 'package']);
  tarball = readFileSync(join(folder, 'shout.tgz'));
  const server = createServer((_, response) => void response.end(tarball)).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  registry = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => server.close(),
  };
});
afterAll(async () => {
  registry.close();
  await rm(cacheDirectory, { recursive: true, force: true });
});

const manifest = JSON.stringify({ name: 'tools', version: '1.0.0', dependencies: { shout: '1.0.0' } });

function lockfile(resolved: string, integrity = `sha512-${sha512()}`): string {
  return JSON.stringify({
    name: 'tools',
    version: '1.0.0',
    lockfileVersion: 3,
    packages: {
      '': { name: 'tools', version: '1.0.0', dependencies: { shout: '1.0.0' } },
      'node_modules/shout': { version: '1.0.0', resolved, integrity, hasInstallScript: true },
    },
  });
}
const sha512 = () => createHash('sha512').update(tarball).digest('base64');
const install = createInstallPackagesIn();

function createInstallPackagesIn() {
  return (root: string) =>
    createInstallPackages({ clock }, { environment, cacheDirectory })(root, 'tools', signal);
}

describe('installing packages', () => {
  it('does nothing without a lockfile', async () => {
    const root = folderWith({ 'tools/index.ts': '', 'package.json': manifest });
    await install(root);
    expect(await readdir(root)).not.toContain('node_modules');
  });

  it('installs what the lockfile names, beside it, and runs no script', async () => {
    const resolved = `${registry.url}/shout/-/shout-1.0.0.tgz`;
    const root = folderWith({
      'package.json': manifest,
      'package-lock.json': lockfile(resolved),
      'tools/index.ts': '',
    });
    await install(root);
    expect((await readdir(join(root, 'node_modules/shout'))).sort()).toEqual(['index.js', 'package.json']);
    expect(await readdir(cacheDirectory)).not.toContainEqual(expect.stringMatching(/^install-/));
  });

  it('takes nothing whose checksum is another', async () => {
    const resolved = `${registry.url}/shout/-/shout-1.0.0.tgz`;
    const root = folderWith({
      'package.json': manifest,
      'package-lock.json': lockfile(resolved, `sha512-${Buffer.alloc(64, 1).toString('base64')}`),
      'tools/index.ts': '',
    });
    await expect(install(root)).rejects.toMatchObject({
      kind: 'transient',
      code: 'tools.install_failed',
      message: expect.stringContaining('EINTEGRITY') as string,
    });
    expect(existsSync(join(root, 'node_modules'))).toBe(false);
  });

  it('reads no npm settings of the repository, and starts no Git of its choice', async () => {
    const ran = join(cacheDirectory, 'evil-ran');
    const evil = folderWith({ git: `#!/bin/sh\ntouch ${ran}\n` });
    const root = folderWith({
      'package.json': JSON.stringify({
        name: 'tools',
        version: '1.0.0',
        dependencies: { shout: 'git+ssh://git@127.0.0.1/shout.git' },
      }),
      'package-lock.json': lockfile(`git+ssh://git@127.0.0.1/shout.git#${'0'.repeat(40)}`),
      '.npmrc': `git=${join(evil, 'git')}\nignore-scripts=false\n`,
      'tools/index.ts': '',
    });
    await run('chmod', ['+x', join(evil, 'git')]);
    await expect(install(root)).rejects.toThrow('EALLOWGIT');
    expect(existsSync(ran)).toBe(false);
  });

  it('reads no file of this machine that a lockfile points to', async () => {
    const outside = folderWith({ 'secret.tgz': '' });
    const root = folderWith({
      'package.json': manifest.replace('1.0.0"}', `file:${outside}/secret.tgz"}`),
      'package-lock.json': lockfile(`file:${outside}/secret.tgz`),
      'tools/index.ts': '',
    });
    await expect(install(root)).rejects.toThrow('EALLOWFILE');
  });

  it('takes no manifest that is a link', async () => {
    const root = folderWith({ 'package.json': manifest, 'tools/index.ts': '' });
    await run('ln', ['-s', '/etc/hostname', join(root, 'package-lock.json')]);
    await expect(install(root)).rejects.toMatchObject({ kind: 'invalid', code: 'tools.lockfile_invalid' });
  });
});
