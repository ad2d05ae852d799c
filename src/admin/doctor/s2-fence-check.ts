/**
 * S2's own server on this machine: it asks nobody for a token, so that whoever reaches its port reads and writes all
 * mail. Its unit's fence (`IPAddressDeny=`, deploy/s2-lite-fence.sh) keeps other machines away. Whether it does is
 * tried, at the addresses that other machines know this one by; a firewall further out cannot be seen from here.
 */
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { createDeadline } from '../../platform/deadline.ts';
import { isLoopback } from '../admin-auth.ts';
import { fault, ok, skipped, warning } from './check.ts';
import type { Check, DoctorContext, Finding } from './check.ts';

const PART = 'S2 fence';
/** Beyond it a packet was dropped: on one machine a connection stands at once. */
const CONNECT_TIMEOUT_MS = 2_000;
/** Each bridge of a container engine has one more. */
const MAX_ADDRESSES = 32;

export const s2FenceCheck: Check = {
  part: PART,
  look: (context, signal) => lookAtFence({ ...context, addresses: outerAddresses() }, signal),
};

interface FenceContext extends Pick<DoctorContext, 'config' | 'clock' | 'run'> {
  /** Addresses of this machine that others may reach. */
  readonly addresses: readonly string[];
}

export async function lookAtFence(context: FenceContext, signal: AbortSignal): Promise<Finding[]> {
  const own = ownS2(context.config);
  if (own === null) return [skipped(PART, "no server of S2's own on this machine")];
  const { host, port } = own;
  const { addresses } = context;
  if (addresses.length === 0) return [skipped(PART, 'this machine has no address that others could reach')];
  using deadline = createDeadline(context.clock, CONNECT_TIMEOUT_MS, signal);
  const [isUp, ...answers] = await Promise.all(
    [host, ...addresses].map((address) => accepts(address, port, deadline.signal)),
  );
  signal.throwIfAborted();
  if (!isUp)
    return [skipped(PART, `S2's own server does not answer at ${host} now, so its fence shows nothing`)];
  const open = addresses.find((_address, index) => answers[index]);
  if (open === undefined)
    return [ok(PART, `S2's own server cannot be reached at ${addresses.slice(0, 3).join(', ')}`)];
  const message = `S2's own server answers at ${open}, port ${port}, and asks nobody for a token`;
  if (await hasFence(context.run, signal))
    return [
      fault(
        PART,
        `${message}: who reaches that reads and writes all mail`,
        `Close port ${port} in a firewall, now. Then \`systemctl cat s2-lite\`: is IPAddressDeny=any there? Run setup.sh again if not; systemctl restart s2-lite.`,
      ),
    ];
  return [
    warning(
      PART,
      message,
      `A firewall has to keep others away. Try from another machine: curl -m 5 http://${isIPv6(open) ? `[${open}]` : open}:${port}/health must fail.`,
    ),
  ];
}

function ownS2({ streams }: DoctorContext['config']): { host: string; port: number } | null {
  if (streams.kind !== 's2' || streams.basinEndpoint === null) return null;
  const { basinEndpoint: endpoint } = streams;
  const url = new URL(endpoint.includes('://') ? endpoint : `https://${endpoint}`);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (!isLoopback(host)) return null;
  return { host, port: Number(url.port || (url.protocol === 'http:' ? 80 : 443)) };
}

/** An address of the link alone (`fe80::`) needs its interface beside it, and is as open as the others. */
function outerAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, address }) => !internal && !/^fe80:/i.test(address))
    .map(({ address }) => address)
    .slice(0, MAX_ADDRESSES);
}

/**
 * On a busy machine the deadline may be due before anybody has looked at the socket: what it has come to is asked once
 * more, or an open port would be called closed.
 */
function accepts(host: string, port: number, deadline: AbortSignal): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ host, port });
  socket.once('connect', () => resolve(true));
  socket.once('error', () => resolve(false));
  const end = (): void => void setImmediate(resolve, false);
  if (deadline.aborted) end();
  deadline.addEventListener('abort', end, { once: true });
  return promise.finally(() => {
    deadline.removeEventListener('abort', end);
    socket.destroy();
  });
}

const isIPv6 = (address: string): boolean => address.includes(':');

/** False also where an owner whose firewall does it took the unit's own look away, as s2-lite-fence.sh says. */
async function hasFence(run: DoctorContext['run'], signal: AbortSignal): Promise<boolean> {
  const args = ['show', '--property', 'ExecStartPre', '--value', 's2-lite.service'];
  return (await run({ file: 'systemctl', args }, signal)).stdout.trim() !== '';
}
