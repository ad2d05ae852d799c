/** The environment as owners write it: defaults, what each variable becomes, and a table of bad ones. */
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { parseConfig, variableNames } from '../../src/platform/config.ts';
import { hasCode } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Role } from '../../src/platform/roles.ts';

const webhookSecret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const resend = { MAIL_DOMAIN: 'example.com', RESEND_API_KEY: 're_one', RESEND_WEBHOOK_SECRET: webhookSecret };
const s2 = { MAIL_DOMAIN: 'example.com', STREAMS: 's2', S2_ACCESS_TOKEN: 's2_token' };

describe('a good environment', () => {
  it('may be empty: everything runs on this machine', () => {
    const { config, secrets } = parseConfig({});
    expect(config).toEqual({
      domains: ['millrace.localhost'],
      publicUrl: null,
      resend: null,
      streams: { kind: 'local' },
      dataDir: './data',
      tools: { repo: null, branch: null, path: 'tools', sshKnownHosts: null, githubApiUrl: null },
      dnsServers: [],
      host: '127.0.0.1',
      port: 8080,
      metricsPort: null,
      retentionDays: 90,
      logLevel: 'info',
      supervisor: { notifySocket: null, watchdogMs: null, listenFd: null, runtimeDir: null },
    });
    expect(secrets).toEqual({
      resendApiKey: null,
      resendSendingKey: null,
      resendWebhookSecrets: [],
      s2AccessToken: null,
      githubPat: null,
      toolsSshKey: null,
      gitWebhookSecret: null,
      adminToken: null,
      tools: new Map(),
    });
  });

  it('is trimmed, and blank counts as not set', () => {
    const env = { PORT: ' 9000\n', HOST: ' ', RESEND_API_KEY: '', TOOL_SECRET_: ' ', PATH: '/bin' };
    expect(parseConfig(env).config).toMatchObject({ port: 9000, host: '127.0.0.1', resend: null });
  });

  it('gives domains in lower-case ASCII, each once', () => {
    const env = { MAIL_DOMAIN: 'Example.COM, MÜNCHEN.de ,xn--mnchen-3ya.de,example.org.' };
    expect(parseConfig(env).config.domains).toEqual(['example.com', 'xn--mnchen-3ya.de', 'example.org']);
  });

  it('gives Resend two keys or one, and several webhook secrets during a rotation', () => {
    const one = parseConfig(resend).secrets;
    expect(one.resendSendingKey?.reveal()).toBe('re_one');
    const env = {
      ...resend,
      RESEND_SENDING_KEY: 're_two',
      RESEND_WEBHOOK_SECRET: `${webhookSecret} whsec_c2Vjb25k`,
    };
    const { config, secrets } = parseConfig({ ...env, RESEND_BASE_URL: 'http://127.0.0.1:5000/' });
    expect(config.resend).toEqual({ baseUrl: 'http://127.0.0.1:5000' });
    expect(secrets.resendApiKey?.reveal()).toBe('re_one');
    expect(secrets.resendSendingKey?.reveal()).toBe('re_two');
    expect(secrets.resendWebhookSecrets.map((secret) => secret.reveal())).toEqual([
      webhookSecret,
      'whsec_c2Vjb25k',
    ]);
  });

  it.each([
    [
      'the main domain with hyphens',
      { ...s2, MAIL_DOMAIN: 'mail.example.com,example.org' },
      'mail-example-com',
    ],
    ['the name it is given', { ...s2, MAIL_DOMAIN: 'a.de', S2_BASIN: 'another-name' }, 'another-name'],
    [
      'the name it is given, without a domain',
      { ...s2, MAIL_DOMAIN: '', S2_BASIN: 'another-name' },
      'another-name',
    ],
  ])('puts streams into a basin of %s', (_name, env, basin) => {
    expect(parseConfig(env).config.streams).toEqual({
      kind: 's2',
      basin,
      accountEndpoint: null,
      basinEndpoint: null,
    });
  });

  it('takes endpoints as the SDK does', () => {
    const endpoints = { S2_ACCOUNT_ENDPOINT: 'a.s2.dev', S2_BASIN_ENDPOINT: 'https://{basin}.b.s2.dev' };
    expect(parseConfig({ ...s2, ...endpoints }).config.streams).toMatchObject({
      accountEndpoint: 'a.s2.dev',
      basinEndpoint: 'https://{basin}.b.s2.dev',
    });
  });

  it.each([
    [
      'variables of the s2 tool with local streams',
      { S2_ACCESS_TOKEN: 'x', S2_ACCOUNT_ENDPOINT: 'localhost:4443' },
    ],
    ['a basin kept for later', { STREAMS: 'local', S2_BASIN: 'another-name' }],
    ['a repository by ssh', { TOOLS_REPO: 'git@github.com:you/tools.git', TOOLS_BRANCH: 'release/1' }],
    ['a repository by ssh with a user', { TOOLS_REPO: 'ssh://git@example.com/tools.git' }],
    ['a repository on this machine', { TOOLS_REPO: '/srv/git/tools.git' }],
    ['tools from anywhere on this machine', { TOOLS_PATH: '../tools' }],
    ['any free port', { PORT: '0', HOST: '::1' }],
  ])('may have %s', (_name, env) => {
    expect(() => parseConfig(env)).not.toThrow();
  });

  it('keeps the secrets of tools by name', () => {
    const { tools } = parseConfig({ TOOL_SECRET_DEEPL_KEY: ' k1 ', TOOL_SECRET_EMPTY: '' }).secrets;
    expect([...tools].map(([name, secret]) => [name, secret.reveal()])).toEqual([['DEEPL_KEY', 'k1']]);
  });
});

