/**
 * deploy/deploy.sh as the workflow runs it, over a real sshd, to deploy/on-server.sh as the only command of its key.
 * Secrets are real; `millrace upgrade` is noted rather than run: it has tests of its own.
 */
import { execFileSync, spawn } from 'node:child_process';
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
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { newAgeKey, sopsBinary } from '../admin/sops-binary.ts';
import { hasSshd, startSshServer } from './ssh-server.ts';
import type { SshServer } from './ssh-server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const sops = sopsBinary();
const COMMIT = 'a'.repeat(40);

describe.skipIf(!sops || !hasSshd())('deploying over SSH', { timeout: 90_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-deploy-'));
  const etc = join(folder, 'etc');
  const log = join(folder, 'log');
  const seen = join(folder, 'seen');
  const health = createServer(
    (_request, response) => void response.writeHead(healthStatuses.shift() ?? 200).end(),
  );
  const recipients = {
    server: newAgeKey(join(folder, 'server.key')),
    actions: newAgeKey(join(folder, 'actions.key')),
  };
  const actionsKey = /AGE-SECRET-KEY-\w+/.exec(readFileSync(join(folder, 'actions.key'), 'utf8'))![0];
  /** Answers of /healthz in turn; then 200. */
  let healthStatuses: number[] = [];
  let ssh: SshServer;
  let url: string;

  beforeAll(async () => {
    mkdirSync(etc);
    mkdirSync(join(folder, 'bin'));
    mkdirSync(join(folder, 'releases'));
    const main = `'${process.execPath}' '${root}/src/main.ts'`;
    script('millrace', [
      `case $1 in`,
      `  secrets) exec ${main} "$@" ;;`,
      `  *) echo "$@" >>'${log}'; [ ! -e '${folder}/refuse' ] && ln -sfn "releases/$2" '${folder}/current' ;;`,
      `esac`,
    ]);
    script('curl', [`{ echo "$@"; env; } >>'${seen}'`, 'exec /usr/bin/curl "$@"']);
    const variables = {
      PATH: `${dirname(sops!)}:/usr/bin:/bin`,
      SOPS_AGE_KEY_FILE: join(folder, 'server.key'),
      MILLRACE_ETC: etc,
      MILLRACE_COMMAND: join(folder, 'bin/millrace'),
      MILLRACE_CURRENT: join(folder, 'current'),
    };
    const environment = Object.entries(variables).map(([name, value]) => `${name}=${value}`);
    ssh = await startSshServer(folder, `env ${environment.join(' ')} ${root}/deploy/on-server.sh`);
    health.listen(0, '127.0.0.1');
    await once(health, 'listening');
    url = `http://127.0.0.1:${(health.address() as AddressInfo).port}`;
  });
  afterAll(async () => {
    health.close();
    await ssh.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  beforeEach(() => {
    healthStatuses = [];
    for (const name of ['log', 'seen', 'refuse', 'current']) rmSync(join(folder, name), { force: true });
    symlinkSync('releases/before', join(folder, 'current'));
    writeFileSync(join(etc, 'secrets.encrypted.yaml'), 'what was there before');
  });

  it('brings commit and secrets, and shows no key to anybody', async () => {
    const file = secretsFor(recipients.server, recipients.actions);
    const { status, output } = await deploy(file);
    expect(output).toContain(`Deploying ${COMMIT}; before runs`);
    expect({ status, done: calls() }).toEqual({ status: 0, done: [`upgrade ${COMMIT}`] });
    expect(onServer()).toBe(readFileSync(file, 'utf8'));
    const shown = `${output}${readFileSync(seen, 'utf8')}`;
    expect(shown).toContain('/healthz');
    expect(shown).not.toContain(actionsKey);
    expect(shown).not.toContain('OPENSSH PRIVATE KEY');
    expect(shown).not.toContain('hush');
  });

  it('rolls back release and secrets where it is not healthy from outside', async () => {
    healthStatuses = [503, 502, 200];
    const { status, output } = await deploy(secretsFor(recipients.server, recipients.actions));
    expect({ status, done: calls() }).toEqual({ status: 1, done: [`upgrade ${COMMIT}`, 'rollback before'] });
    expect(output).toContain('was not healthy; what ran before runs again');
    expect(onServer()).toBe('what was there before');
  });

  it('puts the secrets back where the server does not take the release', async () => {
    writeFileSync(join(folder, 'refuse'), '');
    const { status, output } = await deploy(secretsFor(recipients.server, recipients.actions));
    expect(status).toBe(1);
    expect(output).toContain('what ran before runs');
    expect(onServer()).toBe('what was there before');
  });

  it('changes nothing where the server could not read the secrets', async () => {
    const { status, output } = await deploy(secretsFor(recipients.actions));
    expect({ status, done: calls() }).toEqual({ status: 1, done: [] });
    expect(output).toContain('not one of the recipients');
    expect(onServer()).toBe('what was there before');
  });

  it('sends nothing that public test keys can read', async () => {
    const key = /AGE-SECRET-KEY-\w+/.exec(readFileSync(join(root, 'deploy/public-test.age.key'), 'utf8'))![0];
    const { status, output } = await deploy(join(root, 'secrets.encrypted.yaml'), { SOPS_AGE_KEY: key });
    expect({ status, done: calls() }).toEqual({ status: 1, done: [] });
    expect(output).toContain('public test keys can read these secrets');
  });

  it('talks to no host whose key is not known', async () => {
    const DEPLOY_KNOWN_HOSTS = ssh.knownHosts.replace(
      /ssh-ed25519 .*/,
      readFileSync(join(folder, 'client.pub'), 'utf8'),
    );
    const { status, output } = await deploy(secretsFor(recipients.server, recipients.actions), {
      DEPLOY_KNOWN_HOSTS,
    });
    expect({ status, done: calls() }).toEqual({ status: 1, done: [] });
    expect(output).toContain('Host key verification failed');
  });

  it.each(['', 'cat /etc/passwd', 'deploy ../../x', 'deploy $(touch x)', 'deploy\nx'])(
    'has a key that opens no shell: %j',
    (command) => {
      const options = ['-i', join(folder, 'client'), '-p', String(ssh.port), '-o', 'BatchMode=yes'];
      const trusting = ['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null'];
      const call = (): unknown =>
        execFileSync('ssh', [...options, ...trusting, 'root@127.0.0.1', command], {
          stdio: 'pipe',
          input: '',
        });
      expect(call).toThrow(/on-server\.sh: /);
      expect(calls()).toEqual([]);
    },
  );

  /** deploy.sh, with the variables of the workflow and no others. */
  async function deploy(
    file: string,
    env: Record<string, string> = {},
  ): Promise<{ status: number; output: string }> {
    const child = spawn(join(root, 'deploy/deploy.sh'), [COMMIT], {
      env: {
        PATH: `${join(folder, 'bin')}:${dirname(process.execPath)}:${dirname(sops!)}:/usr/bin:/bin`,
        HOME: folder,
        DEPLOY_HOST: '127.0.0.1',
        DEPLOY_PORT: String(ssh.port),
        DEPLOY_KNOWN_HOSTS: ssh.knownHosts,
        DEPLOY_SSH_KEY: ssh.privateKey,
        DEPLOY_SECRETS_FILE: file,
        DEPLOY_HEALTH_ATTEMPTS: '2',
        DEPLOY_HEALTH_PAUSE: '0',
        SOPS_AGE_KEY: actionsKey,
        PUBLIC_URL: url,
        ...env,
      },
    });
    const [[status], stdout, stderr] = await Promise.all([
      once(child, 'close'),
      text(child.stdout),
      text(child.stderr),
    ]);
    return { status: status as number, output: stdout + stderr };
  }

  /** An encrypted file with one secret. */
  function secretsFor(...keys: string[]): string {
    const file = join(mkdtempSync(join(folder, 'file-')), 'secrets.encrypted.yaml');
    const types = ['--input-type', 'yaml', '--output-type', 'yaml', '--filename-override', 'x.yaml'];
    const args = ['encrypt', '--age', keys.join(','), ...types];
    writeFileSync(file, execFileSync(sops!, args, { input: 'ADMIN_TOKEN: hush\n', cwd: folder }));
    return file;
  }

  function onServer(): string {
    return readFileSync(join(etc, 'secrets.encrypted.yaml'), 'utf8');
  }

  /** What `millrace` was asked for on the server, but for secrets. */
  function calls(): string[] {
    return existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
  }

  function script(name: string, lines: readonly string[]): void {
    const path = join(folder, 'bin', name);
    writeFileSync(path, `#!/bin/sh\n${lines.join('\n')}\n`);
    chmodSync(path, 0o755);
  }
});
