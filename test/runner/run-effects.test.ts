/** From what a tool states to the frozen requests on `outbox`: all of them with their keys, or none. */
import { describe, expect, it } from 'vitest';
import { mailWorkInPlace } from '../../src/mail/mail-work.ts';
import { threadKey } from '../../src/mail/thread.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { causeOfRun } from '../../src/runner/run-cause.ts';
import { createFreezeEffects } from '../../src/runner/freeze-effects.ts';
import { headerOf, inboxRecordSchema, parseJsonRecord } from '../../src/streams/records.ts';
import { readAll } from '../streams/store-reading.ts';
import { useRunnerWorld } from './runner-world.ts';

const world = useRunnerWorld();
const DAY_MS = 86_400_000;

describe('the effects of a run', () => {
  it('become one request each, in order, under keys of their cause', async () => {
    await world.start(`export const desk = (email, { send }) => {
      send({ to: 'ops@far.example', cc: 'log@far.example', text: 'one' });
      return { reply: 'two', forward: 'boss@far.example' };
    };`);
    const { emailId } = await world.mail('desk', 'Hi');
    const [outcome] = await world.settled('desk', 1);
    const frozen = await world.outbox();
    expect(
      frozen.map(({ idempotencyKey, cause, request }) => [idempotencyKey, cause.effect, request.to]),
    ).toEqual([
      [`desk/${emailId}/0`, 0, ['ops@far.example']],
      [`desk/${emailId}/1`, 1, 'ann@sender.example'],
      [`desk/${emailId}/2`, 2, ['boss@far.example']],
    ]);
    // What the provider says later of the one to several, it may say of any of them.
    expect(frozen.map(({ request }) => request.tags?.slice(1))).toEqual([
      [{ name: 'millrace_recipients', value: '2' }],
      [],
      [],
    ]);
    expect(outcome).toMatchObject({
      outcome: 'done',
      facts: {
        effects: 3,
        caps: { others: ['to ops@far.example', 'to log@far.example', 'to boss@far.example'] },
      },
    });
  });

  // A release before this one had the number in both keys. It is killed behind its request; this one finishes the mail.
  it('are settled by the key under which an older release has frozen them', async () => {
    const { seqNum, emailId } = await world.mail('desk', 'Hi');
    await world.start("export const desk = () => 'again';");
    await world.settled('desk', 1);
    const keys = (await readAll(world.store().stream('outbox'))).map((record) => headerOf(record, 'key'));
    expect(keys).toEqual([`desk/${seqNum}/0/${emailId}`]);
  });

  it('forward the files of the email, byte for byte', async () => {
    await world.start("export const desk = () => ({ forward: 'boss@far.example' });");
    const parts = [
      '--b\r\nContent-Type: text/plain\r\n\r\nHi',
      '--b\r\nContent-Type: image/png\r\nContent-Disposition: inline\r\nContent-ID: <logo>\r\n' +
        'Content-Transfer-Encoding: base64\r\n\r\nAP8=',
      '--b\r\nContent-Type: text/csv; name=a.csv\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\nMSwy',
      '--b\r\nContent-Type: text/plain; name=notes.txt\r\nContent-Transfer-Encoding: base64\r\n\r\nMSwy',
      '--b--',
    ];
    await world.mail('desk', parts.join('\r\n'), [
      'MIME-Version: 1.0',
      'Content-Type: multipart/mixed; boundary=b',
    ]);
    await world.settled('desk', 1);
    const [{ request } = { request: null }] = await world.outbox();
    expect(request?.attachments).toEqual([
      { filename: 'attachment-1', content: 'AP8=', contentType: 'image/png', contentId: 'logo' },
      {
        filename: 'a.csv',
        content: Buffer.from('1,2').toString('base64'),
        contentType: 'text/csv',
      },
      {
        filename: 'notes.txt',
        content: Buffer.from('1,2').toString('base64'),
        contentType: 'text/plain',
      },
    ]);
    expect(request?.text).toMatch(/\n\nHi$/);
  });

  // Both had been refused or cut: the one parked the mail, of the other nobody saw the HTML.
  it('forward the whole message as a file where its files or its HTML are too many or too large', async () => {
    await world.start("export const desk = () => ({ forward: 'boss@far.example' });");
    const html = (content: string) => `--b\r\nContent-Type: text/html\r\n\r\n${content}`;
    const files = (count: number) =>
      Array.from({ length: count }, (_, n) => `--b\r\nContent-Type: text/csv; name=${n}.csv\r\n\r\n${n}`);
    const tooLarge = html(`<p>Hi</p>${'<i></i>'.repeat(25_000)}`);
    const bodies = [
      [html('<p>Hi</p>'), ...files(100)],
      [html('<p>Hi</p>'), ...files(101)],
      [html('<p>Hi</p>'), ...files(201)],
      [tooLarge],
      [tooLarge, ...files(99)],
      [tooLarge, ...files(100)],
    ].map((parts) => `${parts.join('\r\n')}\r\n--b--`);
    for (const body of bodies)
      await world.mail('desk', body, ['MIME-Version: 1.0', 'Content-Type: multipart/mixed; boundary=b']);
    await world.settled('desk', bodies.length);
    const requests = (await world.outbox()).toSorted((one, other) => one.cause.seqNum - other.cause.seqNum);
    const sent = requests.map(({ request: { text, html: shown, attachments = [] } }, index) => {
      const wholes = attachments.filter(({ filename }) => filename === 'message.eml');
      for (const { content, contentType } of wholes) {
        expect(contentType).toBe('message/rfc822');
        expect(Buffer.from(content, 'base64').toString()).toContain(`\r\n\r\n${bodies[index]}`);
      }
      expect(text).toContain('\nHi');
      return [shown !== undefined, attachments.length - wholes.length, wholes.length];
    });
    expect(sent).toEqual([
      [true, 100, 0],
      [true, 0, 1],
      [true, 0, 1],
      [false, 0, 1],
      [false, 99, 1],
      [false, 0, 1],
    ]);
  });

  // Each attachment that was read, and each forward, had read and parsed the whole message anew, all at once: a
  // mail of 30 MB with a hundred files took gigabytes.
  it('read the message once, however many files are asked for at once and sent on', async () => {
    let reads = 0;
    await world.start(
      `export const desk = async (email, { forward }) => {
        const texts = await Promise.all(email.attachments.map(async (file) => (await file.text()).trim()));
        forward(['boss@far.example', 'ops@far.example']);
        forward('log@far.example');
        return texts.join(' ');
      };`,
      {
        wrapStore: (store) => ({
          ...store,
          stream: (name) => {
            if (name.startsWith('mail/')) reads++;
            return store.stream(name);
          },
        }),
      },
    );
    const parts = Array.from(
      { length: 20 },
      (_, n) => `--b\r\nContent-Type: text/csv; name=${n}.csv\r\nContent-Disposition: attachment\r\n\r\n${n}`,
    );
    await world.mail('desk', `${parts.join('\r\n')}\r\n--b--`, [
      'MIME-Version: 1.0',
      'Content-Type: multipart/mixed; boundary=b',
    ]);
    await world.settled('desk', 1);
    const requests = (await world.outbox()).map(({ request }) => request);
    expect(requests.map(({ attachments = [] }) => attachments.length).toSorted()).toEqual([0, 20, 20]);
    expect(requests.find(({ to }) => to === 'ann@sender.example')?.text).toMatch(/^0 1 2 .* 19$/);
    expect(reads).toBe(1);
  });

  // Twelve forwards of a mail with 5 MB of HTML kept everything else in the process waiting for half a minute.
  it('let others have their turn in between', async () => {
    const freeze = createFreezeEffects(
      { store: world.store(), clock: systemClock, mailWork: mailWorkInPlace },
      { inbox: 'desk', domains: ['agent.example'], maxDelayMs: DAY_MS },
    );
    await world.mail('desk', 'Hi');
    const [record] = await readAll(world.store().stream('inbox/desk'));
    const mail = parseJsonRecord(inboxRecordSchema, record!);
    const effects = ['a', 'b', 'c'].map((text) => ({ kind: 'reply', text }) as const);
    let turns = 0;
    const count = (): void => {
      turns++;
      timer = setImmediate(count);
    };
    let timer = setImmediate(count);
    const cause = causeOfRun(record!, mail, { inbox: 'desk', lost: null });
    const nothing = { files: () => Promise.resolve([]), raw: () => Promise.resolve(Buffer.of()) };
    await freeze(effects, { cause, mail, email: mail.email, isAtomic: false, ...nothing });
    clearImmediate(timer);
    expect(turns).toBeGreaterThanOrEqual(2);
  });

  // A run was cut off behind its request, and repeated 40 days later: its mail, 60 days ahead, outlived its bytes.
  it('that a run before has written long ago are written again, so that they last as long as their records', async () => {
    await world.mail('desk', 'Hi');
    const [record] = await readAll(world.store().stream('inbox/desk'));
    const mail = parseJsonRecord(inboxRecordSchema, record!);
    const cause = causeOfRun(record!, mail, { inbox: 'desk', lost: null });
    const nothing = { files: () => Promise.resolve([]), raw: () => Promise.resolve(Buffer.of()) };
    const tails: number[] = [];
    for (const days of [0, 0, 40]) {
      const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + days * DAY_MS };
      const freeze = createFreezeEffects(
        { store: world.store(), clock, mailWork: mailWorkInPlace },
        { inbox: 'desk', domains: ['agent.example'], maxDelayMs: DAY_MS },
      );
      const effects = [{ kind: 'reply', text: 'x'.repeat(800_000) }] as const;
      await freeze(effects, { cause, mail, email: mail.email, isAtomic: false, ...nothing });
      tails.push(
        await world
          .store()
          .stream(`request/${cause.idempotencyKey(0)}`)
          .tail(),
      );
    }
    expect(tails).toEqual([1, 1, 2]);
  });

  it('leave in the order in which its runs were, also where a mail was cut that only its subject places', async () => {
    const freeze = createFreezeEffects(
      { store: world.store(), clock: systemClock, mailWork: mailWorkInPlace },
      { inbox: 'desk', domains: ['agent.example'], maxDelayMs: DAY_MS },
    );
    await world.mail('desk', 'Hi');
    const [record] = await readAll(world.store().stream('inbox/desk'));
    const whole = parseJsonRecord(inboxRecordSchema, record!);
    const email = { ...whole.email, messageId: null, subject: 'a long subject' };
    const mail = { ...whole, complete: false, email: { ...email, subject: 'a long' } };
    const cause = causeOfRun(record!, mail, { inbox: 'desk', lost: null });
    const nothing = { files: () => Promise.resolve([]), raw: () => Promise.resolve(Buffer.of()) };
    const effects = [{ kind: 'reply', text: 'Hello' }] as const;
    const { outputs } = await freeze(effects, { cause, mail, email, isAtomic: false, ...nothing });
    const { thread } = JSON.parse(Buffer.from(outputs[0]!.record.body).toString()) as { thread: string };
    expect(thread).toBe(`desk/${threadKey(mail.email)}`);
  });

  it('may wait for weeks, and not for longer than mail is kept', async () => {
    await world.start(`export const desk = (email, { now }) => ({
      text: 'later', at: new Date(now().getTime() + Number(email.text) * ${DAY_MS}),
    });`);
    for (const days of ['-1', '42', '61']) await world.mail('desk', days);
    const outcomes = await world.settled('desk', 3);
    const waiting = (await world.outbox()).map(({ notBefore }) => notBefore);
    expect(waiting).toHaveLength(2);
    expect(waiting).toContain(null);
    const [later] = waiting.filter((at) => at !== null);
    expect(Math.round((Date.parse(later!) - Date.now()) / DAY_MS)).toBe(42);
    expect(outcomes.find(({ outcome }) => outcome === 'dead-letter')?.error).toMatchObject({
      code: 'effect.too_far_ahead',
      message: '`at` is more than 60 days ahead',
    });
  });

  it('are none at all where one of them is refused', async () => {
    await world.start(`export const desk = () => [
      { text: 'fine' }, { to: 'other@agent.example', text: 'to one of us' },
    ];`);
    await world.mail('desk', 'Hi');
    const [outcome] = await world.settled('desk', 1);
    expect(outcome).toMatchObject({
      outcome: 'dead-letter',
      error: {
        code: 'effect.own_address',
        message: '`[1].to` is an address of our own: other@agent.example',
      },
    });
    expect(await world.outbox()).toEqual([]);
  });

  // They had a number of their own, which counted what was stated otherwise; of a reply they named nothing.
  it.each([
    [`return { to: 'x', text: 'a' }`, '`to` is not one address: "x"'],
    [
      `return [{ text: 'a' }, { send: { to: ['a@x.example', 'x'], text: 'a' } }]`,
      '`[1].send.to[1]` is not one address: "x"',
    ],
    [
      `return { reply: 'a', forward: [{ to: 'a@x.example', cc: 'x' }] }`,
      '`forward[0].cc` is not one address: "x"',
    ],
    [`context.send({ to: 'x', text: 'a' })`, '`send.to` is not one address: "x"'],
    [
      `return [{ text: 'a' }, { text: 'a', attachments: [{ filename: 'b.txt', content: 'b', contentType: 'none' }] }]`,
      '`[1]`: the content type of b.txt is none',
    ],
    [
      `return { send: [{ to: 'a@x.example', text: 'a', at: new Date(2e14) }] }`,
      '`send[0].at` is more than 60 days ahead',
    ],
  ])('are refused by the key with which they were stated: %s', async (body, message) => {
    await world.start(`export const desk = (email, context) => { ${body}; };`);
    await world.mail('desk', 'Hi');
    const [outcome] = await world.settled('desk', 1);
    expect(outcome).toMatchObject({ outcome: 'dead-letter', error: { message } });
  });

  // The dead letter and the log line said the value, because only what the sandbox itself throws was cleaned.
  it.each([
    ['as it is', 'key + " oops"'],
    ['in base64', 'btoa(key) + " oops"'],
    ['in a URL', '"https://x/?key=" + encodeURIComponent(key)'],
  ])('are refused without saying a secret: %s', async (_name, to) => {
    await world.start(
      `export const settings = { desk: { secrets: ['API_KEY'] } };
      export const desk = (email, { secret }) => {
        const key = secret('API_KEY');
        return { to: ${to}, text: 'x' };
      };`,
      { toolSecrets: { API_KEY: 'sk-live/SECRET+123' } },
    );
    await world.mail('desk', 'Hi');
    const [outcome] = await world.settled('desk', 1);
    expect(outcome?.error?.message).toContain('[secret API_KEY]');
    expect(JSON.stringify(outcome)).not.toMatch(/sk-live|SECRET|c2stbGl2/);
  });

  it('are not made for a machine', async () => {
    await world.start("export const desk = () => ({ forward: 'boss@far.example' });");
    await world.mail('desk', 'Hi', ['Auto-Submitted: auto-replied']);
    expect(await world.settled('desk', 1)).toMatchObject([{ outcome: 'skipped', reason: 'auto-submitted' }]);
    expect(await world.outbox()).toEqual([]);
  });

  it('to others end at the cap of a day, and park what is beyond', async () => {
    await world.start(`export const desk = () => Array.from({ length: 100 }, (_, i) => ({
      to: Array.from({ length: 10 }, (_, j) => 'a' + (i * 10 + j) + '@far.example'), text: 'x',
    }));`);
    for (const _ of [1, 2, 3]) await world.mail('desk', 'Hi');
    const outcomes = await world.settled('desk', 3);
    expect(outcomes.map(({ outcome, reason }) => [outcome, reason]).toSorted()).toEqual([
      ['dead-letter', 'effect.capped'],
      ['done', null],
      ['done', null],
    ]);
    expect(await world.outbox()).toHaveLength(200);
  });

  it('count reply by reply: a run that would go beyond the cap sends none', async () => {
    await world.start("export const desk = () => [{ reply: 'a' }, { reply: 'b' }, { reply: 'c' }];", {
      caps: { perSender: 5 },
    });
    for (const _ of [1, 2]) await world.mail('desk', 'Hi');
    const outcomes = await world.settled('desk', 2);
    expect(outcomes.map(({ outcome, reason }) => [outcome, reason]).toSorted()).toEqual([
      ['done', null],
      ['skipped', 'sender-cap'],
    ]);
    expect(await world.outbox()).toHaveLength(3);
  });

  // The cap was looked at before the run and counted after it: as many as ran at once went beyond.
  it('are not more than the cap, however many runs are under way', async () => {
    await world.start(
      `export const desk = async (email) => {
        await new Promise((resolve) => setTimeout(resolve, 100));
        return 'x';
      };`,
      { concurrency: 8, caps: { perSender: 3 } },
    );
    for (let n = 0; n < 8; n++) await world.mail('desk', 'Hi');
    const outcomes = await world.settled('desk', 8);
    expect(outcomes.filter(({ outcome }) => outcome === 'done')).toHaveLength(3);
    expect(outcomes.filter(({ reason }) => reason === 'sender-cap')).toHaveLength(5);
    expect(await world.outbox()).toHaveLength(3);
  });
});
