/**
 * How Git reaches a repository over SSH: with the key that the owner set, which lies in a file only while Git
 * runs, in memory where the service has a folder there; or without one, with the keys of the daemon's user.
 *
 * The host's key: where `knownHosts` names it, it must be that one. Otherwise the first one seen is kept and
 * must stay the same (`accept-new`).
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface SshOptions {
  /** The private key, as `ssh-keygen` writes it. */
  key: string | null;
  /** Lines of a known_hosts file. */
  knownHosts: string | null;
  /** Where the host keys that were seen first are kept. */
  directory: string;
  /** A folder in memory, for the key; null where there is none, and it lies among temporary files. */
  memoryDirectory: string | null;
}

export interface SshAccess extends Disposable {
  /** For GIT_SSH_COMMAND, which a shell reads. */
  readonly command: string;
}

const OPTIONS = ['BatchMode=yes', 'ConnectTimeout=15', 'ForwardAgent=no', 'PermitLocalCommand=no'];

export function sshAccess(ssh: SshOptions | undefined): SshAccess {
  const options = [...OPTIONS];
  if (!ssh) return { command: commandOf(options, []), [Symbol.dispose]: () => {} };
  const { key, knownHosts, directory, memoryDirectory } = ssh;
  const folder = mkdtempSync(join(memoryDirectory ?? tmpdir(), 'millrace-git-key-'));
  const ownKey = key === null ? [] : ['-F', '/dev/null', '-i', join(folder, 'key')];
  if (key !== null) {
    writeFileSync(join(folder, 'key'), `${key}\n`, { mode: 0o600 });
    options.push('IdentitiesOnly=yes');
  }
  if (knownHosts === null) {
    mkdirSync(directory, { recursive: true });
    options.push(
      'StrictHostKeyChecking=accept-new',
      `UserKnownHostsFile=${inOption(join(directory, 'known_hosts'))}`,
    );
  } else {
    writeFileSync(join(folder, 'known_hosts'), `${knownHosts}\n`);
    options.push('StrictHostKeyChecking=yes', `UserKnownHostsFile=${inOption(join(folder, 'known_hosts'))}`);
    options.push('GlobalKnownHostsFile=/dev/null');
  }
  return {
    command: commandOf(options, ownKey),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

function commandOf(options: readonly string[], more: readonly string[]): string {
  return ['ssh', ...more, ...options.flatMap((option) => ['-o', option])].map(quoted).join(' ');
}

/** For the shell. */
function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** For ssh's own reading of an option: several files stand there with spaces between them, and `%` has a meaning. */
function inOption(path: string): string {
  return `"${path.replaceAll('%', '%%')}"`;
}
