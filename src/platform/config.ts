/**
 * The environment, parsed once: `Config`, which may be printed, and apart from it `Secrets`, which may not.
 *
 * Names and meanings stand in docs/configuration.md, which a test compares with this file. Values are
 * trimmed, and a blank one counts as not set. Nothing else in the project reads `process.env`.
 *
 * What is malformed or contradicts itself stops the start with one error that lists every fault and what to
 * do about it. Faults never repeat a value: a person may have put a key where a domain belongs.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import { contradictions } from './config-contradictions.ts';
import type { Fault } from './config-contradictions.ts';
import { readCredentials } from './credentials.ts';
import { basinFrom, domainsFrom, isBasinName } from './domains.ts';
import { errorMessage, MillraceError } from './errors.ts';
import { TOOL_SECRET_PREFIX } from './roles.ts';
import type { Role } from './roles.ts';
import { Secret } from './secret.ts';
import { supervisorFrom } from './supervisor.ts';
import type { Supervisor } from './supervisor.ts';

export interface Config {
  /** The domains that mail arrives for, in lower-case ASCII; the first is the main one. */
  readonly domains: readonly string[];
  /** Where the outside reaches this daemon, without a slash at its end. */
  readonly publicUrl: string | null;
  /** Null: the local mailbox stands in for Resend, or this process alone (`only`) has no business with it. */
  readonly resend: { readonly baseUrl: string | null } | null;
  readonly streams: { readonly kind: 'local' } | S2Config;
  readonly dataDir: string;
  readonly tools: ToolsConfig;
  /** Addresses of DNS servers; none: the system's. */
  readonly dnsServers: readonly string[];
  readonly host: string;
  /** 0 asks the system for a free one. */
  readonly port: number;
  /** Where health and metrics are shown on loopback, besides or in place of `port`; null: nowhere else. */
  readonly metricsPort: number | null;
  readonly retentionDays: number;
  readonly logLevel: z.infer<typeof logLevel>;
  readonly supervisor: Supervisor;
}

interface ToolsConfig {
  readonly repo: string | null;
  readonly branch: string | null;
  readonly path: string;
  /** Lines of a known_hosts file: the host's key must be among them. */
  readonly sshKnownHosts: string | null;
  /** Where commit statuses go, for a host that is not github.com. */
  readonly githubApiUrl: string | null;
}

interface S2Config {
  readonly kind: 's2';
  readonly basin: string;
  /** Both are null for S2's cloud; as the SDK takes them, `{basin}` stands for the basin's name. */
  readonly accountEndpoint: string | null;
  readonly basinEndpoint: string | null;
}

export interface Secrets {
  readonly resendApiKey: Secret | null;
  /** `RESEND_API_KEY` where there is none of its own. */
  readonly resendSendingKey: Secret | null;
  readonly resendWebhookSecrets: readonly Secret[];
  readonly s2AccessToken: Secret | null;
  readonly githubPat: Secret | null;
  /** As `ssh-keygen` writes it, without a line break at its end. */
  readonly toolsSshKey: Secret | null;
  readonly gitWebhookSecret: Secret | null;
  readonly adminToken: Secret | null;
  /** By the name that a tool's settings grant: `TOOL_SECRET_DEEPL_KEY` is `DEEPL_KEY`. */
  readonly tools: ReadonlyMap<string, Secret>;
}

type Environment = Readonly<Record<string, string | undefined>>;

const DEFAULT_DATA_DIR = './data';
/** Of the units in deploy/systemd. */
const SERVICE_RUNTIME_DIR = '/run/millrace-ingest';
const LOCAL_MAILBOX_DOMAIN = 'millrace.localhost';
const MAX_WEBHOOK_SECRETS = 10;
const MAX_DNS_SERVERS = 10;
/** A century: longer is a slip of the finger. */
const MAX_RETENTION_DAYS = 36_500;

