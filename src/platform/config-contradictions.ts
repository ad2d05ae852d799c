/**
 * What does not go together in a configuration, judged by what is set and not by what it is worth: so these
 * faults are told along with malformed values. docs/configuration.md has the rules in words.
 */
import { basinFrom, domainsFrom, isBasinName } from './domains.ts';
import type { Role } from './roles.ts';

export interface Fault {
  readonly variable: string;
  /** What is wrong and what to do, as the end of a sentence that begins with the variable. */
  readonly message: string;
}

/** `host:path` is SSH, too. */
const OVER_SSH = /^(?:ssh:\/\/|[\w.-]+@[\w.-]+:)/;

/** The faults of a trimmed environment; `only` is the role of a process that runs alone. */
export function contradictions(given: Record<string, string>, only: Role | undefined): Fault[] {
  const faults: Fault[] = [];
  const fault = (variable: string, message: string): void => void faults.push({ variable, message });
  const isSet = (name: string): boolean => given[name] !== undefined;
  resendContradictions(isSet, only, fault);
  streamContradictions(given, only, fault);

  if (only !== undefined && !isSet('MAIL_DOMAIN'))
    fault('MAIL_DOMAIN', `is needed with --only ${only}: name the domain.`);
  toolsContradictions(given, only, fault);
  return faults;
}

type Report = (variable: string, message: string) => void;

function toolsContradictions(given: Record<string, string>, only: Role | undefined, fault: Report): void {
  const { TOOLS_REPO: repo, TOOLS_PATH: path = '' } = given;
  if (given['TOOLS_BRANCH'] !== undefined && repo === undefined)
    fault('TOOLS_BRANCH', 'is the branch of a repository: set TOOLS_REPO too, or remove it.');
  if (repo !== undefined && /^\/|^\.\.(?:\/|$)|\/\.\.(?:\/|$)/.test(path))
    fault('TOOLS_PATH', 'must be a folder inside of TOOLS_REPO, such as tools.');
  if (repo === undefined && only === 'sync')
    fault('TOOLS_REPO', 'is needed with --only sync: name the repository of the tools.');
  for (const name of ['TOOLS_SSH_KEY', 'TOOLS_SSH_KNOWN_HOSTS']) {
    if (given[name] !== undefined && !OVER_SSH.test(repo ?? ''))
      fault(name, 'needs a TOOLS_REPO that is reached over SSH, such as git@github.com:you/tools.git.');
  }
}

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
  } else if (domains && !isBasinName(basinFrom(domains))) {
    fault(
      'S2_BASIN',
      'is needed: MAIL_DOMAIN with hyphens is no name for a basin (8 to 48 letters, digits and hyphens).',
    );
  }
}
