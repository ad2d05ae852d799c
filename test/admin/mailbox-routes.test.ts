/** The local mailbox over HTTP: what a mail's way looks like from outside, state by state. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Conversation, LocalMailView } from '../../src/admin/conversation.ts';
import { createMailboxView } from '../../src/admin/mailbox-view.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { DOMAIN, reverser, startMailbox } from './mailbox-world.ts';
import type { MailboxWorld } from './mailbox-world.ts';

let gate: PromiseWithResolvers<void>;
let world: MailboxWorld;

beforeEach(async () => {
  gate = Promise.withResolvers();
  world = await startMailbox({
    reverser,
    silent: () => ({ kind: 'skipped', reason: 'no-reply-from-tool', facts: { logs: ['nothing to say'] } }),
    broken: () => {
      throw new MillraceError('permanent', 'tool.threw', 'TypeError: x is not a function', {
        hint: 'Mend it.',
      });
    },
    flaky: () => {
      throw new MillraceError('transient', 'runner.busy', 'later');
    },
    waiting: async () => {
      await gate.promise;
      return { kind: 'skipped', reason: 'no-reply-from-tool' };
    },
    pages: () => ({
      text: 'See the page',
      html: '<h1 style="color:red">Page</h1>',
      attachments: [
        {
          filename: 'räport "1".html',
          contentBase64: Buffer.from('<script>1</script>').toString('base64'),
          contentType: 'text/html',
        },
      ],
    }),
    twice: () => [{ text: 'one' }, { text: 'two' }],
    done: () => ({ kind: 'done' }),
    earlier: () => ({ kind: 'done', facts: { effects: 2 } }),
    huge: () => ({ text: 'y'.repeat(900_000) }),
  });
});

afterEach(async () => {
  gate.resolve();
  await world[Symbol.asyncDispose]();
});

async function conversations(): Promise<Conversation[]> {
  const response = await world.api('/api/mailbox');
  return ((await response.json()) as { conversations: Conversation[] }).conversations;
}

const message = { from: 'ann@sender.example', to: `reverser@${DOMAIN}`, subject: 'Hi', text: 'Hello' };
const post = (body: unknown, contentType = 'application/json'): Promise<Response> =>
  fetch(`${world.url}/api/mailbox`, {
    method: 'POST',
    headers: { Authorization: 'Bearer the-admin-token', 'Content-Type': contentType },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });

describe('the way of a mail', () => {
  it('is told from the form to the reply', async () => {
    const response = await post(message);
    expect(response.status).toBe(201);
    const { emailId } = (await response.json()) as { emailId: string };
    const mail = await world.settled(emailId);
    expect(mail).toMatchObject({
      state: 'answered',
      from: 'ann@sender.example',
      text: 'Hello',
      inboxes: [
        {
          inbox: 'reverser',
          state: 'answered',
          revision: 'r1',
          logs: ['started'],
          replies: [
            { text: 'olleH', subject: 'Re: Hi', to: 'ann@sender.example', from: `reverser@${DOMAIN}` },
          ],
        },
      ],
    });
    expect(mail.inboxes[0]?.replies[0]?.headers).toMatchObject({ 'In-Reply-To': mail.messageId });
  });

  it.each([
    ['silent', { state: 'not-answered', stage: 'runner', reason: 'no-reply-from-tool' }],
    [
      'broken',
      {
        state: 'parked',
        stage: 'runner',
        reason: 'tool.threw',
        error: { code: 'tool.threw', message: 'TypeError: x is not a function', hint: 'Mend it.' },
      },
    ],
    ['flaky', { state: 'parked', stage: 'runner', reason: 'runner.busy' }],
    ['nobody', { state: 'not-answered', stage: 'receive', reason: 'no-tool' }],
  ])('ends for %s as it should', async (inbox, expected) => {
    const emailId = await world.send(inbox);
    expect(world.view.mail(emailId)).toMatchObject({ ...expected, inboxes: [expected] });
  });

  it('stands at the tool while that runs', async () => {
    const { emailId } = (await (await post({ ...message, to: `waiting@${DOMAIN}` })).json()) as {
      emailId: string;
    };
    const { signal } = new AbortController();
    for (let version = 0; world.view.mail(emailId)?.stage !== 'runner'; version = world.view.version())
      await world.view.changed(version, signal);
    expect(world.view.mail(emailId)).toMatchObject({ state: 'underway', isSettled: false });
    gate.resolve();
    expect(await world.settled(emailId)).toMatchObject({ state: 'not-answered' });
  });

  it('has all replies of a run, in order', async () => {
    const mail = world.view.mail(await world.send('twice'));
    expect(mail?.inboxes[0]?.replies.map(({ text }) => text)).toEqual(['one', 'two']);
  });

  it('is not answered where a run is done and made nothing', async () => {
    const mail = world.view.mail(await world.send('done'));
    expect(mail).toMatchObject({ state: 'not-answered', reason: 'no-reply-from-tool' });
  });

  // It was said to have no reply while the page shows no request that is older than its newest part of the stream.
  it('is answered where a run is done and what it made is out of view', async () => {
    const mail = world.view.mail(await world.send('earlier'));
    expect(mail).toMatchObject({ state: 'answered', reason: null });
  });

  it('stays answered when its record comes a second time', async () => {
    const emailId = await world.send('reverser');
    const inbox = world.store.stream('inbox/reverser');
    const { records } = await inbox.read({ fromSeqNum: 0 });
    await inbox.append(records.map(({ headers, body }) => ({ headers, body })));
    const runs = world.store
      .stream('runs/reverser')
      .follow({ fromSeqNum: 0, signal: new AbortController().signal });
    for await (const batch of runs)
      if (batch.records.some(({ body }) => Buffer.from(body).includes('"duplicate"'))) break;
    await world.send('silent');
    expect(world.view.mail(emailId)).toMatchObject({ state: 'answered', inboxes: [{ seqNum: 0 }] });
  });

  it('shows the start of a reply that has a stream of its own', async () => {
    const mail = world.view.mail(await world.send('huge'));
    expect(mail?.inboxes[0]?.replies[0]).toMatchObject({
      isTextCut: true,
      text: expect.stringMatching(/^y{20000}$/) as string,
    });
  });

  it('counts as settled only when every inbox is', async () => {
    const emailId = await world.send('reverser', { to: [`reverser@${DOMAIN}`, `broken@${DOMAIN}`] });
    const mail = world.view.mail(emailId);
    expect(mail?.state).toBe('parked');
    expect(mail?.inboxes.map(({ inbox, state }) => [inbox, state]).toSorted()).toEqual([
      ['broken', 'parked'],
      ['reverser', 'answered'],
    ]);
  });
});

describe('conversations', () => {
  it('hold what answers in them, and come with the latest first', async () => {
    const first = await world.send('reverser', { subject: 'First' });
    const second = await world.send('reverser', { subject: 'Second' });
    expect((await conversations()).map(({ id }) => id)).toEqual([second, first]);
    const { messageId, inboxes } = world.view.mail(first)!;
    const reply = inboxes[0]!.replies[0]!;
    const next = await world.send('reverser', {
      subject: 'Re: First',
      inReplyTo: reply.messageId,
      references: [messageId, reply.messageId],
    });
    const all = await conversations();
    expect(all.map(({ id }) => id)).toEqual([first, second]);
    expect(all[0]?.mails.map(({ emailId }) => emailId)).toEqual([first, next]);
  });

  it('are there again after a restart of the view', async () => {
    const emailId = await world.send('reverser');
    const stop = new AbortController();
    const view = createMailboxView(
      { store: world.store, clock: systemClock, log: createLog('silent') },
      { isLocal: true },
    );
    const running = view.run(stop.signal);
    await view.changed(0, stop.signal);
    expect(view.mail(emailId)).toEqual(world.view.mail(emailId));
    stop.abort();
    await running;
  });

  it('miss nothing that is written while they are being read', async () => {
    // The last stream of a pass: what is written now, this pass has already gone by.
    const written = Promise.withResolvers<string>();
    let passes = 0;
    const store: StreamStore = {
      ...world.store,
      stream(name) {
        const stream = world.store.stream(name);
        if (name !== 'tools') return stream;
        return {
          ...stream,
          async tail(signal) {
            if (++passes === 2) written.resolve(await world.send('silent', { subject: 'Meanwhile' }));
            return stream.tail(signal);
          },
        };
      },
    };
    const stop = new AbortController();
    const view = createMailboxView(
      { store, clock: systemClock, log: createLog('silent') },
      { isLocal: true },
    );
    const running = view.run(stop.signal);
    await view.changed(0, stop.signal);
    await world.send('silent', { subject: 'Wakes it' });
    const emailId = await written.promise;
    for (let version = 0; !view.mail(emailId)?.isSettled; version = view.version())
      await view.changed(version, stop.signal);
    expect(view.mail(emailId)).toMatchObject({ state: 'not-answered' });
    stop.abort();
    await running;
  });

  it('survive a record that cannot be read', async () => {
    await world.store.stream('mailbox').append([{ body: '{"kind":"mailbox"' }]);
    await world.store.stream('events').append([{ headers: [['svix-id', 'local_x']], body: 'no JSON' }]);
    const emailId = await world.send('silent');
    expect(world.view.mail(emailId)).toMatchObject({ state: 'not-answered' });
  });
});

describe('the API', () => {
  it('tells which inboxes are served', async () => {
    const body = (await (await world.api('/api/mailbox')).json()) as { inboxes: string[]; domains: string[] };
    expect(body.inboxes).toContain('reverser');
    expect(body.domains).toEqual([DOMAIN]);
  });

  it('takes a raw message, for whom it is told', async () => {
    const body =
      'From: ann@sender.example\r\nTo: list@else.example\r\nMessage-ID: <m@x.example>\r\n\r\nHello';
    const to = encodeURIComponent(`reverser@${DOMAIN}`);
    const response = await world.api(`/api/mailbox/eml?to=${to}`, { method: 'POST', body });
    const { emailId } = (await response.json()) as { emailId: string };
    expect(response.status).toBe(201);
    expect(await world.settled(emailId)).toMatchObject({ state: 'answered' });
  });

  it.each([
    ['no JSON', '{', 'application/json', 422, 'admin.not_json'],
    ['another type', '{}', 'text/plain', 415, 'admin.not_json'],
    ['fields that are wrong', { ...message, from: 'x' }, 'application/json', 422, 'local_mail.malformed'],
    [
      'mail for others',
      { ...message, to: 'a@b.example' },
      'application/json',
      422,
      'local_mail.no_recipient',
    ],
  ])('refuses %s and says why', async (_, body, contentType, status, code) => {
    const response = await post(body, contentType);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ error: { code, message: expect.any(String) as string } });
  });

  it('waits for a mail to be settled, and no longer than it is told', async () => {
    const { emailId } = (await (await post(message)).json()) as { emailId: string };
    const settled = (await (
      await world.api(`/api/mailbox/mails/${emailId}?waitSeconds=20`)
    ).json()) as LocalMailView;
    expect(settled.state).toBe('answered');
    await expect(world.api('/api/mailbox/mails/unknown?waitSeconds=0.01')).rejects.toThrow('404');
  });

  it('sends a mail again as a new one of the same conversation', async () => {
    const first = await world.send('broken');
    const response = await world.api(`/api/mailbox/mails/${first}/again`, { method: 'POST' });
    const { emailId } = (await response.json()) as { emailId: string };
    expect(await world.settled(emailId)).toMatchObject({ state: 'parked', text: 'Hello' });
    expect((await conversations()).map(({ mails }) => mails.map((mail) => mail.emailId))).toEqual([
      [first, emailId],
    ]);
    await expect(world.api('/api/mailbox/mails/unknown/again', { method: 'POST' })).rejects.toThrow('404');
  });

  it('tells listeners when something changed, and lets them go at the end', async () => {
    const response = await world.api('/api/mailbox/events');
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    expect((await reader.read()).value).toMatch(/^event: change\ndata: \d+\n/);
    await post(message);
    expect((await reader.read()).value).toMatch(/^event: change\n/);
    await world[Symbol.asyncDispose]();
    const rest = async (): Promise<boolean> => {
      for (;;) if ((await reader.read()).done) return true;
    };
    await expect(rest()).resolves.toBe(true);
  });

  it('tells listeners that other inboxes are served', async () => {
    const version = world.view.version();
    const tools = {
      kind: 'tools',
      version: 1,
      revision: 'r2',
      status: 'live',
      inboxes: [],
      error: null,
      at: '',
    };
    await world.store.stream('tools').append([jsonRecord(tools)]);
    await expect(world.view.changed(version, new AbortController().signal)).resolves.toBe(true);
  });

  it('tells why a revision was refused, until one goes live', async () => {
    const record = {
      kind: 'tools',
      version: 1,
      revision: 'none',
      status: 'refused',
      inboxes: [],
      at: 'then',
    };
    const told = async (fields: object): Promise<unknown> => {
      const version = world.view.version();
      await world.store.stream('tools').append([jsonRecord({ ...record, ...fields })]);
      await world.view.changed(version, new AbortController().signal);
      return ((await (await world.api('/api/mailbox')).json()) as { tools: unknown }).tools;
    };
    const error = 'index.ts:1:34: Expected ")" but found ";"';
    expect(await told({ error })).toMatchObject({ live: { revision: 'r1' }, refused: { at: 'then', error } });
    expect(await told({ status: 'live', revision: 'r2', error: null })).toMatchObject({
      live: { revision: 'r2' },
      refused: null,
    });
  });

  it('gives attachments away for saving only', async () => {
    const mail = world.view.mail(await world.send('pages'));
    const [reply] = mail!.inboxes[0]!.replies;
    expect(reply).toMatchObject({ hasHtml: true, attachments: [{ filename: 'räport "1".html', size: 18 }] });
    const response = await world.api(`/api/mailbox/replies/${reply!.id}/attachments/0`);
    expect(await response.text()).toBe('<script>1</script>');
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'application/octet-stream',
      'content-disposition': `attachment; filename="r_port _1_.html"; filename*=UTF-8''r%C3%A4port%20%221%22.html`,
      'x-content-type-options': 'nosniff',
    });
    const { html } = (await (await world.api(`/api/mailbox/replies/${reply!.id}`)).json()) as {
      html: string;
    };
    expect(html).toContain('Page');
  });

  it.each([
    '/api/mailbox/replies/99',
    '/api/mailbox/replies/99/attachments/0',
    '/mailbox/tsconfig.json',
    '/mailbox/..%2fsend.ts',
  ])('has no %s', async (path) => {
    await expect(world.api(path)).rejects.toThrow('404');
  });

  it('serves a page that runs only its own scripts and loads nothing from elsewhere', async () => {
    const response = await world.api('/');
    const policy = response.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("script-src 'self';");
    const page = await response.text();
    const urls = [...page.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, url]) => url ?? '');
    expect(urls.length).toBeGreaterThan(3);
    for (const url of urls) {
      expect(url).not.toMatch(/^(?:https?:)?\/\//);
      expect((await world.api(`/${url}`)).status).toBe(200);
    }
    expect(page).not.toMatch(/<script(?![^>]*src)|\son\w+=/i);
  });
});
