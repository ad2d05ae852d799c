import { describe, expect, test } from 'vitest';
import { classifyResendError } from '../../src/mail/resend-errors.ts';

const hour = 3_600_000;

describe('by name', () => {
  test.each([
    ['rate_limit_exceeded', 429, 'transient', 'resend.rate_limited', 2000],
    ['application_error', 500, 'transient', 'resend.unavailable', 2000],
    ['application_error', null, 'transient', 'resend.unavailable', 2000],
    // A firewall's page instead of JSON: the SDK gives it this name, and it will pass.
    ['application_error', 403, 'transient', 'resend.unavailable', 2000],
    ['internal_server_error', 500, 'transient', 'resend.unavailable', 2000],
    ['service_unavailable', 503, 'transient', 'resend.unavailable', 2000],
    ['concurrent_idempotent_requests', 409, 'transient', 'resend.busy', 2000],
    ['resource_locked', 409, 'transient', 'resend.busy', 2000],
    ['daily_quota_exceeded', 429, 'transient', 'resend.quota_exceeded', hour],
    ['monthly_quota_exceeded', 429, 'transient', 'resend.quota_exceeded', hour],
    ['email_above_quota', 403, 'transient', 'resend.content_above_quota', hour],
    ['missing_api_key', 401, 'transient', 'resend.unauthorized', 60_000],
    ['invalid_api_key', 403, 'transient', 'resend.unauthorized', 60_000],
    ['restricted_api_key', 401, 'transient', 'resend.unauthorized', 60_000],
    ['suspended_api_key', 403, 'transient', 'resend.unauthorized', 60_000],
    ['invalid_idempotent_request', 409, 'permanent', 'resend.idempotency_conflict', undefined],
    ['invalid_idempotency_key', 400, 'permanent', 'resend.rejected', undefined],
    ['not_found', 404, 'permanent', 'resend.not_found', undefined],
    ['validation_error', 400, 'permanent', 'resend.rejected', undefined],
    // A domain that is not verified.
    ['validation_error', 403, 'permanent', 'resend.rejected', undefined],
    ['validation_error', 422, 'permanent', 'resend.rejected', undefined],
    ['missing_required_field', 422, 'permanent', 'resend.rejected', undefined],
    ['invalid_from_address', 422, 'permanent', 'resend.rejected', undefined],
    ['invalid_attachment', 422, 'permanent', 'resend.rejected', undefined],
    ['security_error', 451, 'permanent', 'resend.rejected', undefined],
  ])('%s (%s) is %s %s', (name, statusCode, kind, code, waitMs) => {
    const error = classifyResendError({ name, statusCode, message: 'm' }, { 'retry-after': '2' });
    expect(error).toMatchObject({ kind, code, retryAfterMs: waitMs });
  });
});

test.each([
  [400, 'permanent', 'resend.rejected'],
  [401, 'transient', 'resend.unauthorized'],
  [408, 'transient', 'resend.unavailable'],
  [409, 'permanent', 'resend.rejected'],
  [418, 'permanent', 'resend.rejected'],
  [429, 'transient', 'resend.unavailable'],
  [500, 'transient', 'resend.unavailable'],
  [599, 'transient', 'resend.unavailable'],
  [null, 'transient', 'resend.unavailable'],
  [undefined, 'transient', 'resend.unavailable'],
])('a name that is new counts by its status: %s is %s', (statusCode, kind, code) => {
  expect(classifyResendError({ name: 'brand_new', statusCode }, null)).toMatchObject({ kind, code });
});

test('names of inherited properties are names like any other', () => {
  expect(classifyResendError({ name: 'constructor', statusCode: 400 }, null).kind).toBe('permanent');
});

test.each([
  [['a', 'b'], '["a","b"]'],
  [{ field: 'to' }, '{"field":"to"}'],
  [null, 'null'],
  [7, '7'],
  [undefined, 'no message'],
])('a message that is no text decides nothing: %j', (message, said) => {
  const error = classifyResendError({ name: 'rate_limit_exceeded', statusCode: 429, message }, null);
  expect(error).toMatchObject({ kind: 'transient', code: 'resend.rate_limited' });
  expect(error.message).toContain(said);
});

test('the message decides nothing and is bounded', () => {
  const error = classifyResendError(
    { name: 'validation_error', statusCode: 422, message: `rate_limit_exceeded ${'x'.repeat(10_000)}` },
    null,
  );
  expect(error.kind).toBe('permanent');
  expect(error.message.length).toBeLessThan(600);
});

test('a longer retry-after than our own hold is honoured', () => {
  const report = { name: 'daily_quota_exceeded', statusCode: 429 };
  expect(classifyResendError(report, { 'retry-after': '40000' }).retryAfterMs).toBe(40_000_000);
});
