/** The webhook of the tools' repository: who is believed, and that a push reaches the stream `tools`. */
import { createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { createBodyReader } from '../../src/ingest/body-reader.ts';
import { createGitWebhookRoute } from '../../src/ingest/git-webhook.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import { parseJsonRecord, streamNames, toolsStreamSchema } from '../../src/streams/records.ts';
import type { Stream } from '../../src/streams/stream-store.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const SECRET = 'a-long-random-word';
const BODY = JSON.stringify({ ref: 'refs/heads/main' });
const log = createLog('silent');
const bodies = createBodyReader();
const sign = (body: string, secret = SECRET) => createHmac('sha256', secret).update(body).digest('hex');

const store = useTemporaryStore();
const toolsStream = (): Stream => store().stream(streamNames.tools);

async function post(headers: Record<string, string>, body: string | Uint8Array = BODY): Promise<Response> {
  const app = createGitWebhookRoute(
    { tools: toolsStream(), bodies, clock, log },
    { secret: SECRET, maxBodyBytes: 1000 },
  );
  return app.request('/webhooks/git', { method: 'POST', headers, body });
}

describe('the Git webhook', () => {
  it.each([
    ['GitHub', { 'x-hub-signature-256': `sha256=${sign(BODY)}`, 'x-github-event': 'push' }],
    ['Gitea', { 'x-gitea-signature': sign(BODY), 'x-hub-signature-256': `sha256=${sign(BODY)}` }],
    ['Gitea of old', { 'x-gitea-signature': sign(BODY) }],
    ['Forgejo', { 'x-forgejo-signature': sign(BODY) }],
    ['GitLab', { 'x-gitlab-token': SECRET, 'x-gitlab-event': 'Push Hook' }],
  ])('takes a push of %s, and asks for a look at the repository', async (_, headers) => {
    expect((await post(headers)).status).toBe(202);
    const { records } = await toolsStream().read({ fromSeqNum: 0 });
    expect(records.map((record) => parseJsonRecord(toolsStreamSchema, record))).toMatchObject([
      { kind: 'tools-request', action: 'sync', commit: null },
    ]);
  });

  // With all events sent, each status that was posted of a refused commit came back and had it built again, for ever.
  it.each([
    ['x-github-event', 'status'],
    ['x-gitea-event', 'status'],
    ['x-gitlab-event', 'Pipeline Hook'],
  ])('takes an event that is no push, %s: %s, and asks for nothing', async (name, event) => {
    expect((await post({ 'x-hub-signature-256': `sha256=${sign(BODY)}`, [name]: event })).status).toBe(202);
    expect(await toolsStream().tail()).toBe(0);
  });

  it.each([
    ['x-github-event', 'ping'],
    ['x-forgejo-event', 'delete'],
    ['x-gitlab-event', 'Tag Push Hook'],
  ])('asks for a look at %s: %s', async (name, event) => {
    await post({ 'x-hub-signature-256': `sha256=${sign(BODY)}`, [name]: event });
    expect(await toolsStream().tail()).toBe(1);
  });

  it.each([
    ['nothing', {}],
    ['another secret', { 'x-hub-signature-256': `sha256=${sign(BODY, 'other')}` }],
    ['another body', { 'x-hub-signature-256': `sha256=${sign('other')}` }],
    ['no prefix', { 'x-hub-signature-256': sign(BODY) }],
    ['SHA-1', { 'x-hub-signature': `sha1=${createHmac('sha1', SECRET).update(BODY).digest('hex')}` }],
    ['an empty signature', { 'x-gitea-signature': '' }],
    ['another token', { 'x-gitlab-token': `${SECRET}x` }],
    ['an empty token', { 'x-gitlab-token': '' }],
    ['one right and one wrong', { 'x-gitlab-token': SECRET, 'x-gitea-signature': sign('other') }],
  ])('does not believe %s', async (_, headers) => {
    expect((await post(headers as Record<string, string>)).status).toBe(401);
    expect(await toolsStream().tail()).toBe(0);
  });

  it('verifies the bytes as they came, whatever they are', async () => {
    const bytes = new Uint8Array([0xff, 0xfe, 0, 0xc3, 0x28]);
    const signature = createHmac('sha256', SECRET).update(bytes).digest('hex');
    expect((await post({ 'x-hub-signature-256': `sha256=${signature}` }, bytes)).status).toBe(202);
  });

  it('does not wait for the body of a request that brings no proof', async () => {
    const body = new ReadableStream({ pull: () => new Promise(() => {}) });
    const app = createGitWebhookRoute({ tools: toolsStream(), bodies, clock, log }, { secret: SECRET });
    const unproved = { method: 'POST', body, duplex: 'half' as const };
    expect((await app.request('/webhooks/git', unproved)).status).toBe(401);
  });

  it('takes no body above its limit, and nothing but POST', async () => {
    expect((await post({ 'x-gitlab-token': SECRET }, 'x'.repeat(1001))).status).toBe(413);
    const app = createGitWebhookRoute({ tools: toolsStream(), bodies, clock, log }, { secret: SECRET });
    expect((await app.request('/webhooks/git')).status).toBe(405);
    expect(await toolsStream().tail()).toBe(0);
  });

  it('says so when the request cannot be stored', async () => {
    const failing: Stream = {
      ...toolsStream(),
      append: () => Promise.reject(new MillraceError('transient', 'streams.unavailable', 'down')),
    };
    const app = createGitWebhookRoute({ tools: failing, bodies, clock, log }, { secret: SECRET });
    const headers = { 'x-gitlab-token': SECRET };
    expect((await app.request('/webhooks/git', { method: 'POST', headers, body: BODY })).status).toBe(503);
  });
});