const WEBHOOK_SECRET = /^whsec_(?!$)(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
/** Bytes that an HTTP header can carry. */
const TOKEN = /^[\x21-\x7e]+$/;
/** `https://`, `ssh://`, `git://`, `file://`, `user@host:path`, or a path; nothing that Git takes for an option or a command. */
const REPOSITORY = /^(?:(?:https?|ssh|git|file):\/\/\S+|[\w.-]+@[\w.-]+:\S+|\.{0,2}\/.*)$/;
const SSH_KEY = /^-----BEGIN ([A-Z ]*PRIVATE KEY)-----\n[A-Za-z0-9+/=\n]+\n-----END \1-----$/;
const BRANCH = /^(?![-/.])(?!.*(?:\.\.|\/\/|@\{))[^\s~^:?*[\\]+(?<![/.])$/;

const logLevel = z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], {
  error: 'must be one of trace, debug, info, warn, error, fatal, silent.',
});

/** A string that `parse` makes something of; where it makes null, `fault` says what would have been right. */
function text<T>(parse: (value: string) => T | null, fault: string) {
  return z.string().transform((value, context) => {
    const result = parse(value);
    if (result !== null) return result;
    context.addIssue({ code: 'custom', message: fault });
    return z.NEVER;
  });
}

const matching = (pattern: RegExp) => (value: string) => (pattern.test(value) ? value : null);

function wholeNumber(min: number, max: number, example: number) {
  const inRange = (value: string) =>
    /^\d{1,9}$/.test(value) && +value >= min && +value <= max ? +value : null;
  return text(inRange, `must be a whole number from ${min} to ${max}, such as ${example}.`);
}

function urlFrom(value: string): string | null {
  const url = URL.canParse(value) ? new URL(value) : null;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash)
    return null;
  return url.href.replace(/\/+$/, '');
}

function endpointFrom(value: string): string | null {
  const url = (value.includes('://') ? value : `https://${value}`).replaceAll('{basin}', 'basin');
  return urlFrom(url) === null ? null : value;
}

function hostFrom(value: string): string | null {
  return isIP(value) !== 0 || /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/i.test(value) ? value : null;
}

function dnsServersFrom(value: string): string[] | null {
  const servers = value.split(',').map((server) => server.trim());
  return servers.length <= MAX_DNS_SERVERS && servers.every(isDnsServer) ? servers : null;
}

/** With or without a port, as Node takes it. */
function isDnsServer(server: string): boolean {
  const withPort = /^(?:\[([\da-f:.]+)\]|([\d.]+)):\d{1,5}$/i.exec(server);
  return isIP(withPort?.[1] ?? withPort?.[2] ?? server) !== 0;
}

function repositoryFrom(value: string): string | null {
  if (!REPOSITORY.test(value)) return null;
  const url = URL.canParse(value) ? new URL(value) : null;
  const holdsSecret =
    url !== null && (url.password !== '' || (url.username !== '' && url.protocol !== 'ssh:'));
  return holdsSecret ? null : value;
}

function webhookSecretsFrom(value: string): Secret[] | null {
  const secrets = value.split(/\s+/);
  return secrets.length <= MAX_WEBHOOK_SECRETS && secrets.every((secret) => WEBHOOK_SECRET.test(secret))
    ? secrets.map((secret) => new Secret(secret))
    : null;
}

/** Where a variable cannot have lines, each break may be written as `\n`. */
const withLineBreaks = (value: string): string => value.replaceAll('\\n', '\n').replaceAll('\r', '').trim();

function sshKeyFrom(value: string): Secret | null {
  const key = withLineBreaks(value);
  return SSH_KEY.test(key) ? new Secret(key) : null;
}

const token = text(
  (value) => (TOKEN.test(value) ? new Secret(value) : null),
  'holds a space, a line break or a character that no key has: copy it again, as one word.',
);
const baseUrl = text(
  urlFrom,
  'must be a URL without credentials, query or fragment, such as https://api.example.com.',
);
const endpoint = text(endpointFrom, 'must be a host or a URL, such as http://127.0.0.1:4443.');

