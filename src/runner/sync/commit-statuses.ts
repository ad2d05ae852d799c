/**
 * What became of a commit, as a mark beside it on the Git host: GitHub's commit statuses
 * (https://docs.github.com/rest/commits/statuses), which Gitea and Forgejo answer to under `/api/v1`.
 *
 * It is a courtesy: reports go out one after another in the background, and one that fails is a line in the
 * log. A token that may only read the repository is told so once a start, not with every push.
 */
import type { Clock } from '../../platform/clock.ts';
import { createDeadline } from '../../platform/deadline.ts';
import type { Log } from '../../platform/log.ts';

export interface CommitStatus {
  /** `error`: it could not be judged, and will be tried again. */
  state: 'pending' | 'success' | 'failure' | 'error';
  /** The first line of it is shown. */
  description: string;
}

export interface CommitStatuses {
  /** Does not wait, and never fails. */
  report(commit: string, status: CommitStatus): void;
  /** Resolves when all that was reported has been sent, or given up. */
  settled(): Promise<void>;
}

export interface CommitStatusOptions {
  /** The tools' repository. */
  repo: string;
  token: string | null;
  /** Of a host that is not github.com; null: none was set. */
  apiUrl: string | null;
  /** Where a person reads more. */
  targetUrl: string | null;
}

const GITHUB_API_URL = 'https://api.github.com';
const CONTEXT = 'millrace';
const TIMEOUT_MS = 10_000;
/** GitHub's limit. */
const MAX_DESCRIPTION_CHARS = 140;
/** Behind a Git host that hangs, newer reports are dropped. */
const MAX_WAITING = 20;
/** Owner and name at the end of an address, with or without `.git`. */
const OWNER_AND_NAME = /[/:]([\w.-]+)\/([\w.-]+?)(?:\.git)?\/?$/;
const ON_GITHUB = /^(?:https:\/\/github\.com\/|ssh:\/\/(?:git@)?github\.com\/|git@github\.com:)/;

/** Reports nothing without a token, or where the host is neither github.com nor named by `apiUrl`. */
export function createCommitStatuses(
  deps: { clock: Clock; log: Log },
  options: CommitStatusOptions,
): CommitStatuses {
  const { log } = deps;
  const url = statusesUrl(options);
  let last = Promise.resolve();
  let waiting = 0;
  const failures = new Set<string>();

  async function send(commit: string, status: CommitStatus): Promise<void> {
    const reason = await post(deps.clock, { ...options, url: `${url}/${commit}`, status });
    if (reason === null || failures.has(reason)) return;
    failures.add(reason);
    log.warn({ commit, reason }, 'tools.commit_status_failed');
  }

  return {
    report(commit, status) {
      if (url === null || waiting >= MAX_WAITING) return;
      waiting += 1;
      last = last.then(() => send(commit, status)).finally(() => (waiting -= 1));
    },
    settled: () => last,
  };
}

function statusesUrl({ repo, token, apiUrl }: CommitStatusOptions): string | null {
  const [, owner, name] = OWNER_AND_NAME.exec(repo) ?? [];
  const api = apiUrl ?? (ON_GITHUB.test(repo) ? GITHUB_API_URL : null);
  if (token === null || api === null || owner === undefined) return null;
  return `${api}/repos/${owner}/${name}/statuses`;
}

/** Why it failed; null where it did not. */
async function post(
  clock: Clock,
  report: CommitStatusOptions & { url: string; status: CommitStatus },
): Promise<string | null> {
  const { state, description } = report.status;
  const [line = ''] = description.split('\n');
  using deadline = createDeadline(clock, TIMEOUT_MS);
  try {
    const response = await fetch(report.url, {
      method: 'POST',
      headers: {
        accept: 'application/vnd.github+json',
        'x-github-api-version': '2022-11-28',
        authorization: `Bearer ${report.token}`,
        'content-type': 'application/json',
        'user-agent': 'millrace',
      },
      body: JSON.stringify({
        state,
        description: line.slice(0, MAX_DESCRIPTION_CHARS).toWellFormed(),
        context: CONTEXT,
        ...(report.targetUrl === null ? {} : { target_url: report.targetUrl }),
      }),
      // The token is for this address alone.
      redirect: 'error',
      signal: deadline.signal,
    });
    await response.body?.cancel();
    return response.ok ? null : `status ${response.status}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
