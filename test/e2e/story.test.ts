/**
 * The main job as real processes with real HTTP: a signed webhook in, the right reply in the right thread
 * out, counted at the far end. Once on `local`, once on a real `s2 lite`.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { openLocalStoreReadOnly } from '../../src/streams/local-store.ts';
import { s2Binary, startS2Lite } from '../streams/s2-lite.ts';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { freePort, startDaemon, temporaryDirectory } from './daemon.ts';
import type { Daemon } from './daemon.ts';
import { htmlMail, mailWithFiles, plainMail } from './mail.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const API_KEY = 're_story';
const run = promisify(execFile);

interface World {
  resend: ResendStandIn;
  daemon: Daemon;
  /** What the daemon was started with. */
  variables: Record<string, string>;
  /** Variables for the `s2` command-line tool, or null on `local`. */
  s2: { binary: string; env: Record<string, string> } | null;
  stop(): Promise<void>;
}

async function startWorld(streams: 'local' | 's2'): Promise<World> {
  const stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const port = await freePort();
  const resend = await spawnResendStandIn({
    apiKey: API_KEY,
    webhook: { url: `http://127.0.0.1:${port}/webhooks/resend`, secret: SECRET },
  });
  stack.defer(() => resend.stop());
  const binary = s2Binary();
  const env: Record<string, string> = {};
  if (streams === 's2') {
    const lite = await startS2Lite({ directory: join(directory.path, 's2') });
    stack.defer(() => lite.stop());
    Object.assign(env, {
      S2_ACCESS_TOKEN: 'ignored',
      S2_ACCOUNT_ENDPOINT: lite.url,
      S2_BASIN_ENDPOINT: lite.url,
    });
  }
  const variables = {
    MAIL_DOMAIN: 'agents.example',
    RESEND_API_KEY: API_KEY,
    RESEND_BASE_URL: resend.url,
    RESEND_WEBHOOK_SECRET: SECRET,
    STREAMS: streams,
    DATA_DIR: join(directory.path, 'data'),
    PORT: String(port),
    ...env,
  };
  const world: World = {
    resend,
    variables,
    daemon: await startDaemon(variables),
    s2: streams === 's2' && binary !== null ? { binary, env } : null,
    stop: () => stack.disposeAsync(),
  };
  stack.defer(async () => void (await world.daemon.stop()));
  return world;
}

