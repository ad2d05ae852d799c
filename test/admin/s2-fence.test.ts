/**
 * Doctor's look at S2's own server: can others reach it? Here 127.0.0.2 is the address that others know; a server on
 * every address is in reach there, one that is bound to 127.0.0.1 is not. The unit's own fence under a real systemd:
 * test/fresh/units.sh and setup.sh.
 */
import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { lookAtFence } from '../../src/admin/doctor/s2-fence-check.ts';
import type { Finding } from '../../src/admin/doctor/check.ts';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { parseConfig } from '../../src/platform/config.ts';

const OUTER = '127.0.0.2';
const { signal } = new AbortController();
let server: Server | undefined;
afterEach(() => void server?.close());

async function listen(host: string): Promise<string> {
  server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server!.listen(0, host, resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

interface Machine {
  endpoint?: string;
  addresses?: string[];
  /** What systemd says that the unit runs before its server. */
  execStartPre?: string;
  clock?: Clock;
}

async function look({
  endpoint,
  addresses = [OUTER],
  execStartPre = '',
  clock = systemClock,
}: Machine): Promise<Finding> {
  const variables = endpoint && {
    STREAMS: 's2',
    S2_BASIN: 'my-company-mail',
    S2_ACCESS_TOKEN: 'ignored',
    S2_ACCOUNT_ENDPOINT: endpoint,
    S2_BASIN_ENDPOINT: endpoint,
  };
  const { config } = parseConfig({ ...variables });
  const run = () => Promise.resolve({ exitCode: 0, stdout: `${execStartPre}\n`, said: '' });
  const [finding, ...more] = await lookAtFence({ config, clock, run, addresses }, signal);
  expect(more).toEqual([]);
  return finding!;
}

it('finds a server in order that only this machine reaches', async () => {
  expect(await look({ endpoint: await listen('127.0.0.1') })).toMatchObject({ status: 'ok' });
});

it('tells of one that others reach, although its unit has a fence', async () => {
  const endpoint = await listen('0.0.0.0');
  expect(await look({ endpoint, addresses: ['127.0.0.3', OUTER], execStartPre: '{ path=/fence }' })).toEqual({
    part: 'S2 fence',
    status: 'fault',
    message: expect.stringMatching(/answers at 127\.0\.0\.[23], port \d+, and asks nobody for a token/),
    mend: expect.stringMatching(/firewall, now.*IPAddressDeny=any.*setup\.sh again.*restart s2-lite/),
  });
});

it('tells of it on a machine too busy to look at its sockets in time', async () => {
  const endpoint = await listen('0.0.0.0');
  const looking = look({
    endpoint,
    clock: { ...systemClock, after: (_ms, then) => systemClock.after(1, then) },
  });
  // Both the deadline and the connection are due when this loop turns again.
  for (const until = performance.now() + 20; performance.now() < until;);
  expect(await looking).toMatchObject({ status: 'warning' });
});

it('says nothing of the fence of a server that is down', async () => {
  const endpoint = await listen('0.0.0.0');
  server!.close();
  expect(await look({ endpoint })).toMatchObject({
    status: 'skipped',
    message: expect.stringMatching(/does not answer at 127/),
  });
});

it('only warns where an owner has taken that on, and says how to try it', async () => {
  expect(await look({ endpoint: await listen('0.0.0.0') })).toMatchObject({
    status: 'warning',
    mend: expect.stringMatching(/firewall.*curl -m 5 http:\/\/127\.0\.0\.2:\d+\/health must fail/),
  });
});

it.each<[string, Machine]>([
  ['the local store', {}],
  ['a server on another machine', { endpoint: 'http://s2.example.com:4243' }],
  ['a machine with no other address', { endpoint: 'http://localhost:4243', addresses: [] }],
])('has nothing to look at with %s', async (_what, machine) => {
  expect(await look(machine)).toMatchObject({ status: 'skipped' });
});
