/** `npm ci` for a tools repository, against a registry on loopback: what is installed, and what never runs. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { execFile } from 'node:child_process';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../../src/platform/clock.ts';
import { createInstallPackages } from '../../../src/runner/sync/install-packages.ts';
import { folderWith } from '../tool-fixture.ts';

const run = promisify(execFile);
const signal = new AbortController().signal;
let cacheDirectory: string;
let tarball: Buffer;
let registry: { url: string; close: () => void };
/** What the registry answers; and what a host of the network behind us was asked for. */
let status = 200;
let inside: { url: string; asked: string[]; close: () => void };

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
  registry = await listening(({ url = '' }, response) => {
    const versions = Object.fromEntries(
      ['1.0.0', '2.0.0'].map((version) => [version, { name: 'shout', version }]),
    );
    response.writeHead(status).end(url === '/shout' ? JSON.stringify({ name: 'shout', versions }) : tarball);
  });
  const asked: string[] = [];
  inside = {
    asked,
    ...(await listening(({ url = '' }, response) => (asked.push(url), void response.end(tarball)))),
  };
});
beforeEach(() => {
  status = 200;
});
afterAll(async () => {
  registry.close();
  inside.close();
  await rm(cacheDirectory, { recursive: true, force: true });
});

async function listening(serve: RequestListener): Promise<{ url: string; close: () => void }> {
  const server = createServer(serve).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, close: () => server.close() };
}

const manifest = JSON.stringify({ name: 'tools', version: '1.0.0', dependencies: { shout: '1.0.0' } });

const OTHER_CHECKSUM = `sha512-${Buffer.alloc(64, 1).toString('base64')}`;

function lockfile(resolved: string, integrity = `sha512-${sha512()}`, version = '1.0.0'): string {
  return JSON.stringify({
    name: 'tools',
    version: '1.0.0',
    lockfileVersion: 3,
    packages: {
      '': { name: 'tools', version: '1.0.0', dependencies: { shout: '1.0.0' } },
      'node_modules/shout': { version, resolved, integrity, hasInstallScript: true },
    },
  });
}
const sha512 = () => createHash('sha512').update(tarball).digest('base64');

function install(root: string): Promise<void> {
  const environment = { PATH: process.env['PATH']!, npm_config_registry: registry.url };
  return createInstallPackages({ clock }, { environment, cacheDirectory })(root, 'tools', signal);
}

function filesWith(lock: string): string {
  return folderWith({ 'package.json': manifest, 'package-lock.json': lock, 'tools/index.ts': '' });
}

const locked = () =>
  JSON.parse(lockfile(`${registry.url}/shout/-/shout-1.0.0.tgz`)) as { packages: Record<string, object> };

/** With development dependencies besides: what the manifest wants of each, and what the lockfile has. */
function filesWithDevelopment(wanted: Record<string, [wanted: string, entry: object]>): string {
  const lock = locked();
  const devDependencies = Object.fromEntries(
    Object.entries(wanted).map(([name, [version]]) => [name, version]),
  );
  const development = Object.entries(wanted).map(([name, [, entry]]) => [
    `node_modules/${name}`,
    { ...entry, dev: true },
  ]);
  const packages = {
    ...lock.packages,
    '': { ...lock.packages[''], devDependencies },
    ...Object.fromEntries(development),
  };
  return folderWith({
    'package.json': JSON.stringify({ ...(JSON.parse(manifest) as object), devDependencies }),
    'package-lock.json': JSON.stringify({ ...lock, packages }),
    'tools/index.ts': '',
  });
}

function filesWithLarge(url: string, integrity: string): string {
  const dependencies = { large: '1.0.0', shout: '1.0.0' };
  const packages = {
    '': { name: 'tools', version: '1.0.0', dependencies },
    'node_modules/large': { version: '1.0.0', resolved: `${url}/large.tgz`, integrity },
    'node_modules/shout': { version: '1.0.0', resolved: `${url}/shout.tgz`, integrity: `sha512-${sha512()}` },
  };
  return folderWith({
    'package.json': JSON.stringify({ name: 'tools', version: '1.0.0', dependencies }),
    'package-lock.json': JSON.stringify({ name: 'tools', version: '1.0.0', lockfileVersion: 3, packages }),
    'tools/index.ts': '',
  });
}

