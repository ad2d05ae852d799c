/**
 * The stand-in against the software that it stands in for Resend to: the real `resend` SDK calls it, and the
 * real `svix` verifies what it posts. Whatever holds here may be relied on by every test that counts at the
 * far end.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Resend } from 'resend';
import { Webhook } from 'svix';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connectResendStandIn, spawnResendStandIn } from './client.ts';
import type { ResendStandIn } from './contract.ts';
import { startResendStandIn } from './resend-stand-in.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const MAIL = { from: 'bot@agent.example', to: 'ann@sender.example', subject: 'hi', text: 'hello' };
const RAW = [
  'From: Ann <ann@sender.example>',
  'To: Bot <bot@agent.example>',
  'Cc: other@agent.example',
  'Subject: hi',
  'Message-ID: <m1@sender.example>',
  'MIME-Version: 1.0',
  'Content-Type: multipart/mixed; boundary=b',
  '',
  '--b',
  'Content-Type: text/plain',
  '',
  'hello',
  '--b',
  'Content-Type: image/png; name=a.png',
  'Content-Disposition: attachment; filename=a.png',
  'Content-Transfer-Encoding: base64',
  '',
  'AAECAw==',
  '--b--',
  '',
].join('\r\n');

let standIn: ResendStandIn;
let resend: Resend;

beforeEach(async () => {
  standIn = await startResendStandIn({ apiKey: 're_test', sendingKey: 're_send' });
  resend = new Resend('re_test', { baseUrl: standIn.url });
});
afterEach(() => standIn.stop());

describe('sending', () => {
  test('a mail is accepted, listed and readable by its id', async () => {
    const { data } = await resend.emails.send({ ...MAIL, tags: [{ name: 'cause', value: 'a-1' }] });
    const accepted = await standIn.accepted();
    expect(accepted).toMatchObject([{ id: data?.id, idempotencyKey: null, payload: { subject: 'hi' } }]);
    expect((await resend.emails.get(data?.id ?? '')).data).toMatchObject({
      to: ['ann@sender.example'],
      tags: [{ name: 'cause', value: 'a-1' }],
    });
    const listed = (await resend.emails.list()).data?.data;
    expect(listed).toMatchObject([{ id: data?.id, subject: 'hi' }]);
    // As with the real one, who looks for a tag has to ask for each mail.
    expect(listed?.[0]).not.toHaveProperty('tags');
  });

  test('the same key and body is one mail with one id; another body is refused', async () => {
    const first = await resend.emails.send(MAIL, { idempotencyKey: 'k1' });
    const second = await resend.emails.send(MAIL, { idempotencyKey: 'k1' });
    expect(second.data?.id).toBe(first.data?.id);
    const third = await resend.emails.send({ ...MAIL, text: 'other' }, { idempotencyKey: 'k1' });
    expect(third.error).toMatchObject({ statusCode: 409, name: 'invalid_idempotent_request' });
    expect(await standIn.accepted()).toHaveLength(1);
  });

  test('a key is forgotten after 24 hours of its clock', async () => {
    await resend.emails.send(MAIL, { idempotencyKey: 'k1' });
    await standIn.advanceClock(86_399_000);
    await resend.emails.send(MAIL, { idempotencyKey: 'k1' });
    expect(await standIn.accepted()).toHaveLength(1);
    await standIn.advanceClock(2_000);
    await resend.emails.send(MAIL, { idempotencyKey: 'k1' });
    expect(await standIn.accepted()).toHaveLength(2);
  });

  test('the same key while the first request is under way is refused', async () => {
    await standIn.fault('send', { kind: 'delay', ms: 200 });
    const both = await Promise.all([
      resend.emails.send(MAIL, { idempotencyKey: 'k1' }),
      resend.emails.send(MAIL, { idempotencyKey: 'k1' }),
    ]);
    expect(both.filter(({ data }) => data !== null)).toHaveLength(1);
    expect(both.find(({ error }) => error !== null)?.error?.name).toBe('concurrent_idempotent_requests');
  });

  test('a refused mail does not use up its key', async () => {
    const refused = await resend.emails.send({ ...MAIL, to: 'nobody' }, { idempotencyKey: 'k1' });
    expect(refused.error?.name).toBe('validation_error');
    expect((await resend.emails.send(MAIL, { idempotencyKey: 'k1' })).error).toBeNull();
  });

  test.each([
    ['no body', { text: undefined }, 422, 'missing_required_field'],
    ['51 recipients', { to: Array(51).fill('a@b.example') }, 422, 'validation_error'],
    ['a bad recipient', { to: 'a@b.example\r\nBcc: c@d.example' }, 422, 'validation_error'],
    ['a bad tag', { tags: [{ name: 'a b', value: 'c' }] }, 422, 'validation_error'],
    ['a header with a line break', { headers: { 'X-A': 'a\r\nb' } }, 422, 'validation_error'],
    ['an empty attachment', { attachments: [{ filename: 'a' }] }, 422, 'invalid_attachment'],
    ['a bad sender', { from: 'bot' }, 422, 'invalid_from_address'],
  ])('%s is refused', async (_, change, statusCode, name) => {
    const { error } = await resend.emails.send({ ...MAIL, ...change } as typeof MAIL);
    expect(error).toMatchObject({ statusCode, name });
    expect(await standIn.accepted()).toHaveLength(0);
  });

  test('keys, domains and the quota are checked', async () => {
    const withKey = (key: string) => new Resend(key, { baseUrl: standIn.url });
    expect((await withKey('wrong').emails.send(MAIL)).error?.name).toBe('invalid_api_key');
    expect((await withKey('re_send').emails.list()).error?.name).toBe('restricted_api_key');
    await standIn.configure({ verifiedDomains: ['other.example'] });
    expect((await resend.emails.send(MAIL)).error).toMatchObject({
      statusCode: 403,
      name: 'validation_error',
    });
    await standIn.configure({ verifiedDomains: ['agent.example'], dailyQuota: 1 });
    expect((await withKey('re_send').emails.send(MAIL)).error).toBeNull();
    expect((await resend.emails.send(MAIL)).error?.name).toBe('daily_quota_exceeded');
  });

  test('a batch is all or nothing when strict, and reports by index when permissive', async () => {
    const mails = [MAIL, { ...MAIL, to: 'nobody' }, MAIL];
    expect((await resend.batch.send(mails)).error?.name).toBe('validation_error');
    expect(await standIn.accepted()).toHaveLength(0);
    const { data } = await resend.batch.send(mails, { batchValidation: 'permissive', idempotencyKey: 'b1' });
    expect(data).toMatchObject({ data: [{}, {}], errors: [{ index: 1 }] });
    expect(await standIn.accepted()).toHaveLength(2);
  });

  test('the window of a second lets so many requests through and tells where it stands', async () => {
    await standIn.configure({ requestsPerSecond: 3 });
    const answers = await Promise.all(Array.from({ length: 10 }, () => resend.emails.list()));
    const refused = answers.filter(({ error }) => error?.name === 'rate_limit_exceeded');
    // Ten requests cannot take longer than two windows.
    expect(refused.length).toBeGreaterThanOrEqual(4);
    expect(refused[0]?.headers).toMatchObject({ 'ratelimit-limit': '3', 'ratelimit-remaining': '0' });
  });
});

describe('faults', () => {
  test('they queue up for a route, and leave others alone', async () => {
    await standIn.fault('send', { kind: 'error', status: 500, name: 'internal_server_error' }, 2);
    await standIn.fault('send', { kind: 'error', status: 503, name: 'service_unavailable' });
    expect((await resend.emails.list()).error).toBeNull();
    const names: (string | undefined)[] = [];
    for (let attempt = 0; attempt < 4; attempt += 1) names.push((await resend.emails.send(MAIL)).error?.name);
    expect(names).toEqual([
      'internal_server_error',
      'internal_server_error',
      'service_unavailable',
      undefined,
    ]);
  });

  test.each([
    ['reset', 0],
    ['lost-response', 1],
    ['empty', 1],
    ['truncated', 1],
  ] as const)('%s looks like a network failure, and %i mails were accepted', async (kind, count) => {
    await standIn.fault('send', { kind });
    const { error } = await resend.emails.send(MAIL, { idempotencyKey: 'k1' });
    expect(error).toMatchObject({ name: 'application_error', statusCode: null });
    expect(await standIn.accepted()).toHaveLength(count);
    await resend.emails.send(MAIL, { idempotencyKey: 'k1' });
    expect(await standIn.accepted()).toHaveLength(1);
  });

  test('a request that hangs ends with the caller or with the stand-in', async () => {
    await standIn.fault('send', { kind: 'hang' });
    const hanging = resend.emails.send(MAIL);
    await standIn.fault('list', { kind: 'hang' });
    const controller = new AbortController();
    const aborted = resend.emails.list({}, { signal: controller.signal });
    controller.abort();
    expect((await aborted).error?.statusCode).toBeNull();
    await standIn.stop();
    expect((await hanging).error?.statusCode).toBeNull();
  });

  test('an email can be missing for a while', async () => {
    const { emailId } = await standIn.deliver(RAW, { silent: true });
    await standIn.fault('receive', { kind: 'not-found-for', ms: 3000 });
    expect((await resend.emails.receiving.get(emailId)).error?.name).toBe('not_found');
    await standIn.advanceClock(3000);
    expect((await resend.emails.receiving.get(emailId)).data?.id).toBe(emailId);
  });
});

describe('receiving', () => {
  test('an email is described, and its link brings the raw bytes until it expires', async () => {
    const { emailId } = await standIn.deliver(RAW, { silent: true });
    const { data } = await resend.emails.receiving.get(emailId);
    expect(data).toMatchObject({
      from: 'ann@sender.example',
      to: ['bot@agent.example'],
      message_id: '<m1@sender.example>',
      text: 'hello\n',
      attachments: [{ filename: 'a.png', content_type: 'image/png', size: 4 }],
    });
    const link = data?.raw?.download_url ?? '';
    expect(await (await fetch(link)).text()).toBe(RAW);
    expect((await fetch(`${link}0`)).status).toBe(403);
    await standIn.advanceClock(3_600_000);
    expect((await fetch(link)).status).toBe(403);
  });

  test('the list is newest first and goes on after an id', async () => {
    for (const emailId of ['e1', 'e2', 'e3']) await standIn.deliver(RAW, { silent: true, emailId });
    const page = await resend.emails.receiving.list({ limit: 2 });
    expect(page.data).toMatchObject({ has_more: true, data: [{ id: 'e3' }, { id: 'e2' }] });
    const next = await resend.emails.receiving.list({ limit: 2, after: 'e2' });
    expect(next.data).toMatchObject({ has_more: false, data: [{ id: 'e1' }] });
  });
});

/** An endpoint that keeps what was posted and answers with the statuses given, then 200. */
async function startEndpoint(statuses: number[] = []) {
  const posts: { headers: Record<string, string>; body: string }[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      posts.push({ headers: request.headers as Record<string, string>, body });
      response.writeHead(statuses.shift() ?? 200).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
  return { url, posts, [Symbol.asyncDispose]: async () => void server.close() };
}

describe('webhooks', () => {
  test('email.received carries metadata only and verifies under each secret', async () => {
    await using endpoint = await startEndpoint();
    const newSecret = `whsec_${Buffer.from('another secret of some length').toString('base64')}`;
    await standIn.configure({ webhook: { url: endpoint.url, secret: [SECRET, newSecret] } });
    const delivery = await standIn.deliver(RAW, { bcc: ['hidden@agent.example'] });
    expect(delivery.status).toBe(200);
    const post = endpoint.posts[0];
    for (const secret of [SECRET, newSecret])
      expect(() => new Webhook(secret).verify(post?.body ?? '', post?.headers ?? {})).not.toThrow();
    expect(JSON.parse(post?.body ?? '')).toEqual({
      type: 'email.received',
      created_at: expect.any(String),
      data: {
        email_id: delivery.emailId,
        created_at: expect.any(String),
        from: 'ann@sender.example',
        to: ['bot@agent.example'],
        cc: ['other@agent.example'],
        bcc: ['hidden@agent.example'],
        received_for: ['bot@agent.example', 'other@agent.example', 'hidden@agent.example'],
        message_id: '<m1@sender.example>',
        subject: 'hi',
        attachments: [
          {
            id: expect.any(String),
            filename: 'a.png',
            content_type: 'image/png',
            content_disposition: 'attachment',
            content_id: null,
          },
        ],
      },
    });
  });

  test('copies, retries and redeliveries keep id and body', async () => {
    await using endpoint = await startEndpoint([503, 500]);
    await standIn.configure({ webhook: { url: endpoint.url, secret: SECRET } });
    const retried = await standIn.deliver(RAW, { retryDelaysMs: [1, 1, 1] });
    expect(retried.statuses).toEqual([503, 500, 200]);
    const copied = await standIn.deliver(RAW, {
      svixId: retried.svixId,
      emailId: retried.emailId,
      copies: 5,
    });
    expect(copied.statuses).toEqual([200, 200, 200, 200, 200]);
    expect(await standIn.redeliver(retried.svixId)).toBe(200);
    expect(new Set(endpoint.posts.map(({ headers }) => headers['svix-id'])).size).toBe(1);
    expect(new Set(endpoint.posts.map(({ body }) => body)).size).toBe(1);
    expect(endpoint.posts).toHaveLength(9);
  });

  test('an endpoint that is not there is null, not an exception', async () => {
    await standIn.configure({ webhook: { url: 'http://127.0.0.1:1/hook', secret: SECRET } });
    expect((await standIn.deliver(RAW)).status).toBeNull();
  });

  test('delivery events follow a send', async () => {
    await using endpoint = await startEndpoint();
    await standIn.configure({ webhook: { url: endpoint.url, secret: SECRET } });
    const { data } = await resend.emails.send({ ...MAIL, tags: [{ name: 'cause', value: 'a-1' }] });
    await standIn.postDeliveryEvent('bounced', data?.id ?? '');
    expect(JSON.parse(endpoint.posts[0]?.body ?? '')).toMatchObject({
      type: 'email.bounced',
      data: {
        email_id: data?.id,
        to: ['ann@sender.example'],
        tags: { cause: 'a-1' },
        bounce: { type: 'Permanent' },
      },
    });
  });
});

test('the separate process offers the same methods over its control API', async () => {
  await using endpoint = await startEndpoint();
  const remote = await spawnResendStandIn({
    apiKey: 're_test',
    webhook: { url: endpoint.url, secret: SECRET },
    deliveryEvents: ['sent'],
  });
  try {
    const waiting = connectResendStandIn(remote.url).waitForAccepted(1);
    const client = new Resend('re_test', { baseUrl: remote.url });
    await remote.fault('send', { kind: 'error', status: 500, name: 'internal_server_error' });
    expect((await client.emails.send(MAIL)).error?.name).toBe('internal_server_error');
    await client.emails.send(MAIL, { idempotencyKey: 'k1' });
    expect(await waiting).toMatchObject([{ idempotencyKey: 'k1', payload: MAIL }]);
    expect((await remote.requests()).map(({ route }) => route)).toEqual(['send', 'send']);
    const { emailId, status } = await remote.deliver(new TextEncoder().encode(RAW), { receivedFor: null });
    expect(status).toBe(200);
    expect(JSON.parse(endpoint.posts.at(-1)?.body ?? '').data).not.toHaveProperty('received_for');
    expect((await client.emails.receiving.get(emailId)).data?.subject).toBe('hi');
    await expect(remote.redeliver('unknown')).rejects.toThrow('no event unknown');
  } finally {
    await remote.stop();
  }
  expect((await new Resend('re_test', { baseUrl: remote.url }).emails.list()).error?.statusCode).toBeNull();
});