describe('a role that runs alone', () => {
  const { MAIL_DOMAIN, RESEND_API_KEY, RESEND_WEBHOOK_SECRET } = resend;
  it.each<[Role, Record<string, string>]>([
    ['ingest', { RESEND_API_KEY, RESEND_WEBHOOK_SECRET }],
    ['runner', {}],
    ['outbox', { RESEND_SENDING_KEY: 're_two' }],
    ['sync', { TOOLS_REPO: 'https://example.com/tools.git', GITHUB_PAT: 'pat' }],
  ])('%s needs the keys of its own work only', (only, env) => {
    expect(() => parseConfig({ ...s2, ...env }, { only })).not.toThrow();
  });

  it.each<[Role, string[]]>([
    ['ingest', ['RESEND_API_KEY', 'STREAMS', 'MAIL_DOMAIN']],
    ['runner', ['STREAMS', 'MAIL_DOMAIN']],
    ['outbox', ['RESEND_SENDING_KEY', 'STREAMS', 'MAIL_DOMAIN']],
    ['sync', ['STREAMS', 'MAIL_DOMAIN', 'TOOLS_REPO']],
  ])('%s says what it lacks', (only, variables) => {
    expect(faultsOf({}, only)).toEqual(variables);
  });

  it('has the domain of the others', () => {
    expect(parseConfig({ ...s2, MAIL_DOMAIN }, { only: 'runner' }).config.domains).toEqual(['example.com']);
  });
});

describe('a repository over SSH', () => {
  const key = '-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\nAAAA\n-----END OPENSSH PRIVATE KEY-----';
  const TOOLS_REPO = 'git@git.example:you/tools.git';

  it.each([
    ['in lines', `${key}\n`],
    ['in one line', key.replaceAll('\n', '\\n')],
    ['from Windows', key.replaceAll('\n', '\r\n')],
  ])('takes its key %s', (_, TOOLS_SSH_KEY) => {
    expect(parseConfig({ TOOLS_REPO, TOOLS_SSH_KEY }).secrets.toolsSshKey?.reveal()).toBe(key);
  });

  it('takes host keys with their line breaks, or with each written as \\n', () => {
    const hostKeys = 'git.example ssh-ed25519 AAAA\ngit.example ecdsa-sha2-nistp256 BBBB';
    for (const TOOLS_SSH_KNOWN_HOSTS of [hostKeys, hostKeys.replace('\n', '\\n')])
      expect(parseConfig({ TOOLS_REPO, TOOLS_SSH_KNOWN_HOSTS }).config.tools.sshKnownHosts).toBe(hostKeys);
  });

  it.each([key.slice(0, -10), 'ssh-ed25519 AAAA', key.replace('AAAA', '$(id)')])(
    'takes nothing else for one (%#)',
    (TOOLS_SSH_KEY) => {
      expect(faultsOf({ TOOLS_REPO, TOOLS_SSH_KEY })).toEqual(['TOOLS_SSH_KEY']);
    },
  );

  it('is what a key is for', () => {
    const env = { TOOLS_REPO: 'https://git.example/you/tools.git', TOOLS_SSH_KEY: key };
    expect(faultsOf(env)).toEqual(['TOOLS_SSH_KEY']);
  });
});

