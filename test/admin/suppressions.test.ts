/** What a person sees of addresses that no mail is sent to, and how they let mail go there again. */
import { Hono } from 'hono';
import { describe, expect, it } from 'vitest';
import type { AdminClient } from '../../src/admin/admin-client.ts';
import { liftAddress, printSuppressions } from '../../src/admin/suppression-commands.ts';
import { createSuppressionRoutes } from '../../src/admin/suppression-routes.ts';
import type { SuppressionsPage } from '../../src/admin/suppressions.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import { readBodies } from '../streams/store-reading.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const store = useTemporaryStore();
const AT = '2026-11-22T10:00:00Z';

async function bounce(...addresses: string[]): Promise<void> {
  const details = { bounce: { type: 'Permanent', subType: 'General', message: 'no such user' } };
  const records = addresses.map((to) => {
    const fields = { providerId: `p-${to}`, messageId: null, to: [to], tags: {}, at: AT, details };
    return jsonRecord({ kind: 'delivery', version: 1, event: 'bounced', ...fields });
  });
  await store().stream(streamNames.delivery).append(records);
}

/** The journal says that this was sent, and for which mail. */
async function sent(providerId: string, emailId: string): Promise<void> {
  const base = {
    kind: 'outcome',
    version: 1,
    seqNum: 0,
    key: emailId,
    attempts: 1,
    reason: null,
    error: null,
  };
  const cause = { inbox: 'desk', seqNum: 3, effect: 0, emailId };
  const facts = { idempotencyKey: `desk/${emailId}/0`, cause, providerId };
  const outcome = jsonRecord({ ...base, outcome: 'done', at: AT, durationMs: 1, facts });
  await store().stream(streamNames.sent).append([outcome]);
}

const app = (): Hono =>
  new Hono().route(
    '/',
    createSuppressionRoutes({ store: store(), clock, log: createLog('silent') }, { keptMs: 86_400_000 }),
  );

const list = async (query = ''): Promise<SuppressionsPage> =>
  (await (await app().request(`/api/admin/suppressions${query}`)).json()) as SuppressionsPage;

function lift(body: unknown): Response | Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  const init = { method: 'POST', headers, body: JSON.stringify(body) };
  return app().request('/api/admin/suppressions/lift', init);
}

/** What the commands print. */
async function printed(
  work: (deps: { client: AdminClient; print: (text: string) => void }) => Promise<void>,
) {
  const lines: string[] = [];
  const get: AdminClient['get'] = async (path, query = {}) =>
    (await (
      await app().request(`${path}?${new URLSearchParams(query as Record<string, string>).toString()}`)
    ).json()) as never;
  const post: AdminClient['post'] = async (_, body) => (await (await lift(body)).json()) as never;
  await work({ client: { get, post }, print: (text) => void lines.push(text) });
  return lines.join('\n');
}

describe('suppressed addresses', () => {
  it('are listed with since when, why, and by which mail', async () => {
    expect(await list()).toEqual({ suppressions: [], next: null });
    await sent('p-ann@a.example', 'e1');
    await bounce('ann@a.example', 'bea@b.example');
    const { suppressions } = await list();
    expect(suppressions).toEqual([
      {
        address: 'ann@a.example',
        at: expect.stringMatching(/^\d{4}-/) as string,
        reason: 'bounced',
        message: 'Permanent, General, no such user',
        deliverySeqNum: 0,
        providerId: 'p-ann@a.example',
        cause: { inbox: 'desk', seqNum: 3, effect: 0, emailId: 'e1' },
      },
      expect.objectContaining({ address: 'bea@b.example', cause: null }),
    ]);
  });

  it('come in pages', async () => {
    await bounce('ann@a.example', 'bea@b.example', 'cai@c.example');
    const first = await list('?limit=2');
    expect(first.suppressions.map(({ address }) => address)).toEqual(['ann@a.example', 'bea@b.example']);
    const second = await list(`?limit=2&from=${first.next}`);
    expect(second.suppressions.map(({ address }) => address)).toEqual(['cai@c.example']);
    expect(second.next).toBeNull();
  });

  it('are lifted, each by a record; once more, there is nothing to lift', async () => {
    await bounce('ann@a.example', 'bea@b.example');
    expect(await (await lift({ address: 'Ann@A.example' })).json()).toEqual({
      address: 'ann@a.example',
      status: 'lifted',
    });
    expect((await list()).suppressions.map(({ address }) => address)).toEqual(['bea@b.example']);
    expect(await (await lift({ address: 'ann@a.example' })).json()).toMatchObject({
      status: 'not-suppressed',
    });
    expect(await readBodies(store().stream(streamNames.suppressions))).toHaveLength(1);
    await bounce('ann@a.example');
    expect((await list()).suppressions.map(({ address }) => address)).toEqual([
      'bea@b.example',
      'ann@a.example',
    ]);
  });

  it.each([
    [{ address: 'ann' }],
    [{ address: 'Ann <ann@a.example>' }],
    [{}],
    [{ address: 'ann@a.example', all: true }],
  ])('are not lifted by %j', async (body) => expect((await lift(body)).status).toBe(422));

  it('are shown and lifted by the commands', async () => {
    await sent('p-ann@a.example', 'e1');
    await bounce('ann@a.example');
    const shown = await printed((deps) => printSuppressions(deps, false));
    expect(shown).toMatch(/^\S+ {2}ann@a\.example {2}bounced: Permanent, General, no such user\n/);
    expect(shown).toContain('by what desk made of email e1, delivery#0');
    expect(shown).toContain('No mail is sent to 1 address.');
    expect(await printed((deps) => liftAddress(deps, 'ann@a.example'))).toContain('again');
    expect(await printed((deps) => liftAddress(deps, 'ann@a.example'))).toContain('is not suppressed');
    expect(await printed((deps) => printSuppressions(deps, true))).toBe('[]');
  });
});
