/**
 * The real Caddyfile in a real Caddy, in front of real daemons: what the internet reaches, and what it does not.
 * Without a `caddy` on the PATH nothing here runs; REQUIRE_CADDY=1 makes that a failure.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Webhook } from 'svix';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort, startDaemon } from './daemon.ts';
import type { Daemon } from './daemon.ts';

const hasCaddy = spawnSync('caddy', ['version']).status === 0;
if (!hasCaddy) {
  const message = 'no caddy on the PATH: the tests of the Caddyfile do not run';
  if (process.env['REQUIRE_CADDY']) throw new Error(message);
  process.stderr.write(`\n*** ${message} ***\n`);
}

const file = new URL('../../Caddyfile', import.meta.url).pathname;
const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const TOKEN = 'correct-horse-battery-staple';
const START_ATTEMPTS = 100;

let directory: string;
let daemon: Daemon;
let mailbox: Daemon;
const proxies: ChildProcess[] = [];

/** The Caddyfile as it is, on free ports and with certificates of its own. @returns the port of HTTPS */
async function startCaddy(upstream: string): Promise<number> {
  const [httpPort, httpsPort] = [await freePort(), await freePort()];
  const ports = `\tadmin off\n\tlocal_certs\n\thttp_port ${httpPort}\n\thttps_port ${httpsPort}\n\tskip_install_trust`;
  const config = join(directory, `Caddyfile.${httpsPort}`);
  writeFileSync(config, readFileSync(file, 'utf8').replace('\tskip_install_trust', ports));
  const env = {
    PATH: process.env['PATH'],
    HOME: directory,
    XDG_DATA_HOME: directory,
    MILLRACE_SITE: 'https://localhost',
    MILLRACE_UPSTREAM: new URL(upstream).host,
  };
  proxies.push(
    spawn('caddy', ['run', '--adapter', 'caddyfile', '--config', config], { env, stdio: 'ignore' }),
  );
  for (let attempt = 0; attempt < START_ATTEMPTS; attempt++) {
    if (await ask(httpsPort, '/healthz').catch(() => null)) return httpsPort;
    await pause(100);
  }
  throw new Error('Caddy does not start');
}

interface Asked {
  method?: string;
  headers?: Record<string, string>;
  body?: string | Buffer;
}

async function open(
  port: number,
  path: string,
  { method = 'GET', headers = {}, body }: Asked = {},
): Promise<IncomingMessage> {
  const root = join(directory, 'caddy/pki/authorities/local/root.crt');
  const asked = request({
    host: 'localhost',
    port,
    path,
    method,
    headers,
    agent: false,
    ...(existsSync(root) && { ca: readFileSync(root) }),
  });
  // Whoever is refused in the middle of a body may lose the connection along with the answer's end.
  const answered = once(asked, 'response') as Promise<[IncomingMessage]>;
  asked.end(body);
  return (await answered)[0];
}

async function ask(
  port: number,
  path: string,
  asked?: Asked,
): Promise<{ status: number; headers: IncomingMessage['headers'] }> {
  const answer = await open(port, path, asked);
  answer.resume();
  return { status: answer.statusCode ?? 0, headers: answer.headers };
}

const signed = (body: string): Asked => {
  const at = new Date();
  return {
    method: 'POST',
    body,
    headers: {
      'content-type': 'application/json',
      'svix-id': 'msg_1',
      'svix-timestamp': String(Math.floor(at.getTime() / 1000)),
      'svix-signature': new Webhook(SECRET).sign('msg_1', at, body),
    },
  };
};

