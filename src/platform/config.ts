/**
 * The environment, parsed once: `Config`, which may be printed, and apart from it `Secrets`, which may not.
 *
 * Names and meanings stand in docs/configuration.md, which a test compares with this file. Values are
 * trimmed, and a blank one counts as not set. Nothing else in the project reads `process.env`.
 *
 * What is malformed or contradicts itself stops the start with one error that lists every fault and what to
 * do about it. Faults never repeat a value: a person may have put a key where a domain belongs.
 */
import { domainToASCII } from 'node:url';
import { isIP } from 'node:net';
import { z } from 'zod';
import { MillraceError } from './errors.ts';
import { Secret } from './secret.ts';

/** What `--only` names: one process of a deployment in several. */
export type Role = 'ingest' | 'runner' | 'outbox' | 'sync';

export interface Config {
  /** The domains that mail arrives for, in lower-case ASCII; the first is the main one. */
  readonly domains: readonly string[];
  /** Where the outside reaches this daemon, without a slash at its end. */
  readonly publicUrl: string | null;
  /** Null: the local mailbox stands in for Resend, or this process alone (`only`) has no business with it. */
  readonly resend: { readonly baseUrl: string | null } | null;
  readonly streams: { readonly kind: 'local' } | S2Config;
  readonly dataDir: string;
  readonly tools: { readonly repo: string | null; readonly branch: string | null; readonly path: string };
  readonly host: string;
  /** 0 asks the system for a free one. */
  readonly port: number;
  readonly retentionDays: number;
  readonly logLevel: z.infer<typeof logLevel>;
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
  readonly gitWebhookSecret: Secret | null;
  readonly adminToken: Secret | null;
  /** By the name that a tool's settings grant: `TOOL_SECRET_DEEPL_KEY` is `DEEPL_KEY`. */
  readonly tools: ReadonlyMap<string, Secret>;
}

type Environment = Readonly<Record<string, string | undefined>>;

const LOCAL_MAILBOX_DOMAIN = 'millrace.localhost';
const TOOL_SECRET_PREFIX = 'TOOL_SECRET_';
const MAX_DOMAINS = 100;
const MAX_WEBHOOK_SECRETS = 10;
/** A century: longer is a slip of the finger. */
const MAX_RETENTION_DAYS = 36_500;

const DOMAIN =
  /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
