/**
 * What an error of Resend's means for the work that met it: one table by `error.name`
 * (https://resend.com/docs/api-reference/errors), and by status where the name is new. Messages are for people;
 * they decide nothing.
 *
 * | code | kind | names |
 * |---|---|---|
 * | `resend.rate_limited` | transient, after `retry-after` | `rate_limit_exceeded` |
 * | `resend.unavailable` | transient | `application_error`, `internal_server_error`, `service_unavailable`; 5xx, 408, 425, 429, no answer |
 * | `resend.busy` | transient | `concurrent_idempotent_requests`, `resource_locked` |
 * | `resend.quota_exceeded` | transient, after an hour | `daily_quota_exceeded`, `monthly_quota_exceeded` |
 * | `resend.content_above_quota` | transient, after an hour | `email_above_quota` |
 * | `resend.unauthorized` | transient, after a minute: a key can be mended while we wait | `missing_api_key`, `invalid_api_key`, `restricted_api_key`, `suspended_api_key`; other 401 |
 * | `resend.idempotency_conflict` | permanent | `invalid_idempotent_request` |
 * | `resend.not_found` | permanent | `not_found` |
 * | `resend.rejected` | permanent | `validation_error` (also 403: a domain that is not verified), `invalid_*`, `missing_*`, `security_error`; other 4xx |
 */
import { MillraceError } from '../platform/errors.ts';
import type { ErrorDetails } from '../platform/errors.ts';
import { retryAfterMs } from '../platform/rate-gate.ts';
import type { ResponseHeaders } from '../platform/rate-gate.ts';

/** The names of what a request may lack are many, and more may come. */
const REFUSED_INPUT = /^(?:invalid|missing)_/;

/** As the SDK reports it. `statusCode` is null without an answer; a proxy's error may lack everything. */
export interface ResendErrorReport {
  readonly name?: string | undefined;
  readonly statusCode?: number | null | undefined;
  /** A text, as documented; anything, as it comes. */
  readonly message?: unknown;
}

interface Verdict {
  readonly kind: 'transient' | 'permanent';
  readonly code: string;
  readonly hint?: string;
  /** The least wait for `transient`. */
  readonly holdMs?: number;
}

const UNAUTHORIZED_HOLD_MS = 60_000;
/** The reset is not told; asking once an hour finds it. */
const QUOTA_HOLD_MS = 3_600_000;
const MESSAGE_MAX_LENGTH = 500;

const RATE_LIMITED: Verdict = { kind: 'transient', code: 'resend.rate_limited' };
const UNAVAILABLE: Verdict = { kind: 'transient', code: 'resend.unavailable' };
const BUSY: Verdict = { kind: 'transient', code: 'resend.busy' };
const QUOTA: Verdict = {
  kind: 'transient',
  code: 'resend.quota_exceeded',
  hint: 'Mail waits until the quota is reset. To send now, upgrade the plan at resend.com.',
  holdMs: QUOTA_HOLD_MS,
};
const CONTENT_ABOVE_QUOTA: Verdict = {
  kind: 'transient',
  code: 'resend.content_above_quota',
  hint: 'Resend shows this email again when the plan allows it. It keeps mail for 30 days.',
  holdMs: QUOTA_HOLD_MS,
};
const UNAUTHORIZED: Verdict = {
  kind: 'transient',
  code: 'resend.unauthorized',
  hint: 'Set a valid RESEND_API_KEY with full access, and RESEND_SENDING_KEY if sending has its own. Mail waits.',
  holdMs: UNAUTHORIZED_HOLD_MS,
};
const IDEMPOTENCY_CONFLICT: Verdict = {
  kind: 'permanent',
  code: 'resend.idempotency_conflict',
  hint: 'A mail with another body was accepted under this key within 24 h: it has probably gone out.',
};
const NOT_FOUND: Verdict = { kind: 'permanent', code: 'resend.not_found' };
const REJECTED: Verdict = {
  kind: 'permanent',
  code: 'resend.rejected',
  hint: 'Resend will not take this request as it is: its message names the field or the domain.',
};

const VERDICTS: ReadonlyMap<string, Verdict> = new Map([
  ['rate_limit_exceeded', RATE_LIMITED],
  ['application_error', UNAVAILABLE],
  ['internal_server_error', UNAVAILABLE],
  ['service_unavailable', UNAVAILABLE],
  ['concurrent_idempotent_requests', BUSY],
  ['resource_locked', BUSY],
  ['daily_quota_exceeded', QUOTA],
  ['monthly_quota_exceeded', QUOTA],
  ['email_above_quota', CONTENT_ABOVE_QUOTA],
  ['missing_api_key', UNAUTHORIZED],
  ['invalid_api_key', UNAUTHORIZED],
  ['restricted_api_key', UNAUTHORIZED],
  ['suspended_api_key', UNAUTHORIZED],
  ['invalid_idempotent_request', IDEMPOTENCY_CONFLICT],
  ['not_found', NOT_FOUND],
  ['validation_error', REJECTED],
  ['security_error', REJECTED],
]);

/**
 * True for a name of Resend's own, which decides whatever the status is: the SDK takes that from the body alone, where
 * it may be missing. `application_error` is also what the SDK calls an answer that it could not read, or none.
 */
export function isAnswer({ name = '' }: ResendErrorReport): boolean {
  return name !== 'application_error' && (VERDICTS.has(name) || REFUSED_INPUT.test(name));
}

/** An error of Resend's as ours; `headers` are those of the answer. */
export function classifyResendError(report: ResendErrorReport, headers: ResponseHeaders): MillraceError {
  const name = typeof report.name === 'string' ? report.name : 'no name';
  const verdict = VERDICTS.get(name) ?? verdictByShape(name, report.statusCode ?? null);
  const said = textOf(report.message).slice(0, MESSAGE_MAX_LENGTH);
  const details: ErrorDetails = {};
  if (verdict.hint !== undefined) details.hint = verdict.hint;
  if (verdict.kind === 'transient') {
    // Every answer carries `retry-after`, and 0 or a second says nothing about a quota or a key.
    const waitMs = Math.max(verdict.holdMs ?? 0, retryAfterMs(headers) ?? 0);
    if (waitMs > 0) details.retryAfterMs = waitMs;
  }
  const status = report.statusCode ?? 'no status';
  return new MillraceError(verdict.kind, verdict.code, `Resend: ${name} (${status}): ${said}`, details);
}

/** Some answers list their faults where a text should be. */
function textOf(message: unknown): string {
  return typeof message === 'string' ? message : (JSON.stringify(message) ?? 'no message');
}

function verdictByShape(name: string, status: number | null): Verdict {
  if (REFUSED_INPUT.test(name)) return REJECTED;
  if (status === 401) return UNAUTHORIZED;
  if (status === null || status >= 500 || [408, 425, 429].includes(status)) return UNAVAILABLE;
  return REJECTED;
}