describe.runIf(hasCaddy)('the Caddyfile', () => {
  let port: number;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'millrace-caddy-'));
    const common = { PORT: '0', LOG_LEVEL: 'silent', ADMIN_TOKEN: TOKEN, PUBLIC_URL: 'https://localhost' };
    daemon = await startDaemon({
      ...common,
      DATA_DIR: join(directory, 'daemon'),
      MAIL_DOMAIN: 'example.com',
      RESEND_API_KEY: 're_test',
      RESEND_WEBHOOK_SECRET: SECRET,
      RESEND_BASE_URL: 'http://127.0.0.1:1',
      GIT_WEBHOOK_SECRET: 'push',
    });
    mailbox = await startDaemon({ ...common, DATA_DIR: join(directory, 'mailbox') });
    port = await startCaddy(daemon.url);
  }, 60_000);

  afterAll(async () => {
    for (const proxy of proxies) proxy.kill();
    await Promise.all([daemon.stop(), mailbox.stop()]);
    rmSync(directory, { recursive: true, force: true });
  });

  it('is valid, and formatted as Caddy does', () => {
    expect(spawnSync('caddy', ['validate', '--adapter', 'caddyfile', '--config', file]).status).toBe(0);
    expect(execFileSync('caddy', ['fmt', file], { encoding: 'utf8' })).toBe(readFileSync(file, 'utf8'));
  });

  it('lets webhooks and health through', async () => {
    const event = JSON.stringify({ type: 'contact.created', created_at: new Date().toISOString(), data: {} });
    expect((await ask(port, '/webhooks/resend', signed(event))).status).toBe(200);
    expect((await ask(port, '/webhooks/resend', { ...signed(event), body: `${event} ` })).status).toBe(401);
    expect((await ask(port, '/webhooks/git', { method: 'POST', body: '{}' })).status).toBe(401);
    expect((await ask(port, '/healthz')).status).toBe(200);
  });

  it.each([
    '/metrics',
    '/readyz',
    '/metrics/',
    '/Metrics',
    '//metrics',
    '/%6detrics',
    '/x/../metrics',
    '/readyz?a=b',
  ])('keeps %s to the machine, also with the token', async (path) => {
    const withToken = { headers: { authorization: `Bearer ${TOKEN}` } };
    expect((await ask(port, path)).status).toBeOneOf([401, 404]);
    expect((await ask(port, path, withToken)).status).toBe(404);
    expect((await ask(port, path, { headers: { ...withToken.headers, 'x-forwarded-for': '' } })).status).toBe(
      404,
    );
  });

  it.each(['/', '/api/admin/streams', '/api/admin/tools', '/nothing'])(
    'asks for the token at %s',
    async (path) => {
      expect((await ask(port, path)).status).toBe(401);
      expect((await ask(port, path, { headers: { authorization: 'Bearer wrong' } })).status).toBe(401);
    },
  );

  it('lets the console through with the token', async () => {
    const headers = { authorization: `Bearer ${TOKEN}` };
    expect((await ask(port, '/api/admin/streams', { headers })).status).toBe(200);
  });

  it('refuses bodies that no webhook has', async () => {
    const body = Buffer.alloc(3 * 1024 * 1024, 'x');
    const headers = { 'content-type': 'application/json', 'x-hub-signature-256': 'sha256=0' };
    for (const path of ['/webhooks/resend', '/webhooks/git']) {
      const { status } = await ask(port, path, { method: 'POST', headers, body });
      // 502 where the daemon has answered before Caddy could hand over all of it.
      expect(status, path).toBeOneOf([401, 413, 502]);
    }
    expect((await ask(port, '/healthz')).status).toBe(200);
  });

  it('sends headers that protect people, and none that tells what it is', async () => {
    const { headers } = await ask(port, '/healthz');
    expect(headers).toMatchObject({
      'strict-transport-security': 'max-age=31536000',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'referrer-policy': 'no-referrer',
    });
    expect(headers).not.toHaveProperty('server');
  });

  it('passes server-sent events on as they come', async () => {
    const console = await startCaddy(mailbox.url);
    const events = await open(console, '/api/mailbox/events', {
      headers: { authorization: `Bearer ${TOKEN}` },
    });
    expect(events.statusCode).toBe(200);
    const [first] = (await once(events, 'data')) as [Buffer];
    expect(first.toString()).toContain('event: change');
    events.destroy();
  });
});
