import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ProviderRequest } from '../../src/mail/email.ts';
import { createResendOutbound } from '../../src/outbox/resend-outbound.ts';
import type { ResendOutbound } from '../../src/outbox/resend-outbound.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { hasCode } from '../../src/platform/errors.ts';
import { createRateGate } from '../../src/platform/rate-gate.ts';
import type { Fault, ResendStandIn } from '../resend-stand-in/contract.ts';
import { createManualClock } from '../streams/manual-clock.ts';
import type { ManualClock } from '../streams/manual-clock.ts';
import { startResendStandIn } from '../resend-stand-in/resend-stand-in.ts';

const REQUEST: ProviderRequest = {
  from: 'Bot <bot@agent.example>',
  to: 'ann@sender.example',
  subject: 'Re: hi ✓',
  text: 'hello',
  html: '<p>hello</p>',
  headers: { 'In-Reply-To': '<m1@sender.example>', 'Auto-Submitted': 'auto-replied' },
  attachments: [{ filename: 'ä.png', content: 'AAECAw==', contentType: 'image/png' }],
  tags: [{ name: 'cause', value: 'reverser-7-0' }],
};
const never = new AbortController().signal;

let standIn: ResendStandIn;
let outbound: ResendOutbound;

function connect(apiKey: string = 're_test', timeoutMs: number = 10_000): ResendOutbound {
  const gate = createRateGate(systemClock);
  return createResendOutbound({ clock: systemClock, gate }, { apiKey, baseUrl: standIn.url, timeoutMs });
}

const error = (status: number, name: string): Fault => ({ kind: 'error', status, name });

const said = (body: object): Fault => ({ kind: 'body', status: 422, body: JSON.stringify(body) });

async function sendUntilTaken(sender: ResendOutbound, key: string): Promise<void> {
  for (let attempt = 1; attempt <= 20; attempt += 1) {
    try {
      await sender.send(REQUEST, key, never);
      return;
    } catch (refusal) {
      if (!hasCode(refusal, 'resend.rate_limited')) throw refusal;
    }
  }
  throw new Error(`${key} never got through`);
}

beforeEach(async () => {
  standIn = await startResendStandIn({ apiKey: 're_test' });
  outbound = connect();
});
afterEach(() => standIn.stop());

test('headers, tags and attachments arrive as they were frozen, under the key', async () => {
  const { providerId } = await outbound.send(REQUEST, 'reply/reverser/7/0', never);
  expect(await standIn.accepted()).toEqual([
    {
      id: providerId,
      at: expect.any(String),
      idempotencyKey: 'reply/reverser/7/0',
      payload: {
        ...REQUEST,
        attachments: [{ filename: 'ä.png', content: 'AAECAw==', content_type: 'image/png' }],
      },
    },
  ]);
});

test('the same request gives the same bytes, so that a retry is the same mail', async () => {
  const first = await outbound.send(REQUEST, 'k1', never);
  const again = await connect().send(structuredClone(REQUEST), 'k1', never);
  expect(again).toEqual(first);
  const bodies = (await standIn.requests()).map(({ body }) => body);
  expect(new Set(bodies).size).toBe(1);
  expect(await standIn.accepted()).toHaveLength(1);
});

describe('an outcome in doubt', () => {
  test.each<[Fault, number]>([
    [{ kind: 'lost-response' }, 1],
    [{ kind: 'empty' }, 1],
    [{ kind: 'no-id' }, 1],
    [{ kind: 'truncated' }, 1],
    [{ kind: 'reset' }, 0],
    [{ kind: 'hang' }, 0],
    [{ kind: 'body', status: 200, body: 'null' }, 0],
    [{ kind: 'body', status: 200, body: '{"id":""}' }, 0],
    [{ kind: 'body', status: 500, body: 'null' }, 0],
    [{ kind: 'body', status: 502, body: '<html>bad gateway</html>', contentType: 'text/html' }, 0],
    [{ kind: 'body', status: 504, body: '<html>timeout</html>', contentType: 'text/html' }, 0],
    [{ kind: 'body', status: 403, body: '{"error":"from somebody else"}' }, 0],
  ])('%j is unknown, and a retry leaves one mail', async (fault, acceptedBefore) => {
    // Only what never answers has to be given up.
    const impatient = connect('re_test', fault.kind === 'hang' ? 300 : 30_000);
    await standIn.fault('send', fault);
    await expect(impatient.send(REQUEST, 'k1', never)).rejects.toMatchObject({
      kind: 'transient',
      code: 'resend.outcome_unknown',
    });
    expect(await standIn.accepted()).toHaveLength(acceptedBefore);
    await outbound.send(REQUEST, 'k1', never);
    expect(await standIn.accepted()).toHaveLength(1);
  });

  test('a provider that is not there is unknown, too: the SDK does not tell why', async () => {
    await standIn.stop();
    await expect(outbound.send(REQUEST, 'k1', never)).rejects.toMatchObject({
      code: 'resend.outcome_unknown',
    });
  });
});