const variables = z.object({
  MAIL_DOMAIN: text(
    domainsFrom,
    'must be a domain, or several separated by commas: example.com, example.org.',
  ).optional(),
  PUBLIC_URL: text(
    urlFrom,
    'must be the URL that webhooks reach, such as https://mail.example.com.',
  ).optional(),
  RESEND_API_KEY: token.optional(),
  RESEND_SENDING_KEY: token.optional(),
  RESEND_WEBHOOK_SECRET: text(
    webhookSecretsFrom,
    `must be the webhook's signing secret as Resend shows it (whsec_…), or up to ${MAX_WEBHOOK_SECRETS} separated by spaces.`,
  ).optional(),
  RESEND_BASE_URL: baseUrl.optional(),
  STREAMS: z.enum(['local', 's2'], { error: 'must be local or s2.' }).optional(),
  DATA_DIR: z.string().default(DEFAULT_DATA_DIR),
  S2_ACCESS_TOKEN: token.optional(),
  S2_BASIN: text(
    (value) => (isBasinName(value) ? value : null),
    'must be 8 to 48 lower-case letters, digits and inner hyphens, such as my-company-mail.',
  ).optional(),
  S2_ACCOUNT_ENDPOINT: endpoint.optional(),
  S2_BASIN_ENDPOINT: endpoint.optional(),
  TOOLS_REPO: text(
    repositoryFrom,
    'must be a Git URL or a path, such as https://github.com/you/tools.git; a token belongs into GITHUB_PAT.',
  ).optional(),
  TOOLS_BRANCH: text(matching(BRANCH), 'must be the name of a branch, such as main.').optional(),
  TOOLS_PATH: z.string().default('tools'),
  TOOLS_SSH_KEY: text(
    sshKeyFrom,
    'must be a private SSH key as ssh-keygen writes it, whole; its line breaks may be written as \\n.',
  ).optional(),
  TOOLS_SSH_KNOWN_HOSTS: text(
    (value) => matching(/^[\t\n\x20-\x7e]+$/)(withLineBreaks(value)),
    'must be lines of a known_hosts file, such as ssh-keyscan prints them.',
  ).optional(),
  GITHUB_PAT: token.optional(),
  GITHUB_API_URL: baseUrl.optional(),
  GIT_WEBHOOK_SECRET: token.optional(),
  DNS_SERVERS: text(
    dnsServersFrom,
    'must be IP addresses of DNS servers, separated by commas, such as 9.9.9.9.',
  ).optional(),
  HOST: text(hostFrom, 'must be an address or a host name to listen on, such as 127.0.0.1.').default(
    '127.0.0.1',
  ),
  PORT: wholeNumber(0, 65_535, 8080).default(8080),
  METRICS_PORT: wholeNumber(0, 65_535, 8081).optional(),
  ADMIN_TOKEN: token.optional(),
  RETENTION_DAYS: wholeNumber(1, MAX_RETENTION_DAYS, 90).default(90),
  LOG_LEVEL: logLevel.default('info'),
});
type Variables = z.infer<typeof variables>;

/** Names of all variables but the tools' secrets, for the document's test. */
export const variableNames: readonly string[] = Object.keys(variables.shape);

/** What is wrong with one value, as the end of a sentence that begins with the variable; null where nothing is. */
export function variableFault(variable: string, value: string): string | null {
  const schema: z.ZodType | undefined = Object.entries(variables.shape).find(
    ([name]) => name === variable,
  )?.[1];
  return schema?.safeParse(value.trim()).error?.issues[0]?.message ?? null;
}

/**
 * What a program that we start (git, npm) is given of our environment: no secret of ours is among it. `more` are
 * variables of that program's own.
 */
export function programEnvironment(more: readonly string[] = []): Record<string, string> {
  const given = [...PROGRAM_VARIABLES, ...more].map((name) => [name, process.env[name]] as const);
  return Object.fromEntries(given.filter((entry): entry is [string, string] => entry[1] !== undefined));
}

const PROGRAM_VARIABLES =
  'PATH HOME LANG TMPDIR SSH_AUTH_SOCK SSL_CERT_FILE NODE_EXTRA_CA_CERTS HTTPS_PROXY https_proxy NO_PROXY no_proxy npm_config_registry'.split(
    ' ',
  );

/**
 * The configuration of this process: `parseConfig` of its environment and credentials.
 * @param options.decrypted secrets by variable that a command has at hand, for those that are set nowhere else
 */
export function loadConfig(options: { only?: Role; decrypted?: Environment } = {}): {
  config: Config;
  secrets: Secrets;
} {
  const { decrypted, ...rest } = options;
  const directory = process.env['CREDENTIALS_DIRECTORY'];
  let credentials = decrypted ?? {};
  try {
    if (directory !== undefined) credentials = { ...credentials, ...readCredentials(directory) };
  } catch (error) {
    throw invalid([{ variable: 'CREDENTIALS_DIRECTORY', message: `cannot be used: ${errorMessage(error)}` }]);
  }
  return parseConfig(process.env, { ...rest, credentials, pid: process.pid });
}

/** Where a daemon of this machine may have said how it is reached, best first. */
export function daemonFolders(dataDir = process.env['DATA_DIR']?.trim() ?? ''): string[] {
  return [dataDir === '' ? DEFAULT_DATA_DIR : dataDir, SERVICE_RUNTIME_DIR];
}

interface ParseOptions {
  /** The role of a process that runs alone; it needs the keys of its own work and not the others'. */
  only?: Role;
  /** Secrets by variable, for those that the environment does not set. */
  credentials?: Environment;
  /** Whom the service manager's variables are meant for. Default: nobody. */
  pid?: number;
}

