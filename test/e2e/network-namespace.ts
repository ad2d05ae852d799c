/**
 * A network of its own for one process (Linux, root): it reaches this machine by one cable, which can be pulled.
 * Names and addresses are this test's own; nothing else on the machine is touched.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface NetworkNamespace extends AsyncDisposable {
  /** This machine, as seen from inside. */
  readonly hostAddress: string;
  /** What is put before a command so that it runs inside, under its own process id. */
  readonly prefix: readonly string[];
  /** Pulls the cable: what is under way is lost, and nobody is told. */
  disconnect(): Promise<void>;
  reconnect(): Promise<void>;
}

/** Null where there may be none; then says loudly what is not tested. With `REQUIRE_NETNS=1` that is a failure. */
export async function createNetworkNamespace(): Promise<NetworkNamespace | null> {
  const name = `millrace-${process.pid}`;
  const [outer, inner] = [`mr${process.pid}o`, `mr${process.pid}i`];
  // 198.18.0.0/15 is set aside for tests of networks (RFC 2544). Four addresses for each process id.
  const first = (process.pid % 16_384) * 4;
  const [hostAddress, address] = [first + 1, first + 2].map((n) => `198.18.${(n >> 8) & 255}.${n & 255}`);
  const ip = (...args: string[]): Promise<unknown> => run('ip', args);
  const remove = async (): Promise<void> => {
    // With its namespace the cable goes, too.
    await ip('netns', 'delete', name).catch(() => undefined);
    await ip('link', 'delete', outer).catch(() => undefined);
  };
  try {
    await ip('netns', 'add', name);
    await ip('link', 'add', outer, 'type', 'veth', 'peer', 'name', inner, 'netns', name);
    await ip('address', 'add', `${hostAddress}/30`, 'dev', outer);
    await ip('link', 'set', outer, 'up');
    await ip('-n', name, 'address', 'add', `${address}/30`, 'dev', inner);
    await ip('-n', name, 'link', 'set', inner, 'up');
    await ip('-n', name, 'link', 'set', 'lo', 'up');
  } catch (error) {
    await remove();
    const message = 'network namespaces need root on Linux: a partition is NOT tested';
    if (process.env['REQUIRE_NETNS'] === '1') throw new Error(message, { cause: error });
    process.stderr.write(`\n*** ${message} ***\n\n`);
    return null;
  }
  return {
    hostAddress: hostAddress!,
    prefix: ['ip', 'netns', 'exec', name],
    disconnect: async () => void (await ip('link', 'set', outer, 'down')),
    reconnect: async () => void (await ip('link', 'set', outer, 'up')),
    [Symbol.asyncDispose]: remove,
  };
}
