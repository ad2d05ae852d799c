/**
 * deploy/on-server.sh where a deployment goes wrong, with `millrace` and `systemctl` that note what they are asked
 * for, and fail where a test wants it. The way there, and real secrets: deploy.test.ts.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const onServer = fileURLToPath(new URL('../../deploy/on-server.sh', import.meta.url));
const OLD = 'aaaaaaaaaaaa';
const NEW = 'b'.repeat(40);
const HAND_OUT = ['restart millrace-secrets.service', 'start millrace.target'];

let folder: string;

const path = (...names: string[]): string => join(folder, ...names);
const secrets = (): string => readFileSync(path('etc/secrets.encrypted.yaml'), 'utf8');
/** Makes the program's action (`millrace-upgrade`, `systemctl-restart`) fail. */
const failAt = (action: string): void => writeFileSync(path(`fail-${action}`), '');

function noted(program: string): string[] {
  if (!existsSync(path(program))) return [];
  return readFileSync(path(program), 'utf8').trim().split('\n');
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'millrace-on-server-'));
  for (const name of ['etc', 'bin', `releases/${OLD}`]) mkdirSync(path(name), { recursive: true });
  symlinkSync(`releases/${OLD}`, path('current'));
  writeFileSync(path('etc/secrets.encrypted.yaml'), 'before');
  script('millrace', [
    `case $1 in secrets) exit ;; esac`,
    `echo "$@" >>'${path('millrace')}'`,
    `echo 'what it says' >&2`,
    `[ ! -e '${path('fail-millrace')}-'$1 ] || exit 1`,
    `ln -sfn "releases/$(echo "$2" | head -c 12)" '${path('current')}'`,
  ]);
  script('systemctl', [
    `case $1 in cat | is-active) [ ! -e '${path('fail-systemctl')}-'$1 ]; exit ;; esac`,
    `echo "$@" >>'${path('systemctl')}'`,
    `[ ! -e '${path('fail-systemctl')}-'$1 ] || { rm '${path('fail-systemctl')}-'$1; exit 1; }`,
  ]);
});
afterEach(() => rmSync(folder, { recursive: true }));

function script(name: string, lines: readonly string[]): void {
  writeFileSync(path('bin', name), `#!/bin/sh\n${lines.join('\n')}\n`);
  chmodSync(path('bin', name), 0o755);
}

/** Where nobody listens, its outputs are closed before it says anything. */
async function ask(command: string, { input = '', isHeard = true } = {}) {
  const child = spawn(onServer, {
    env: {
      PATH: `${path('bin')}:/usr/bin:/bin`,
      MILLRACE_ETC: path('etc'),
      MILLRACE_COMMAND: path('bin/millrace'),
      MILLRACE_CURRENT: path('current'),
      SSH_ORIGINAL_COMMAND: command,
    },
  });
  if (!isHeard) for (const output of [child.stdout, child.stderr]) output.destroy();
  child.stdin.end(input);
  const [[status], said] = await Promise.all([
    once(child, 'close'),
    isHeard ? text(child.stderr) : Promise.resolve(''),
  ]);
  return { status: status as number, said };
}

// The roles that had refused the new secrets are down by then, and a restart of what they need starts none of them.
it('puts the secrets back where the release is refused, and starts what they had brought down', async () => {
  failAt('millrace-upgrade');
  const { status, said } = await ask(`deploy ${NEW}`, { input: 'after' });
  expect(status).toBe(1);
  expect(said).toContain('what ran before runs');
  expect(secrets()).toBe('before');
  expect(noted('systemctl')).toEqual([...HAND_OUT, ...HAND_OUT]);
});

it('starts nothing that its operator has stopped', async () => {
  failAt('systemctl-is-active');
  await ask(`deploy ${NEW}`, { input: 'after' });
  expect(noted('systemctl')).toEqual(['restart millrace-secrets.service']);
});

// It went on with the release, and ended as live and healthy with the secrets of before.
it('ends the deployment where its secrets cannot be handed out', async () => {
  failAt('systemctl-restart');
  const { status, said } = await ask(`deploy ${NEW}`, { input: 'after' });
  expect(status).toBe(1);
  expect(said).toContain('these secrets could not be handed out; what ran before runs');
  expect(secrets()).toBe('before');
  expect(noted('millrace')).toEqual([]);
});

// The first word that nobody read ended it (SIGPIPE), with the new secrets beside the old release.
it('puts the secrets back although the connection is lost', async () => {
  failAt('millrace-upgrade');
  expect((await ask(`deploy ${NEW}`, { input: 'after', isHeard: false })).status).toBe(1);
  expect(secrets()).toBe('before');
});

it('rolls back to the release that the deployment found', async () => {
  await ask(`deploy ${NEW}`, { input: 'after' });
  expect((await ask('rollback')).status).toBe(0);
  expect(noted('millrace')).toEqual([`upgrade ${NEW}`, `rollback ${OLD}`]);
  expect(secrets()).toBe('before');
});

// A deployment of secrets alone took back the release before it as well.
it('leaves the release alone where the deployment brought secrets only', async () => {
  const same = OLD.padEnd(40, 'a');
  await ask(`deploy ${same}`, { input: 'after' });
  expect((await ask('rollback')).status).toBe(0);
  expect(noted('millrace')).toEqual([`upgrade ${same}`]);
  expect(secrets()).toBe('before');
});

it('goes to the release before, where somebody else has brought one since', async () => {
  await ask(`deploy ${NEW}`, { input: 'after' });
  rmSync(path('current'));
  symlinkSync('releases/cccccccccccc', path('current'));
  await ask('rollback');
  expect(noted('millrace').at(-1)).toBe('rollback');
});