async function installedIn(root: string): Promise<string[]> {
  const names = await readdir(join(root, 'node_modules'));
  return names.filter((name) => !name.startsWith('.')).toSorted();
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

  // They were left out as all development dependencies are, and code was refused that its author had checked.
  it('installs types, too, where they are development dependencies; of these nothing else', async () => {
    const { packages } = locked();
    const shout = packages['node_modules/shout']!;
    const root = filesWithDevelopment({ '@types/shout': ['1.0.0', shout], workbench: ['1.0.0', shout] });
    await install(root);
    expect(await installedIn(root)).toEqual(['@types', 'shout']);
  });

  it('goes on without types that come from where packages may not come from', async () => {
    const url = 'git+https://git.example/types.git';
    const entry = { version: '1.0.0', resolved: `${url}#${'0'.repeat(40)}` };
    const root = filesWithDevelopment({ '@types/shout': [url, entry] });
    await install(root);
    expect(await installedIn(root)).toEqual(['shout']);
  });

  // They counted as transient, like a registry that is away: the commit was built again and again, and nobody told.
  it.each([
    ['EINTEGRITY', 'whose checksum is another', 200, (url: string) => lockfile(url, OTHER_CHECKSUM)],
    ['E404', 'that the registry has not', 404, (url: string) => lockfile(url, OTHER_CHECKSUM)],
    [
      'EUSAGE',
      'that package.json wants in another version',
      200,
      (url: string) => lockfile(url, undefined, '2.0.0'),
    ],
    ['EUSAGE', 'of a lockfile that names no version of itself', 200, () => '{"lockfileVersion":"x"}'],
  ])('refuses the commit with %s: packages %s', async (code, _what, answered, lockfileFor) => {
    status = answered;
    const root = filesWith(lockfileFor(`${registry.url}/shout/-/shout-1.0.0.tgz`));
    await expect(install(root)).rejects.toMatchObject({
      kind: 'invalid',
      code: 'tools.lockfile_invalid',
      message: expect.stringMatching(
        new RegExp(`^npm ci: code ${code}\n(?:(?!Usage:|^npm error).)+$`, 'ms'),
      ) as string,
    });
    expect(existsSync(join(root, 'node_modules'))).toBe(false);
  });

  // What was on record was how `npm ci` is used, in sixty lines.
  it.each([
    ['tools/package-lock.json', '{', /^is no JSON: Expected property name.* \(line 1 column 2\)$/],
    ['tools/package-lock.json', 'null', /^holds no object$/],
    [
      'tools/package-lock.json',
      '{\n<<<<<<< HEAD\n"a": 1\n=======\n"a": 2\n>>>>>>> topic',
      /^holds a merge conflict in line 2$/,
    ],
    ['tools/package.json', '{ "name": ', /^is no JSON: /],
  ])('says which file is no manifest: %s with %j', async (path, content, fault) => {
    const root = folderWith({
      'tools/package.json': manifest,
      'tools/package-lock.json': lockfile(''),
      [path]: content,
    });
    const refused: Promise<unknown> = install(root);
    await expect(refused).rejects.toMatchObject({ kind: 'invalid', code: 'tools.lockfile_invalid' });
    const { message } = (await refused.catch((error: unknown) => error)) as Error;
    expect(message.slice(0, path.length + 1)).toBe(`${path} `);
    expect(message.slice(path.length + 1)).toMatch(fault);
  });

  it('tries again where the registry is unwell', async () => {
    status = 503;
    const root = filesWith(lockfile(`${registry.url}/shout/-/shout-1.0.0.tgz`, OTHER_CHECKSUM));
    await expect(install(root)).rejects.toMatchObject({ kind: 'transient', code: 'tools.install_failed' });
  });

  it.each([
    ['in the end', false],
    ['while others are still to come', true],
  ])('refuses packages that unpack to more than the limit, %s', async (_, isEndless) => {
    const folder = folderWith({ 'package/package.json': '{}', 'package/zeros': '0'.repeat(3_000_000) });
    await run('tar', ['-czf', join(folder, 'large.tgz'), '-C', folder, 'package']);
    const large = readFileSync(join(folder, 'large.tgz'));
    const host = await listening(({ url }, response) => {
      if (url === '/large.tgz' || !isEndless) response.end(url === '/large.tgz' ? large : tarball);
    });
    const root = filesWithLarge(host.url, `sha512-${createHash('sha512').update(large).digest('base64')}`);
    const environment = { PATH: process.env['PATH']!, npm_config_registry: host.url };
    // An empty one: what others have installed would not be asked for.
    const empty = folderWith({});
    const limits = { environment, cacheDirectory: empty, maxBytes: 1_000_000 };
    const refused = { kind: 'invalid', code: 'tools.packages_too_large' };
    await expect(createInstallPackages({ clock }, limits)(root, 'tools', signal)).rejects.toMatchObject(
      refused,
    );
    expect(await readdir(root)).not.toContain('node_modules');
    expect(await readdir(empty)).not.toContainEqual(expect.stringMatching(/^install-/));
    host.close();
  });

  it('asks no other host than the registry for what a lockfile names', async () => {
    const root = filesWith(lockfile(`${inside.url}/shout/-/shout-1.0.0.tgz`));
    await expect(install(root)).rejects.toMatchObject({
      code: 'tools.lockfile_invalid',
      message: expect.stringContaining('EALLOWREMOTE') as string,
    });
    expect(inside.asked).toEqual([]);
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
