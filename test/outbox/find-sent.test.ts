/** Asking Resend whether a request went out, after its idempotency key was forgotten: through the real SDK. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ProviderRequest } from '../../src/mail/email.ts';
import { createFindSent } from '../../src/outbox/find-sent.ts';
import { createResendOutbound } from '../../src/outbox/resend-outbound.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createRateGate } from '../../src/platform/rate-gate.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { startResendStandIn } from '../resend-stand-in/resend-stand-in.ts';

const signal = new AbortController().signal;
let resend: ResendStandIn;

beforeAll(async () => {
  resend = await startResendStandIn({ apiKey: 're_full', sendingKey: 're_sending' });
});
afterAll(() => resend.stop());

const request = (key: string, subject = 'Re: Greetings'): ProviderRequest => ({
  from: 'reverser@agents.example',
  to: 'ann@sender.example',
  subject,
  text: 'olleh',
  headers: {},
  tags: [{ name: 'millrace_key', value: key }],
});

function parts() {
  const gate = createRateGate(clock, { initialLimit: 1000 });
  const options = { apiKey: 're_full', baseUrl: resend.url };
  return {
    outbound: createResendOutbound({ clock, gate }, options),
    findSent: createFindSent({ clock, gate }, options),
  };
}

describe('findSent', () => {
  it('finds exactly the mail with the key, behind more than a page of others to the same person', async () => {
    const { outbound, findSent } = parts();
    const sinceMs = clock.nowMs();
    const { providerId } = await outbound.send(request('key-a'), 'a', signal);
    for (let i = 0; i < 110; i++)
      await outbound.send(request(`other-${i}`, 'Re: Something else'), `other-${i}`, signal);
    await outbound.send(request('key-b'), 'b', signal);
    expect(await findSent(request('key-a'), sinceMs, signal)).toEqual({ providerId });
    expect(await findSent(request('key-c'), sinceMs, signal)).toBeNull();
  });

  it('does not look further back than the attempt', async () => {
    const { outbound, findSent } = parts();
    await outbound.send(request('key-old'), 'old', signal);
    const lists = async () => (await resend.requests()).filter(({ route }) => route === 'list').length;
    const before = await lists();
    expect(await findSent(request('key-old'), clock.nowMs() + 3 * 3_600_000, signal)).toBeNull();
    expect((await lists()) - before).toBe(1);
  });

  it('does not wait for a key that may only send', async () => {
    const gate = createRateGate(clock, { initialLimit: 1000 });
    const findSent = createFindSent({ clock, gate }, { apiKey: 're_sending', baseUrl: resend.url });
    await expect(findSent(request('key-x'), 0, signal)).rejects.toMatchObject({
      kind: 'permanent',
      code: 'outbox.outcome_unknown',
    });
  });

  it('says by its kind that a failing lookup can be tried again', async () => {
    const { findSent } = parts();
    await resend.fault('list', { kind: 'error', status: 500, name: 'internal_server_error' });
    await expect(findSent(request('key-x'), 0, signal)).rejects.toMatchObject({ kind: 'transient' });
  });
});