describe('a service manager', () => {
  const handed = {
    LISTEN_PID: '77',
    LISTEN_FDS: '1',
    LISTEN_FDNAMES: 'http',
    NOTIFY_SOCKET: '/run/notify',
    RUNTIME_DIRECTORY: '/run/a:/run/b',
  };
  const watched = { WATCHDOG_USEC: '30000000', WATCHDOG_PID: '77' };

  it('hands over a socket, and says where and how often to report', () => {
    expect(parseConfig({ ...handed, ...watched }, { pid: 77 }).config.supervisor).toEqual({
      notifySocket: '/run/notify',
      watchdogMs: 30_000,
      listenFd: 3,
      runtimeDir: '/run/a',
    });
  });

  it('may mean another process', () => {
    expect(parseConfig({ ...handed, ...watched }, { pid: 78 }).config.supervisor).toMatchObject({
      watchdogMs: null,
      listenFd: null,
    });
  });

  it('hands over secrets, where the environment does not set them', () => {
    const credentials = { RESEND_API_KEY: 're_filed\n', ADMIN_TOKEN: 'filed', TOOL_SECRET_A: 'k1' };
    const { secrets } = parseConfig({ ...resend, RESEND_API_KEY: '', ADMIN_TOKEN: 'set' }, { credentials });
    expect(secrets.resendApiKey?.reveal()).toBe('re_filed');
    expect(secrets.adminToken?.reveal()).toBe('set');
    expect(secrets.tools.get('A')?.reveal()).toBe('k1');
  });

  it('may not hand over two sockets', () => {
    expect(() => parseConfig({ ...handed, LISTEN_FDS: '2' }, { pid: 77 })).toThrow(/LISTEN_FDS hands over/);
  });
});

