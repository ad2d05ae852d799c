/** Asking Resend whether a request went out, after its idempotency key was forgotten: through the real SDK. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ProviderRequest } from '../../src/mail/email.ts';
import { createFindSent } from '../../src/outbox/find-sent.ts';
import { createSentList } from '../../src/outbox/sent-list.ts';
import type { ListedMail } from '../../src/outbox/sent-list.ts';
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
    expect(await findSent(request('key-old'), clock.nowMs() + 5 * 3_600_000, signal)).toBeNull();
    expect((await lists()) - before).toBe(1);
  });

  it('lists what was sent once, however many are looked for while others go out', async () => {
    const { outbound, findSent } = parts();
    const asked = async (route: string): Promise<number> =>
      (await resend.requests()).filter((call) => call.route === route).length;
    const sinceMs = clock.nowMs();
    for (let i = 0; i < 250; i++) await outbound.send(request(`many-${i}`, 'Re: Many'), `many-${i}`, signal);
    await resend.advanceClock(5 * 60_000);
    const { providerId } = await outbound.send(request('last', 'Re: Few'), 'last', signal);
    expect(await findSent(request('none', 'Re: None'), sinceMs, signal)).toBeNull();
    const before = await asked('list');
    for (let i = 0; i < 20; i++) {
      expect(await findSent(request(`late-${i}`, 'Re: Few'), sinceMs, signal)).toBeNull();
      const sent = await outbound.send(request(`late-${i}`, 'Re: Few'), `late-${i}`, signal);
      expect(await findSent(request(`late-${i}`, 'Re: Few'), sinceMs, signal)).toEqual(sent);
      await resend.advanceClock(5 * 60_000);
    }
    expect(await findSent(request('last', 'Re: Few'), sinceMs, signal)).toEqual({ providerId });
    // Each needs one page, though what was sent since its first attempt fills several.
    expect((await asked('list')) - before).toBe(41);
    expect(await asked('get')).toBeLessThan(100);
  });

  it('finds what is listed only after something newer was', async () => {
    const early = {
      id: 'early',
      to: ['ann@sender.example'],
      subject: 'a',
      created_at: new Date().toISOString(),
    };
    const late = { ...early, id: 'late' };
    const old = { ...early, id: 'old', created_at: new Date(clock.nowMs() - 600_000).toISOString() };
    const list = createSentList({ clock });
    const pageOf =
      (...data: ListedMail[]) =>
      async () => ({ data, has_more: false });
    expect(await list.since(0, pageOf(early, old))).toHaveLength(2);
    const found = await list.since(0, pageOf(early, late, old));
    expect(found.map(({ id }) => id)).toEqual(['early', 'late', 'old']);
  });

  it('lists further back for one whose attempt was longer ago', async () => {
    const nowMs = clock.nowMs();
    const mail = (id: string, hoursAgo: number): ListedMail => ({
      id,
      to: ['ann@sender.example'],
      subject: '',
      created_at: new Date(nowMs - hoursAgo * 3_600_000).toISOString(),
    });
    const pages: string[] = [];
    const list = createSentList({ clock });
    const since = async (hoursAgo: number): Promise<string[]> => {
      const found = await list.since(nowMs - hoursAgo * 3_600_000, async (after = 'first') => {
        pages.push(after);
        return after === 'first'
          ? { data: [mail('a', 0), mail('b', 1)], has_more: true }
          : { data: [mail('c', 3)], has_more: false };
      });
      return found.map(({ id }) => id);
    };
    expect([await since(0.5), await since(4), await since(2)]).toEqual([['a'], ['a', 'b', 'c'], ['a', 'b']]);
    expect(pages).toEqual(['first', 'first', 'b', 'first']);
  });

  it('lists once for many who look at the same time', async () => {
    const { outbound, findSent } = parts();
    await outbound.send(request('at-once'), 'at-once', signal);
    const lists = async () => (await resend.requests()).filter(({ route }) => route === 'list').length;
    const before = await lists();
    const asked = Array.from({ length: 20 }, (_, i) =>
      findSent(request(`none-${i}`, 'Re: None'), clock.nowMs() + 4 * 3_600_000, signal),
    );
    expect(await Promise.all(asked)).toEqual(Array(20).fill(null));
    expect((await lists()) - before).toBeLessThan(3);
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