/**
 * Configuration and secrets from an environment.
 * @throws MillraceError `config.invalid` (invalid), which lists all faults.
 */
export function parseConfig(
  env: Environment,
  { only, credentials = {}, pid = 0 }: ParseOptions = {},
): { config: Config; secrets: Secrets } {
  const given = { ...trimmed(credentials), ...trimmed(env) };
  const parsed = variables.safeParse(given);
  const toolSecrets = toolSecretsFrom(given);
  const { supervisor, faults: unitFaults } = supervisorFrom(given, pid);
  const malformed = (parsed.error?.issues ?? []).map((issue) => ({
    variable: String(issue.path[0]),
    message: issue.message,
  }));
  const faults = [...malformed, ...toolSecrets.faults, ...contradictions(given, only), ...unitFaults];
  if (!parsed.success || faults.length > 0) throw invalid(faults);
  const values = parsed.data;
  return { config: configFrom(values, supervisor), secrets: secretsFrom(values, toolSecrets.secrets) };
}

function trimmed(env: Environment): Record<string, string> {
  const entries = Object.entries(env).map(([name, value]) => [name, value?.trim() ?? ''] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== ''));
}

function toolSecretsFrom(given: Record<string, string>): { secrets: Map<string, Secret>; faults: Fault[] } {
  const secrets = new Map<string, Secret>();
  const faults: Fault[] = [];
  for (const [variable, value] of Object.entries(given)) {
    if (!variable.startsWith(TOOL_SECRET_PREFIX)) continue;
    const name = variable.slice(TOOL_SECRET_PREFIX.length);
    if (/^\w+$/.test(name)) secrets.set(name, new Secret(value));
    else
      faults.push({
        variable,
        message: `must have a name of letters, digits and _ behind ${TOOL_SECRET_PREFIX}.`,
      });
  }
  return { secrets, faults };
}

function configFrom(values: Variables, supervisor: Supervisor): Config {
  const domains = values.MAIL_DOMAIN ?? [LOCAL_MAILBOX_DOMAIN];
  const usesResend = values.RESEND_API_KEY !== undefined || values.RESEND_SENDING_KEY !== undefined;
  return {
    domains,
    publicUrl: values.PUBLIC_URL ?? null,
    resend: usesResend ? { baseUrl: values.RESEND_BASE_URL ?? null } : null,
    streams:
      values.STREAMS === 's2'
        ? {
            kind: 's2',
            basin: values.S2_BASIN ?? basinFrom(domains),
            accountEndpoint: values.S2_ACCOUNT_ENDPOINT ?? null,
            basinEndpoint: values.S2_BASIN_ENDPOINT ?? null,
          }
        : { kind: 'local' },
    dataDir: values.DATA_DIR,
    tools: {
      repo: values.TOOLS_REPO ?? null,
      branch: values.TOOLS_BRANCH ?? null,
      path: values.TOOLS_PATH,
      sshKnownHosts: values.TOOLS_SSH_KNOWN_HOSTS ?? null,
      githubApiUrl: values.GITHUB_API_URL ?? null,
    },
    dnsServers: values.DNS_SERVERS ?? [],
    host: values.HOST,
    port: values.PORT,
    metricsPort: values.METRICS_PORT ?? null,
    retentionDays: values.RETENTION_DAYS,
    logLevel: values.LOG_LEVEL,
    supervisor,
  };
}

function secretsFrom(values: Variables, tools: ReadonlyMap<string, Secret>): Secrets {
  return {
    resendApiKey: values.RESEND_API_KEY ?? null,
    resendSendingKey: values.RESEND_SENDING_KEY ?? values.RESEND_API_KEY ?? null,
    resendWebhookSecrets: values.RESEND_WEBHOOK_SECRET ?? [],
    s2AccessToken: values.S2_ACCESS_TOKEN ?? null,
    githubPat: values.GITHUB_PAT ?? null,
    toolsSshKey: values.TOOLS_SSH_KEY ?? null,
    gitWebhookSecret: values.GIT_WEBHOOK_SECRET ?? null,
    adminToken: values.ADMIN_TOKEN ?? null,
    tools,
  };
}

function invalid(faults: readonly Fault[]): MillraceError {
  const lines = faults.map(({ variable, message }) => `- ${variable} ${message}`);
  const count = faults.length === 1 ? 'a fault' : `${faults.length} faults`;
  return new MillraceError(
    'invalid',
    'config.invalid',
    `The configuration has ${count}:\n${lines.join('\n')}`,
    {
      hint: 'docs/configuration.md describes every variable.',
    },
  );
}