describe('a bad environment', () => {
  it.each<[string, Record<string, string>, string]>([
    ['an address for a domain', { MAIL_DOMAIN: 'me@example.com' }, 'MAIL_DOMAIN must be a domain'],
    ['a URL for a domain', { MAIL_DOMAIN: 'https://example.com' }, 'MAIL_DOMAIN must be a domain'],
    ['a domain of one label', { MAIL_DOMAIN: 'localhost' }, 'MAIL_DOMAIN must be a domain'],
    ['an IP address for a domain', { MAIL_DOMAIN: '127.0.0.1' }, 'MAIL_DOMAIN must be a domain'],
    ['one bad domain among good ones', { MAIL_DOMAIN: 'example.com,,b.de' }, 'MAIL_DOMAIN must be a domain'],
    ['domains without a comma', { MAIL_DOMAIN: 'a.com b.com' }, 'MAIL_DOMAIN must be a domain'],
    ['a public URL without a scheme', { PUBLIC_URL: 'mail.example.com' }, 'PUBLIC_URL must be the URL'],
    ['a public URL with a query', { PUBLIC_URL: 'https://example.com/?a=b' }, 'PUBLIC_URL must be the URL'],
    [
      'credentials in a URL',
      { RESEND_BASE_URL: 'http://me:pw@example.com' },
      'RESEND_BASE_URL must be a URL without cred',
    ],
    ['a key in two words', { ...resend, RESEND_API_KEY: 're_a re_b' }, 'RESEND_API_KEY holds a space'],
    [
      'a typographic dash in a key',
      { ADMIN_TOKEN: 'a–b' },
      'ADMIN_TOKEN holds a space, a line break or a character',
    ],
    ['Resend without a domain', { ...resend, MAIL_DOMAIN: '' }, 'MAIL_DOMAIN is needed with RESEND_API_KEY'],
    [
      'Resend without a webhook secret',
      { ...resend, RESEND_WEBHOOK_SECRET: '' },
      'RESEND_WEBHOOK_SECRET is needed with RESEND_API_KEY',
    ],
    [
      'a webhook secret alone',
      { RESEND_WEBHOOK_SECRET: webhookSecret },
      'RESEND_WEBHOOK_SECRET is of no use without RESEND_API_KEY',
    ],
    [
      'a sending key alone',
      { RESEND_SENDING_KEY: 're_two' },
      'RESEND_SENDING_KEY is of no use without RESEND_API_KEY',
    ],
    [
      'a webhook secret without its prefix',
      { ...resend, RESEND_WEBHOOK_SECRET: 'MfKQ' },
      'RESEND_WEBHOOK_SECRET must be',
    ],
    [
      'an empty webhook secret',
      { ...resend, RESEND_WEBHOOK_SECRET: 'whsec_' },
      'RESEND_WEBHOOK_SECRET must be',
    ],
    [
      'a webhook secret cut short',
      { ...resend, RESEND_WEBHOOK_SECRET: 'whsec_MfKQ9' },
      'RESEND_WEBHOOK_SECRET must be',
    ],
    [
      'one bad webhook secret of two',
      { ...resend, RESEND_WEBHOOK_SECRET: `${webhookSecret} ${webhookSecret},` },
      'RESEND_WEBHOOK_SECRET must be',
    ],
    ['another stream store', { STREAMS: 'kafka' }, 'STREAMS must be local or s2.'],
    ['S2 without a token', { ...s2, S2_ACCESS_TOKEN: '' }, 'S2_ACCESS_TOKEN is needed with STREAMS=s2'],
    ['S2 without basin and domain', { ...s2, MAIL_DOMAIN: '' }, 'S2_BASIN is needed with STREAMS=s2'],
    [
      'a domain too short for a basin',
      { ...s2, MAIL_DOMAIN: 'a.io' },
      'S2_BASIN is needed: MAIL_DOMAIN with hyphens',
    ],
    [
      'a domain too long for a basin',
      { ...s2, MAIL_DOMAIN: `${'a'.repeat(60)}.com` },
      'S2_BASIN is needed: MAIL_DOMAIN',
    ],
    ['a basin in capitals', { ...s2, S2_BASIN: 'My-Company' }, 'S2_BASIN must be 8 to 48'],
    ['a basin of seven letters', { ...s2, S2_BASIN: 'company' }, 'S2_BASIN must be 8 to 48'],
    [
      'a basin while STREAMS is not set',
      { S2_BASIN: 'my-company' },
      'S2_BASIN is of no use without STREAMS=s2',
    ],
    [
      'one S2 endpoint of two',
      { ...s2, S2_BASIN_ENDPOINT: 'http://[::1]:4443' },
      'S2_ACCOUNT_ENDPOINT and S2_BASIN_ENDPOINT',
    ],
    [
      'an S2 endpoint that is none',
      { ...s2, S2_ACCOUNT_ENDPOINT: 'a b', S2_BASIN_ENDPOINT: 'b' },
      'S2_ACCOUNT_ENDPOINT must be a host',
    ],
    ['a port in words', { PORT: 'http' }, 'PORT must be a whole number from 0 to 65535'],
    ['a port too high', { PORT: '65536' }, 'PORT must be a whole number'],
    ['a negative port', { PORT: '-1' }, 'PORT must be a whole number'],
    ['a port in hexadecimal', { PORT: '0x50' }, 'PORT must be a whole number'],
    ['a URL for a host', { HOST: 'http://localhost' }, 'HOST must be an address or a host name'],
    ['a host with its port', { HOST: '127.0.0.1:8080' }, 'HOST must be an address or a host name'],
    ['no days of retention', { RETENTION_DAYS: '0' }, 'RETENTION_DAYS must be a whole number from 1 to'],
    ['a DNS server by name', { DNS_SERVERS: 'dns.example.com' }, 'DNS_SERVERS must be IP addresses'],
    ['days with a unit', { RETENTION_DAYS: '90d' }, 'RETENTION_DAYS must be a whole number'],
    ['a log level of others', { LOG_LEVEL: 'verbose' }, 'LOG_LEVEL must be one of trace, debug'],
    [
      'a token in the repository',
      { TOOLS_REPO: 'https://pat@github.com/you/tools' },
      'TOOLS_REPO must be a Git URL or a path',
    ],
    [
      'a transport that runs commands',
      { TOOLS_REPO: 'ext::sh -c touch% /tmp/x' },
      'TOOLS_REPO must be a Git URL or a path',
    ],
    [
      'an option for a repository',
      { TOOLS_REPO: '--upload-pack=x' },
      'TOOLS_REPO must be a Git URL or a path',
    ],
    [
      'an option for a branch',
      { TOOLS_REPO: '/a', TOOLS_BRANCH: '-x' },
      'TOOLS_BRANCH must be the name of a branch',
    ],
    ['a branch of no repository', { TOOLS_BRANCH: 'main' }, 'TOOLS_BRANCH is the branch of a repository'],
    [
      'tools outside of the repository',
      { TOOLS_REPO: '/a', TOOLS_PATH: 'a/../../b' },
      'TOOLS_PATH must be a folder inside',
    ],
    ['a nameless secret', { TOOL_SECRET_: 'x' }, 'TOOL_SECRET_ must have a name'],
    ['a secret with a hyphen in its name', { 'TOOL_SECRET_A-B': 'x' }, 'TOOL_SECRET_A-B must have a name'],
  ])('has %s', (_name, env, expected) => {
    expect(messageOf(env)).toContain(`The configuration has a fault:\n- ${expected}`);
  });

  it('has all its faults told at once, malformed and contradictory ones', () => {
    const env = {
      PORT: 'x',
      LOG_LEVEL: 'y',
      RESEND_SENDING_KEY: 're_two',
      STREAMS: 's2',
      'TOOL_SECRET_A-B': 'x',
    };
    expect(faultsOf(env)).toEqual([
      'PORT',
      'LOG_LEVEL',
      'TOOL_SECRET_A-B',
      'RESEND_SENDING_KEY',
      'S2_ACCESS_TOKEN',
      'S2_BASIN',
    ]);
    expect(messageOf(env)).toContain('The configuration has 6 faults:');
  });

  it('has none of its values repeated', () => {
    const env = Object.fromEntries([...variableNames, 'TOOL_SECRET_A-B'].map((name) => [name, 'hush hush!']));
    expect(faultsOf(env).length).toBeGreaterThan(10);
    expect(messageOf(env)).not.toContain('hush');
  });
});