function story(streams: 'local' | 's2'): void {
  let world: World;
  let answered = 0;

  /** Delivers a mail and waits for as many replies as it should have; gives just those. */
  async function replies(
    raw: string | Uint8Array,
    count: number,
    options: Parameters<ResendStandIn['deliver']>[1] = {},
  ) {
    const delivery = await world.resend.deliver(raw, options);
    expect(delivery.status).toBe(200);
    const accepted = await world.resend.waitForAccepted(answered + count, 20_000);
    const fresh = accepted.slice(answered);
    answered = accepted.length;
    expect(fresh).toHaveLength(count);
    return fresh;
  }

  beforeAll(async () => {
    world = await startWorld(streams);
  }, 60_000);
  afterAll(() => world?.stop());

  it('answers `Hello world` with `dlrow olleH`, once, in the thread', async () => {
    const headers = [
      'In-Reply-To: <m0@sender.example>',
      'References: <root@sender.example> <m0@sender.example>',
    ];
    const [mail] = await replies(
      plainMail({ to: 'reverser@agents.example', id: 'm1', subject: 'Re: Greetings', headers }),
      1,
      { emailId: EMAIL_ID },
    );
    expect(mail?.payload).toMatchObject({
      from: 'reverser@agents.example',
      to: 'ann@sender.example',
      subject: 'Re: Greetings',
      text: 'dlrow olleH',
      headers: {
        'In-Reply-To': '<m1@sender.example>',
        References: '<root@sender.example> <m0@sender.example> <m1@sender.example>',
        'Auto-Submitted': 'auto-replied',
      },
    });
    expect(mail?.idempotencyKey).toBe(`reverser/${EMAIL_ID}/0`);
  });

  it('answers the text of a mail that has only HTML', async () => {
    const [mail] = await replies(
      htmlMail({ to: 'reverser@agents.example', id: 'm2', html: '<p>Hello <b>world</b></p>' }),
      1,
    );
    expect(mail?.payload.text).toBe('dlrow olleH');
  });

  it('hands over attachments and sends one back', async () => {
    const bytes = Buffer.alloc(5000, 'x');
    const raw = mailWithFiles({
      to: 'statistics@agents.example',
      id: 'm3',
      files: [{ name: 'data.bin', type: 'application/octet-stream', bytes }],
    });
    const [mail] = await replies(raw, 1);
    const [file] = mail?.payload.attachments ?? [];
    expect(Buffer.from(file?.content ?? '', 'base64').toString()).toContain('data.bin');
  });

  it('answers from each of two inboxes, under different keys', async () => {
    const mails = await replies(
      plainMail({ to: 'reverser@agents.example, Statistics <STATISTICS@agents.example>', id: 'm4' }),
      2,
    );
    expect(mails.map(({ payload }) => payload.from).sort()).toEqual([
      'reverser@agents.example',
      'statistics@agents.example',
    ]);
    expect(new Set(mails.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(2);
  });

  it('answers where the inbox stands only in Bcc', async () => {
    const raw = plainMail({ to: 'somebody@elsewhere.example', id: 'm5' });
    const [mail] = await replies(raw, 1, {
      receivedFor: ['reverser@agents.example'],
      bcc: ['reverser@agents.example'],
    });
    expect(mail?.payload).toMatchObject({ from: 'reverser@agents.example', to: 'ann@sender.example' });
  });

  it('answers a mail above 1 MiB in full', async () => {
    const text = `${'0123456789'.repeat(150_000)}end`;
    const [mail] = await replies(
      plainMail({ to: 'reverser@agents.example', id: 'm6', text: text.replaceAll(/.{900}/g, '$&\r\n') }),
      1,
    );
    expect(mail?.payload.text?.startsWith('dne')).toBe(true);
    expect(mail?.payload.text?.replaceAll(/\s/g, '').length).toBe(text.length);
  });

  it('answers once, whatever is delivered twice', async () => {
    const delivery = await world.resend.deliver(
      plainMail({ to: 'reverser@agents.example', id: 'm7', text: 'twice' }),
      { copies: 20 },
    );
    expect(delivery.statuses).toEqual(Array(20).fill(200));
    await world.resend.redeliver(delivery.svixId);
    await world.resend.deliver(plainMail({ to: 'reverser@agents.example', id: 'm7', text: 'twice' }), {
      emailId: delivery.emailId,
    });
    // What comes after it in the same inbox shows that the copies had their turn.
    const mails = await replies(plainMail({ to: 'reverser@agents.example', id: 'm8', text: 'after' }), 2);
    expect(mails.map(({ payload }) => payload.text).sort()).toEqual(['eciwt', 'retfa']);
  });

  it('does not answer a machine, nor for an inbox or domain that is not there', async () => {
    await world.resend.deliver(
      plainMail({ to: 'reverser@agents.example', id: 'm9', headers: ['Auto-Submitted: auto-replied'] }),
    );
    await world.resend.deliver(plainMail({ to: 'nobody@agents.example', id: 'm10' }));
    await world.resend.deliver(plainMail({ to: 'reverser@other.example', id: 'm11' }));
    expect(await world.resend.postEvent('contact.created', { id: 'c1' })).toBe(200);
    const [mail] = await replies(plainMail({ to: 'reverser@agents.example', id: 'm12', text: 'next' }), 1);
    expect(mail?.payload.text).toBe('txen');
  });

  it('answers nobody again after it was killed', async () => {
    await world.daemon.kill();
    world.daemon = await startDaemon(world.variables);
    const [mail] = await replies(
      plainMail({ to: 'reverser@agents.example', id: 'm13', text: 'restarted' }),
      1,
    );
    expect(mail?.payload.text).toBe('detratser');
  });

  it('has the whole life of the first mail on its streams, as anybody can read', async () => {
    const events = await readStream(world, 'events');
    expect(JSON.parse(events[0]!)).toMatchObject({ type: 'email.received', data: { email_id: EMAIL_ID } });
    expect((await readStream(world, `mail/${EMAIL_ID}`)).join('')).toContain('Hello world');
    const inbox = await readStream(world, 'inbox/reverser');
    expect(JSON.parse(inbox[0]!)).toMatchObject({
      kind: 'email',
      version: 1,
      emailId: EMAIL_ID,
      email: { messageId: '<m1@sender.example>' },
    });
    const outbox = await readStream(world, 'outbox');
    expect(JSON.parse(outbox[0]!)).toMatchObject({
      idempotencyKey: `reverser/${EMAIL_ID}/0`,
      cause: { inbox: 'reverser', seqNum: 0, effect: 0, emailId: EMAIL_ID },
      request: { from: 'reverser@agents.example', to: 'ann@sender.example', text: 'dlrow olleH' },
    });
    const sent = (await readStream(world, 'sent')).map(
      (body) => JSON.parse(body) as { outcome?: string; facts?: { idempotencyKey?: string } },
    );
    expect(
      sent.filter(
        ({ outcome, facts }) => outcome === 'done' && facts?.idempotencyKey === `reverser/${EMAIL_ID}/0`,
      ),
    ).toHaveLength(1);
    const unrouted = await readStream(world, 'inbox/unrouted');
    expect(unrouted.map((body) => (JSON.parse(body) as { address: string }).address)).toEqual([
      'nobody@agents.example',
    ]);
    const runs = (await readStream(world, 'runs/reverser')).map(
      (body) => JSON.parse(body) as { reason?: string },
    );
    expect(runs.filter(({ reason }) => reason === 'auto-submitted')).toHaveLength(1);
  });

  it('keeps its secrets out of what it prints', () => {
    const { output, adminToken } = world.daemon;
    for (const secret of [API_KEY, SECRET, adminToken]) expect(output()).not.toContain(secret);
  });
}

/** The bodies of a stream: by the `s2` command-line tool, or out of the file of `local`. */
async function readStream(world: World, stream: string): Promise<string[]> {
  if (world.s2) {
    const uri = `s2://agents-example/${stream}`;
    const { stdout } = await run(
      world.s2.binary,
      ['read', uri, '--seq-num', '0', '--count', '1000', '--format', 'json'],
      { env: world.s2.env, maxBuffer: 64 * 1024 * 1024, timeout: 20_000 },
    );
    const records = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { headers?: [string, string][]; body: string });
    // A command of S2's own, such as a fence, is a record with one header without a name.
    return records.filter(({ headers }) => !headers?.some(([name]) => name === '')).map(({ body }) => body);
  }
  const store = await openLocalStoreReadOnly({ clock: systemClock }, { directory: world.daemon.dataDir });
  try {
    const { records } = await store.stream(stream).read({ fromSeqNum: 0 });
    return records.map(({ body }) => Buffer.from(body).toString('utf8'));
  } finally {
    await store.close();
  }
}

const EMAIL_ID = '56761188-7520-42d8-8898-ff6fc54ce618';

describe('the story on local', () => {
  story('local');
});

// Where there is no `s2`, `s2Binary` says loudly that this was not run.
describe.skipIf(s2Binary() === null)('the story on s2 lite', () => {
  story('s2');
});
