/**
 * What `millrace doctor` says of the certificate of PUBLIC_URL: against certificates as an authority gives them, and
 * against those that a real Caddy makes by itself. Without `caddy` those do not run; REQUIRE_CADDY=1 makes that a failure.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Finding } from '../../src/admin/doctor/check.ts';
import { diagnose } from '../../src/admin/doctor/doctor-command.ts';
import { parseConfig } from '../../src/platform/config.ts';
import { createLog } from '../../src/platform/log.ts';

const hasCaddy = spawnSync('caddy', ['version']).status === 0;
if (!hasCaddy && process.env['REQUIRE_CADDY']) throw new Error('no caddy on the PATH');

const trusted = getCACertificates('default');
const cleanup: (() => unknown)[] = [];
let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'millrace-certificate-'));
  openssl([
    'req',
    '-x509',
    ...NEW_KEY,
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
    '-days',
    '2',
    '-subj',
    '/CN=ca',
  ]);
  openssl(['req', ...NEW_KEY, '-keyout', 'site.key', '-out', 'site.csr', '-subj', '/CN=site']);
});
afterEach(async () => {
  for (const end of cleanup.splice(0)) await end();
  setDefaultCACertificates(trusted);
});
afterAll(() => rmSync(directory, { recursive: true }));

it.each<[string, number, string, Finding['status'], RegExp]>([
  ['is in order', 60, 'localhost', 'ok', /valid, (59|60) days left/],
  ['ends soon', 3, 'localhost', 'warning', /[23] days left/],
  ['has ended', -1, 'localhost', 'fault', /CERT_HAS_EXPIRED/],
  ['is for another name', 60, 'elsewhere.example', 'fault', /ERR_TLS_CERT_ALTNAME_INVALID/],
])('tells of one that %s', async (_what, days, name, status, words) => {
  setDefaultCACertificates([...trusted, read('ca.crt')]);
  const found = await certificateAt(`https://localhost:${await serve(days, name)}`);
  expect(found).toMatchObject({ status, message: expect.stringMatching(words) });
  expect(found?.mend === undefined).toBe(status === 'ok');
});

it('tells of one that nobody else trusts', async () => {
  const found = await certificateAt(`https://localhost:${await serve(60, 'localhost')}`);
  expect(found).toMatchObject({ status: 'fault', message: expect.stringMatching(/UNABLE_TO_VERIFY|ISSUER/) });
});

it('leaves it to others to tell that nobody answers', async () => {
  const findings = await examine('https://localhost:9');
  expect(findings).toContainEqual(expect.objectContaining({ part: 'certificate', status: 'skipped' }));
  expect(findings).toContainEqual(expect.objectContaining({ part: 'public URL', status: 'fault' }));
});

describe.runIf(hasCaddy)("a real Caddy's own", () => {
  it('is trusted by nobody, and by who trusts its authority only for the hours that it lasts', async () => {
    const { port, home } = await startCaddy();
    expect(await certificateAt(`https://localhost:${port}`)).toMatchObject({ status: 'fault' });
    setDefaultCACertificates([...trusted, read(join(home, 'caddy/pki/authorities/local/root.crt'))]);
    expect(await certificateAt(`https://localhost:${port}`)).toMatchObject({
      status: 'warning',
      message: expect.stringMatching(/0 days left/),
    });
  });

  it('is missing for a name that it was not told of', async () => {
    const { port } = await startCaddy();
    expect(await certificateAt(`https://127.0.0.1:${port}`)).toMatchObject({
      status: 'fault',
      message: expect.stringMatching(/alert/),
      mend: expect.stringMatching(/journalctl -u caddy/),
    });
  });
});

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

function openssl(args: readonly string[]): void {
  execFileSync('openssl', args, { cwd: directory, stdio: 'ignore' });
}

const read = (name: string): string => readFileSync(resolve(directory, name), 'utf8');

const examine = (publicUrl: string): Promise<Finding[]> => {
  const variables = { MAIL_DOMAIN: 'agents.example', PUBLIC_URL: publicUrl, DATA_DIR: directory };
  return diagnose(parseConfig(variables), { log: createLog('silent'), dnsServers: [] });
};

const certificateAt = async (publicUrl: string): Promise<Finding | undefined> =>
  (await examine(publicUrl)).find(({ part }) => part === 'certificate');

/** A server with a certificate of our authority. @returns its port */
async function serve(days: number, name: string): Promise<number> {
  writeFileSync(join(directory, 'site.ext'), `subjectAltName=DNS:${name}\n`);
  const authority = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', 'site.ext'];
  openssl(['x509', '-req', '-in', 'site.csr', ...authority, '-days', String(days), '-out', 'site.crt']);
  const server = createServer({ key: read('site.key'), cert: read('site.crt') }, (_request, response) =>
    response.end('{}'),
  );
  cleanup.push(() => {
    server.closeAllConnections();
    server.close();
  });
  server.listen(0, 'localhost');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** With a certificate of its own for `localhost`, below `home`. */
async function startCaddy(): Promise<{ port: string; home: string }> {
  const home = mkdtempSync(join(directory, 'caddy-'));
  const config = join(home, 'Caddyfile');
  const global = '{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n}\n';
  writeFileSync(config, `${global}https://localhost:0 {\n\ttls internal\n\trespond ok\n}\n`);
  const caddy = spawn('caddy', ['run', '--adapter', 'caddyfile', '--config', config], {
    env: { PATH: process.env['PATH'], HOME: home, XDG_DATA_HOME: home },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  cleanup.push(async () => {
    caddy.kill();
    await once(caddy, 'exit');
  });
  let port: string | undefined;
  for await (const line of createInterface({ input: caddy.stderr })) {
    port ??= /"actual_address":"\S*:(\d+)"/.exec(line)?.[1];
    if (line.includes('certificate obtained successfully') && port) return { port, home };
  }
  throw new Error('Caddy does not start');
}