describe('secrets', () => {
  const env = { ...resend, ...s2, GITHUB_PAT: 'hush1', ADMIN_TOKEN: 'hush2', TOOL_SECRET_A: 'hush3' };
  const { secrets, config } = parseConfig({
    ...env,
    RESEND_SENDING_KEY: 'hush4',
    RESEND_API_KEY: 'hush5',
    S2_ACCESS_TOKEN: 'hush6',
  });

  it('do not show, however they are printed', () => {
    const lines: string[] = [];
    createLog('info', { write: (line) => void lines.push(line) }).info(
      { ...secrets, all: [...secrets.tools] },
      'x',
    );
    const shown = [
      JSON.stringify([secrets, ...secrets.tools.values()]),
      inspect(secrets, { depth: 9, showHidden: true, getters: true }),
      `${String(secrets.adminToken)} ${[...secrets.tools].join()}`,
      JSON.stringify(structuredClone(Object.values(secrets))),
      ...lines,
    ].join('\n');
    expect(shown).toContain('[secret]');
    expect(shown).not.toMatch(/hush|whsec/);
  });

  it('are not part of what may be printed', () => {
    expect(inspect(config, { depth: 9 })).not.toMatch(/hush|whsec/);
  });
});

function messageOf(env: Record<string, string>, only?: Role): string {
  try {
    parseConfig(env, only === undefined ? {} : { only });
  } catch (error) {
    if (!hasCode(error, 'config.invalid') || error.kind !== 'invalid') throw error;
    return error.message;
  }
  return '';
}

/** The variables that a fault is told of, in order. */
function faultsOf(env: Record<string, string>, only?: Role): string[] {
  return [...messageOf(env, only).matchAll(/^- (\S+)/gm)].map(([, variable = '']) => variable);
}
