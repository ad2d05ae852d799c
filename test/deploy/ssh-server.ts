/**
 * A real sshd on loopback that lets one key in, for one command. With `REQUIRE_SSHD=1` its absence is a failure,
 * otherwise it is said loudly.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../streams/s2-lite.ts';

export interface SshServer {
  readonly port: number;
  /** The line of a known_hosts file. */
  readonly knownHosts: string;
  readonly privateKey: string;
  stop(): Promise<void>;
}

const SSHD = '/usr/sbin/sshd';
const START_ATTEMPTS = 200;

export function hasSshd(): boolean {
  if (existsSync(SSHD)) return true;
  const message = 'there is no sshd: deploying over SSH is NOT tested';
  if (process.env['REQUIRE_SSHD'] === '1') throw new Error(message);
  process.stderr.write(`\n*** ${message} ***\n\n`);
  return false;
}

/** @param command what the key may do, as authorized_keys has it */
export async function startSshServer(folder: string, command: string): Promise<SshServer> {
  const port = await freePort();
  const keygen = (name: string): string => {
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', join(folder, name)]);
    return readFileSync(join(folder, `${name}.pub`), 'utf8').trim();
  };
  const hostKey = keygen('host');
  const clientKey = keygen('client');
  writeFileSync(join(folder, 'authorized_keys'), `restrict,command="${command}" ${clientKey}\n`);
  const settings = {
    ListenAddress: `127.0.0.1:${port}`,
    HostKey: join(folder, 'host'),
    AuthorizedKeysFile: join(folder, 'authorized_keys'),
    PidFile: 'none',
    StrictModes: 'no',
    UsePAM: 'no',
    PasswordAuthentication: 'no',
    PermitRootLogin: 'prohibit-password',
  };
  const config = join(folder, 'sshd_config');
  writeFileSync(
    config,
    Object.entries(settings)
      .map(([name, value]) => `${name} ${value}\n`)
      .join(''),
  );
  mkdirSync('/run/sshd', { recursive: true });
  const child = spawn(SSHD, ['-D', '-e', '-f', config], { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
  const exited = once(child, 'exit');
  await untilListening(
    port,
    () => child.exitCode !== null,
    () => log,
  );
  return {
    port,
    knownHosts: `[127.0.0.1]:${port} ${hostKey}`,
    privateKey: readFileSync(join(folder, 'client'), 'utf8'),
    async stop() {
      child.kill();
      await exited;
    },
  };
}

async function untilListening(port: number, isDead: () => boolean, log: () => string): Promise<void> {
  for (let attempt = 0; attempt < START_ATTEMPTS && !isDead(); attempt += 1) {
    const socket = connect(port, '127.0.0.1');
    try {
      await once(socket, 'connect');
      return;
    } catch {
      await delay(50);
    } finally {
      socket.destroy();
    }
  }
  throw new Error(`sshd does not listen: ${log()}`);
}
