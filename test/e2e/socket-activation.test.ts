/**
 * The daemon on a socket that a service manager opened: whoever connects before it is up is answered when it is.
 * This test is the service manager; test/fresh/units.sh has the real one, and restarts.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { temporaryDirectory } from './daemon.ts';
import { programEnvironment } from '../program-environment.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Starts `serve` with the socket as its descriptor 3; the pid that it is meant for is known once it runs. */
function startOn(socket: number, dataDir: string): ChildProcess {
  const daemon = 'LISTEN_PID=$$ exec "$0" src/main.ts serve';
  return spawn('sh', ['-c', daemon, process.execPath], {
    cwd: root,
    env: programEnvironment({ DATA_DIR: dataDir, LISTEN_FDS: '1', LOG_LEVEL: 'silent' }),
    stdio: ['ignore', 'ignore', 'inherit', socket],
  });
}

it('serves the socket that was handed over, from the first connection on', async () => {
  await using directory = await temporaryDirectory();
  const held = createServer().listen(0, '127.0.0.1');
  await once(held, 'listening');
  const { port } = held.address() as AddressInfo;
  // The descriptor of a listening socket: Node has no public name for it.
  const { fd } = (held as unknown as { _handle: { fd: number } })._handle;
  const daemon = startOn(fd, directory.path);
  // From here on the socket is the daemon's alone; it queues who comes before the daemon is up.
  held.close();
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/healthz`, { headers: { connection: 'close' } });
    expect(answer.status).toBe(200);
  } finally {
    daemon.kill('SIGTERM');
    await once(daemon, 'exit');
  }
  expect(daemon.exitCode).toBe(0);
});