/** What `domainToASCII` may see: it would cut at `/`, `?` and `#`, and decode `%41`. */
const DOMAIN_INPUT = /^(?:[a-z0-9.-]|[^\p{ASCII}\p{C}\p{Z}])+$/iu;
/** https://s2.dev/docs: 8 to 48 of these, with a letter or digit at both ends. */
const BASIN = /^[a-z0-9][a-z0-9-]{6,46}[a-z0-9]$/;
const WEBHOOK_SECRET = /^whsec_(?!$)(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
/** Bytes that an HTTP header can carry. */
const TOKEN = /^[\x21-\x7e]+$/;
/** `https://`, `ssh://`, `git://`, `file://`, `user@host:path`, or a path; nothing that Git takes for an option or a command. */
const REPOSITORY = /^(?:(?:https?|ssh|git|file):\/\/\S+|[\w.-]+@[\w.-]+:\S+|\.{0,2}\/.*)$/;
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

function domainsFrom(list: string): string[] | null {
  const inputs = list.split(',').map((input) => input.trim());
  const domains = inputs.map((input) =>
    DOMAIN_INPUT.test(input) ? domainToASCII(input).replace(/\.$/, '') : '',
  );
  if (domains.length > MAX_DOMAINS || !domains.every((domain) => DOMAIN.test(domain))) return null;
  return [...new Set(domains)];
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
  DATA_DIR: z.string().default('./data'),
  S2_ACCESS_TOKEN: token.optional(),
  S2_BASIN: text(
    matching(BASIN),
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
  GITHUB_PAT: token.optional(),
  GIT_WEBHOOK_SECRET: token.optional(),
  HOST: text(hostFrom, 'must be an address or a host name to listen on, such as 127.0.0.1.').default(
    '127.0.0.1',
  ),
  PORT: wholeNumber(0, 65_535, 8080).default(8080),
  ADMIN_TOKEN: token.optional(),
  RETENTION_DAYS: wholeNumber(1, MAX_RETENTION_DAYS, 90).default(90),
  LOG_LEVEL: logLevel.default('info'),
});
type Variables = z.infer<typeof variables>;

/** Names of all variables but the tools' secrets, for the document's test. */
export const variableNames: readonly string[] = Object.keys(variables.shape);

interface Fault {
  readonly variable: string;
  /** What is wrong and what to do, as the end of a sentence that begins with the variable. */
  readonly message: string;
}

/** What a program that we start (git, npm) is given of our environment: no secret of ours is among it. */
export function programEnvironment(): Record<string, string> {
  const given = PROGRAM_VARIABLES.map((name) => [name, process.env[name]] as const);
  return Object.fromEntries(given.filter((entry): entry is [string, string] => entry[1] !== undefined));
}

const PROGRAM_VARIABLES =
  'PATH HOME LANG TMPDIR SSH_AUTH_SOCK SSL_CERT_FILE HTTPS_PROXY https_proxy NO_PROXY no_proxy npm_config_registry'.split(
    ' ',
  );

/** The configuration of this process: `parseConfig` of its environment. */
export function loadConfig(options: { only?: Role } = {}): { config: Config; secrets: Secrets } {
  return parseConfig(process.env, options);
}

/**
 * Configuration and secrets from an environment. `only` is the role of a process that runs alone; it needs
 * the keys of its own work and not the others'.
 * @throws MillraceError `config.invalid` (invalid), which lists all faults.
 */
export function parseConfig(
  env: Environment,
  { only }: { only?: Role } = {},
): { config: Config; secrets: Secrets } {
  const given = trimmed(env);
  const parsed = variables.safeParse(given);
  const toolSecrets = toolSecretsFrom(given);
  const malformed = (parsed.error?.issues ?? []).map((issue) => ({
    variable: String(issue.path[0]),
    message: issue.message,
  }));
  const faults = [...malformed, ...toolSecrets.faults, ...contradictions(given, only)];
  if (!parsed.success || faults.length > 0) throw invalid(faults);
  const values = parsed.data;
  return { config: configFrom(values), secrets: secretsFrom(values, toolSecrets.secrets) };
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

/** What does not go together, judged by what is set: so these faults are told along with malformed values. */
function contradictions(given: Record<string, string>, only: Role | undefined): Fault[] {
  const faults: Fault[] = [];
  const fault = (variable: string, message: string): void => void faults.push({ variable, message });
  const isSet = (name: string): boolean => given[name] !== undefined;
  resendContradictions(isSet, only, fault);
  streamContradictions(given, only, fault);

  if (only !== undefined && !isSet('MAIL_DOMAIN'))
    fault('MAIL_DOMAIN', `is needed with --only ${only}: name the domain.`);
  if (isSet('TOOLS_BRANCH') && !isSet('TOOLS_REPO')) {
    fault('TOOLS_BRANCH', 'is the branch of a repository: set TOOLS_REPO too, or remove it.');
  }
  if (isSet('TOOLS_REPO') && /^\/|^\.\.(?:\/|$)|\/\.\.(?:\/|$)/.test(given['TOOLS_PATH'] ?? '')) {
    fault('TOOLS_PATH', 'must be a folder inside of TOOLS_REPO, such as tools.');
  }
  return faults;
}

type Report = (variable: string, message: string) => void;

function resendContradictions(isSet: (name: string) => boolean, only: Role | undefined, fault: Report): void {
  if (only === undefined || only === 'ingest') {
    if (isSet('RESEND_API_KEY')) {
      if (!isSet('MAIL_DOMAIN') && only === undefined) {
        fault('MAIL_DOMAIN', 'is needed with RESEND_API_KEY: name the domain that Resend receives mail for.');
      }
      if (!isSet('RESEND_WEBHOOK_SECRET')) {
        fault(
          'RESEND_WEBHOOK_SECRET',
          "is needed with RESEND_API_KEY: copy the signing secret from the webhook's page.",
        );
      }
    } else {
      for (const name of ['RESEND_WEBHOOK_SECRET', 'RESEND_SENDING_KEY']) {
        if (isSet(name))
          fault(name, 'is of no use without RESEND_API_KEY: set that too (a key with full access).');
      }
      if (only === 'ingest') fault('RESEND_API_KEY', 'is needed with --only ingest: a key with full access.');
    }
  }
  if (only === 'outbox' && !isSet('RESEND_SENDING_KEY') && !isSet('RESEND_API_KEY')) {
    fault('RESEND_SENDING_KEY', 'is needed with --only outbox: a key with sending access.');
  }
}

/**
 * `S2_ACCESS_TOKEN` and the endpoints are variables of S2's own command-line tool too: finding them set says
 * nothing about Millrace. A basin without a word on STREAMS does: it was meant, and mail would go elsewhere.
 */
function streamContradictions(given: Record<string, string>, only: Role | undefined, fault: Report): void {
  if (given['STREAMS'] !== 's2') {
    if (given['STREAMS'] === undefined && given['S2_BASIN'] !== undefined) {
      fault('S2_BASIN', 'is of no use without STREAMS=s2: set that, or STREAMS=local, or remove the basin.');
    }
    if (only !== undefined)
      fault('STREAMS', `must be s2 with --only ${only}: the local store serves one process.`);
    return;
  }
  if (given['S2_ACCESS_TOKEN'] === undefined) {
    fault(
      'S2_ACCESS_TOKEN',
      'is needed with STREAMS=s2: make one on S2\'s dashboard ("ignored" will do for s2 lite).',
    );
  }
  if ((given['S2_ACCOUNT_ENDPOINT'] === undefined) !== (given['S2_BASIN_ENDPOINT'] === undefined)) {
    fault('S2_ACCOUNT_ENDPOINT', "and S2_BASIN_ENDPOINT go together: set both, or neither for S2's cloud.");
  }
  if (given['S2_BASIN'] !== undefined) return;
  const domains = domainsFrom(given['MAIL_DOMAIN'] ?? '');
  if (given['MAIL_DOMAIN'] === undefined) {
    fault('S2_BASIN', 'is needed with STREAMS=s2 where no MAIL_DOMAIN is set: name the basin.');
  } else if (domains && !BASIN.test(basinFrom(domains))) {
    fault(
      'S2_BASIN',
      'is needed: MAIL_DOMAIN with hyphens is no name for a basin (8 to 48 letters, digits and hyphens).',
    );
  }
}

function basinFrom(domains: readonly string[]): string {
  return (domains[0] ?? '').replaceAll('.', '-');
}

function configFrom(values: Variables): Config {
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
    tools: { repo: values.TOOLS_REPO ?? null, branch: values.TOOLS_BRANCH ?? null, path: values.TOOLS_PATH },
    host: values.HOST,
    port: values.PORT,
    retentionDays: values.RETENTION_DAYS,
    logLevel: values.LOG_LEVEL,
  };
}

function secretsFrom(values: Variables, tools: ReadonlyMap<string, Secret>): Secrets {
  return {
    resendApiKey: values.RESEND_API_KEY ?? null,
    resendSendingKey: values.RESEND_SENDING_KEY ?? values.RESEND_API_KEY ?? null,
    resendWebhookSecrets: values.RESEND_WEBHOOK_SECRET ?? [],
    s2AccessToken: values.S2_ACCESS_TOKEN ?? null,
    githubPat: values.GITHUB_PAT ?? null,
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