describe('a clear refusal', () => {
  test.each<[Fault, string, string]>([
    [error(400, 'validation_error'), 'permanent', 'resend.rejected'],
    [error(403, 'validation_error'), 'permanent', 'resend.rejected'],
    [error(422, 'missing_required_field'), 'permanent', 'resend.rejected'],
    [error(429, 'rate_limit_exceeded'), 'transient', 'resend.rate_limited'],
    [error(429, 'daily_quota_exceeded'), 'transient', 'resend.quota_exceeded'],
    [error(429, 'monthly_quota_exceeded'), 'transient', 'resend.quota_exceeded'],
    [error(500, 'internal_server_error'), 'transient', 'resend.unavailable'],
    [error(503, 'service_unavailable'), 'transient', 'resend.unavailable'],
    [error(409, 'concurrent_idempotent_requests'), 'transient', 'resend.busy'],
    // The SDK knows a status from the body alone, and the name decides without one.
    [said({ name: 'validation_error', message: 'no' }), 'permanent', 'resend.rejected'],
    [said({ name: 'missing_required_field', message: 'no' }), 'permanent', 'resend.rejected'],
    [said({ name: 'rate_limit_exceeded', message: 'no' }), 'transient', 'resend.rate_limited'],
    [said({ name: 'application_error', message: 'no' }), 'transient', 'resend.outcome_unknown'],
    [said({ name: 'brand_new', message: 'no' }), 'transient', 'resend.outcome_unknown'],
  ])('%j is %s %s', async (fault, kind, code) => {
    await standIn.fault('send', fault);
    await expect(outbound.send(REQUEST, 'k1', never)).rejects.toMatchObject({ kind, code });
    expect(await standIn.accepted()).toHaveLength(0);
  });

  test('another body under a used key is a conflict, and sends nothing', async () => {
    await outbound.send(REQUEST, 'k1', never);
    await expect(outbound.send({ ...REQUEST, text: 'other' }, 'k1', never)).rejects.toMatchObject({
      kind: 'permanent',
      code: 'resend.idempotency_conflict',
    });
    expect(await standIn.accepted()).toHaveLength(1);
  });

  test('a wrong key waits for somebody to mend it', async () => {
    await expect(connect('wrong').send(REQUEST, 'k1', never)).rejects.toMatchObject({
      kind: 'transient',
      code: 'resend.unauthorized',
    });
  });
});

test.each(['', 'k'.repeat(257), 'a b', 'ключ', 'a\r\nb'])('the key %j is a bug of ours', async (key) => {
  await expect(outbound.send(REQUEST, key, never)).rejects.toMatchObject({ kind: 'bug' });
  expect(await standIn.requests()).toHaveLength(0);
});

test('the caller ends a call with its own reason', async () => {
  await standIn.fault('send', { kind: 'hang' });
  const caller = new AbortController();
  const ended = outbound.send(REQUEST, 'k1', caller.signal);
  await expect.poll(async () => (await standIn.requests()).length).toBe(1);
  caller.abort(new Error('drain'));
  await expect(ended).rejects.toThrow('drain');
});

describe('an attempt that was stopped while it waited for its turn', () => {
  const DAY_MS = 86_400_000;

  test.each<[string, (clock: ManualClock) => void]>([
    ['a process that stood still', (clock) => clock.advance(DAY_MS)],
    [
      'a machine that slept',
      (clock) => {
        clock.jumpTo(clock.nowMs() + DAY_MS);
        clock.advance(61_000);
      },
    ],
  ])('sends nothing: %s', async (_, stop) => {
    const clock = createManualClock();
    const gate = createRateGate(clock);
    gate.observe({ 'retry-after': '60' }, 'refused');
    const waiting = createResendOutbound({ clock, gate }, { apiKey: 're_test', baseUrl: standIn.url });
    const sending = waiting.send(REQUEST, 'k1', never);
    stop(clock);
    await expect(sending).rejects.toMatchObject({ kind: 'transient', code: 'outbox.attempt_too_old' });
    expect(await standIn.requests()).toHaveLength(0);
  });

  test('sends after a minute as ever', async () => {
    const clock = createManualClock();
    const gate = createRateGate(clock);
    gate.observe({ 'retry-after': '60' }, 'refused');
    const waiting = createResendOutbound({ clock, gate }, { apiKey: 're_test', baseUrl: standIn.url });
    const sent = waiting.send(REQUEST, 'k1', never);
    clock.advance(61_000);
    await sent;
    expect(await standIn.accepted()).toHaveLength(1);
  });
});

test('a storm of sends stays below the limit that the provider tells', async () => {
  await standIn.configure({ requestsPerSecond: 5 });
  const sends = Array.from({ length: 12 }, (_, index) => outbound.send(REQUEST, `k${index}`, never));
  await Promise.all(sends);
  expect(await standIn.accepted()).toHaveLength(12);
});

test('two senders that share a team but not a gate get through by waiting as told', async () => {
  await standIn.configure({ requestsPerSecond: 3 });
  const senders = [connect(), connect()];
  await Promise.all(
    senders.flatMap((sender, s) => [0, 1, 2, 3].map((key) => sendUntilTaken(sender, `${s}-${key}`))),
  );
  expect(await standIn.accepted()).toHaveLength(8);
});
