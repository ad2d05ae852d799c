/** The admin API's edge: the token, hostile parameters, pages; and what a person is shown of records and traces. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EmailTrace } from '../../src/admin/trace.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import { startOperatorWorld, workOff } from './operator-world.ts';
import type { OperatorWorld } from './operator-world.ts';

let world: OperatorWorld;
beforeAll(async () => {
  world = await startOperatorWorld();
});
afterAll(() => world[Symbol.asyncDispose]());

const GETS = [
  'dead-letters?stage=receive',
  'trace?id=a',
  'streams',
  'streams/records?name=events',
  'mails',
  'health',
];
const one = { inbox: 'desk', seqNums: { from: 0, to: 0 } };
const again = { inbox: 'desk', id: 'a', emailId: 'e0' };

describe('the admin API', () => {
  it.each([null, 'another-token', 'x'.repeat(1000)])('answers 401 to %s', async (token) => {
    for (const path of GETS) expect((await world.ask(`/api/admin/${path}`, { token })).status).toBe(401);
    for (const [path, body] of [['redrive', one] as const, ['replay', again] as const])
      expect((await world.ask(`/api/admin/${path}`, { body, token })).status).toBe(401);
  });

  it.each([
    'dead-letters',
    'dead-letters?stage=runner',
    'dead-letters?stage=receive&inbox=desk',
    'dead-letters?inbox=../outbox',
    'dead-letters?inbox=unrouted',
    'dead-letters?inbox=a%2Fb',
    `dead-letters?inbox=${'x'.repeat(2000)}`,
    'dead-letters?inbox=__proto__&from=-1',
    'dead-letters?stage=receive&limit=501',
    'dead-letters?stage=receive&limit=0',
    'dead-letters?stage=receive&from=1e9',
    'dead-letters?stage=receive&from=9999999999999999',
    'dead-letters?stage=receive&open=yes',
    'dead-letters?stage=receive&opn=true',
    'mails?limit=501',
    'mails?before=-1',
    'mails?from=ann',
    `mails?text=${'x'.repeat(501)}`,
    'trace',
    'trace?id=',
    'trace?id=a%00b',
    'trace?id=a%0d%0ab',
    `trace?id=${'x'.repeat(999)}`,
    'streams?limit=100000',
    'streams/records',
    'streams/records?name=',
    'streams/records?name=events&count=1001',
    'streams/records?name=events&from=NaN',
  ])('refuses %s', async (path) => {
    const response = await world.ask(`/api/admin/${path}`);
    expect(response.status).toBe(422);
    expect(await response.json()).toMatchObject({ error: { code: 'admin.invalid_request' } });
  });

  it.each([
    ['redrive', null],
    ['redrive', []],
    ['redrive', {}],
    ['redrive', { inbox: 'desk' }],
    ['redrive', { ...one, stage: 'outbox' }],
    ['redrive', { ...one, inbox: '..' }],
    ['redrive', { ...one, inbox: { toString: 'desk' } }],
    ['redrive', { ...one, seqNums: { from: 2, to: 1 } }],
    ['redrive', { ...one, seqNums: { from: -1, to: 1 } }],
    ['redrive', { ...one, seqNums: { from: 0.5, to: 1 } }],
    ['redrive', { ...one, seqNums: 'some' }],
    ['redrive', { ...one, isKnownUnsent: true }],
    ['redrive', { ...one, all: true }],
    ['replay', { ...again, id: '' }],
    ['replay', { ...again, id: 'a#b' }],
    ['replay', { ...again, unroutedTo: 'desk' }],
    ['replay', { inbox: 'desk', id: 'a' }],
    ['replay', { ...again, since: 'yesterday' }],
    ['replay', { ...again, emailId: 'a/b' }],
    ['replay', { ...again, page: { fromSeqNum: 0 } }],
    ['replay', { ...again, inbox: 'unrouted' }],
    ['replay', { ...again, inbox: 'nobody' }],
  ])('refuses to %s %j', async (path, body) => {
    const response = await world.ask(`/api/admin/${path}`, { body });
    expect(response.status).toBe(422);
  });

  it('refuses what is no JSON, does not say so, or is too large', async () => {
    const post = (body: string, type = 'application/json'): Promise<Response> =>
      fetch(`${world.url}/api/admin/redrive`, {
        method: 'POST',
        headers: { Authorization: 'Bearer the-admin-token', 'Content-Type': type },
        body,
      });
    expect((await post('{"inbox": ')).status).toBe(422);
    expect((await post(JSON.stringify(one), 'text/plain')).status).toBe(415);
    expect((await post(' '.repeat(17_000))).status).toBe(413);
    expect((await post(`${'['.repeat(8_000)}${']'.repeat(8_000)}`)).status).toBe(422);
  });

  it('answers 404 where no stream knows of an email, and 422 for what can name no stream', async () => {
    expect((await world.ask('/api/admin/trace?id=no-such-email')).status).toBe(404);
    expect((await world.ask('/api/admin/trace?id=%3Cno-such@email.example%3E')).status).toBe(404);
    for (const name of ['..', '.', 'a%00b'])
      expect((await world.ask(`/api/admin/streams/records?name=${name}`)).status).toBe(422);
  });

  it.each([
    ['no-such-route', undefined],
    ['', undefined],
    ['redrive', undefined],
    ['health', {}],
    ['tools/no-such-route', {}],
  ])('answers 404 in JSON where there is no route: %s', async (path, body) => {
    const response = await world.ask(`/api/admin/${path}`, body === undefined ? {} : { body });
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ error: { code: 'admin.not_found' } });
  });

  it('shows records as JSON, text or base64, and names of streams in pages', async () => {
    const bodies = ['{"kind":"x"}', 'plain', Buffer.from([0xff, 0xfe])];
    await world.store.stream('looks/a').append(bodies.map((body) => ({ headers: [['h', 'v']], body })));
    await world.store.stream('looks/b').append([{ body: 'x' }]);
    const answer = await (await world.ask('/api/admin/streams/records?name=looks/a&count=2')).json();
    expect(answer).toMatchObject({
      tail: 3,
      nextSeqNum: 3,
      records: [{ text: 'plain' }, { base64: '//4=' }],
    });
    const first = await (await world.ask('/api/admin/streams/records?name=looks/a&from=0&count=1')).json();
    expect(first).toMatchObject({ records: [{ seqNum: 0, headers: [['h', 'v']], json: { kind: 'x' } }] });
    const page = await (await world.ask('/api/admin/streams?prefix=looks/&limit=1')).json();
    expect(page).toEqual({ names: ['looks/a'], hasMore: true });
    const rest = await (await world.ask('/api/admin/streams?prefix=looks/&startAfter=looks/a')).json();
    expect(rest).toEqual({ names: ['looks/b'], hasMore: false });
  });
});

describe('a trace', () => {
  const trace = async (id: string): Promise<EmailTrace[]> => {
    const response = await world.ask(`/api/admin/trace?id=${encodeURIComponent(id)}`);
    return ((await response.json()) as { emails: EmailTrace[] }).emails;
  };

  it('shows what there is of a mail whose event is gone, and what cannot be read as such', async () => {
    await world.mail('e1');
    await world.mail('e2');
    await world.store.stream('inbox/desk').append([jsonRecord({ kind: 'email', version: 1 }, 'e1/odd')]);
    await workOff(world.store, {
      source: 'inbox/desk',
      journal: 'runs/desk',
      handle: async () => ({ kind: 'skipped', reason: 'auto-submitted', facts: { revision: 'r1' } }),
    });
    const [email] = await trace('e1');
    expect(
      email?.steps.map(({ step, seqNum, facts }) => [step, seqNum, facts['isMalformed'], facts['of']]),
    ).toEqual([
      ['inbox', 0, undefined, undefined],
      ['inbox', 2, true, undefined],
      ['run', expect.any(Number), undefined, 0],
      ['run', expect.any(Number), undefined, 2],
    ]);
    expect(email?.steps[2]?.facts).toMatchObject({
      outcome: 'skipped',
      reason: 'auto-submitted',
      revision: 'r1',
    });
  });

  it('follows a request to its delivery, by the Message-ID of the mail, for every mail that has it', async () => {
    const event = (emailId: string) => ({
      body: JSON.stringify({
        type: 'email.received',
        data: { email_id: emailId, message_id: '<m@x.example>' },
      }),
    });
    await world.store.stream('events').append([event('e8'), event('e9')]);
    const request = { from: 'a@y.example', to: 'ann@x.example', subject: 'Re', text: 't', headers: {} };
    const frozen = {
      kind: 'request',
      version: 1,
      idempotencyKey: 'desk/0/0/e9',
      cause: { inbox: 'desk', seqNum: 0, effect: 0, emailId: 'e9' },
      thread: 't',
      notBefore: null,
      request,
    };
    await world.store.stream('outbox').append([jsonRecord(frozen, frozen.idempotencyKey)]);
    await workOff(world.store, {
      source: 'outbox',
      journal: 'sent',
      recordsAttempts: true,
      handle: async () => ({ kind: 'done', facts: { providerId: 'p9' } }),
    });
    const delivery = { kind: 'delivery', version: 1, event: 'bounced', providerId: 'p9', messageId: null };
    const rest = { to: ['ann@x.example'], tags: {}, at: '2026-11-22T10:00:00Z', details: { why: 'full' } };
    await world.store.stream('delivery').append([jsonRecord({ ...delivery, ...rest })]);
    const emails = await trace('m@x.example');
    expect(emails.map(({ emailId }) => emailId)).toEqual(['e9', 'e8']);
    expect(emails[0]?.steps.map(({ step }) => step)).toEqual([
      'event',
      'request',
      'attempt',
      'sent',
      'delivery',
    ]);
    expect(emails[1]?.steps.map(({ step }) => step)).toEqual(['event']);
  });
});
