/** The caps on replies: what stops a loop, what does not stop a person, and what a restart remembers. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { ParsedEmail } from '../../src/mail/email.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createReplyCaps } from '../../src/runner/reply-caps.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import type { NewRecord, StreamStore } from '../../src/streams/stream-store.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const options = { perSender: 20, perThread: 3, perRoot: 7, perRecipient: 4, perInbox: 10 };
let nowMs = 0;
const clock = { ...systemClock, nowMs: () => nowMs };
const DAY_MS = 86_400_000;
const store = useTemporaryStore();
beforeEach(() => {
  nowMs = Date.now();
});

const email = (fields: Partial<ParsedEmail>): ParsedEmail => ({
  from: { name: '', address: 'ann@sender.example' },
  replyTo: [],
  to: [],
  cc: [],
  subject: 'Greetings',
  text: '',
  html: null,
  newText: '',
  headers: [],
  attachments: [],
  messageId: '<m@sender.example>',
  references: [],
  date: null,
  ...fields,
});

const ann = 'ann@sender.example';

/** On the journal of an inbox. */
const outcomeAt = (atMs: number, facts: object): NewRecord =>
  jsonRecord({ kind: 'outcome', version: 1, at: new Date(atMs).toISOString(), facts });

/** How many of these mails from one sender are answered. */
function answered(mails: readonly ParsedEmail[], recipient = ann): number {
  const caps = createReplyCaps({ store: store(), clock }, options);
  return mails.filter((mail) => caps.take(mail, recipient).cap === null).length;
}

const many = (count: number, fields: (i: number) => Partial<ParsedEmail>) =>
  Array.from({ length: count }, (_, i) => email(fields(i)));

describe('reply caps', () => {
  it('stop a thread', () => {
    expect(answered(many(10, (i) => ({ messageId: `<${i}@x>`, references: ['<root@x>'] })))).toBe(3);
  });

  // Whoever knew a Message-ID could silence the conversation for everybody in it.
  it('stop one sender in a thread, and the others only when they are many', () => {
    const caps = createReplyCaps({ store: store(), clock }, options);
    const mail = email({ references: ['<order@shop.example>'] });
    const senders = ['mallory@evil.example', ann, 'ben@sender.example'];
    const answers = senders.map(
      (sender) =>
        Array.from({ length: 10 }, () => caps.take(mail, sender)).filter(({ cap }) => cap === null).length,
    );
    expect(answers).toEqual([3, 3, 1]);
    expect(caps.exceeded(mail, 'carl@sender.example')).toBe('thread-cap');
  });

  it.each(['Disk  usage', 'Disk usage\r\n 91%', '\u00a0Disk usage ', 'Fw', 'Report: x'])(
    'do not take a fresh mail for a reply because of its spaces: %j',
    (subject) => {
      expect(answered(many(15, (i) => ({ messageId: `<${i}@x>`, subject })))).toBe(15);
    },
  );

  it('count each reply of a run', () => {
    const caps = createReplyCaps({ store: store(), clock }, options);
    const mail = email({ references: ['<root@x>'] });
    expect(caps.take(mail, ann, { replies: 4 }).cap).toBe('thread-cap');
    const taken = caps.take(mail, ann, { replies: 3 });
    expect(caps.exceeded(mail, ann)).toBe('thread-cap');
    if (taken.cap === null) taken.giveBack();
    expect(caps.take(mail, ann, { replies: 2 }).cap).toBeNull();
    expect(caps.take(mail, ann, { replies: 2 }).cap).toBe('thread-cap');
    expect(caps.take(mail, ann).cap).toBeNull();
  });

  it('stop a responder that strips its references but keeps our Re:', () => {
    expect(answered(many(10, (i) => ({ messageId: `<${i}@x>`, subject: 'Re: Greetings' })))).toBe(3);
  });

  // A sender chose how long a key was, and each was kept in memory for a day and written to the journal.
  it.each<[string, Partial<ParsedEmail>]>([
    ['subject', { subject: `Re: ${'x'.repeat(8000)}` }],
    ['root', { references: [`<${'x'.repeat(8000)}@x>`] }],
  ])('keep no more of a long %s than its hash', (_, fields) => {
    const caps = createReplyCaps({ store: store(), clock }, options);
    const taken = [0, 1, 2, 3].map(() => caps.take(email(fields), ann));
    expect(taken.map(({ cap }) => cap)).toEqual([null, null, null, 'thread-cap']);
    expect(JSON.stringify(taken[0]).length).toBeLessThan(400);
  });

  it('count what an earlier release put on record with a long key', async () => {
    const subject = 'x'.repeat(8000);
    const facts = { caps: { sender: `sender ${ann}`, thread: `thread ${ann} ${subject}` } };
    const old = Array.from({ length: 3 }, () => outcomeAt(nowMs, facts));
    await store().stream('runs/desk').append(old);
    const caps = createReplyCaps({ store: store(), clock }, options);
    await caps.restore('desk', new AbortController().signal);
    expect(caps.exceeded(email({ subject: `Re: ${subject}` }), ann)).toBe('thread-cap');
  });

  it('stop a responder that strips everything and varies its subject', () => {
    expect(answered(many(50, (i) => ({ messageId: `<${i}@x>`, subject: `news ${i}` })))).toBe(20);
  });

  it('take addresses that differ in case for one sender', () => {
    const caps = createReplyCaps({ store: store(), clock }, options);
    for (let i = 0; i < 20; i++) caps.take(email({ messageId: `<${i}@x>` }), 'Ann@sender.example');
    expect(caps.exceeded(email({}), 'aNN@sender.example')).toBe('sender-cap');
  });

  it('do not take fresh mails with one subject for a thread', () => {
    expect(answered(many(15, (i) => ({ messageId: `<${i}@x>` })))).toBe(15);
  });

  it('let go after a day', () => {
    const caps = createReplyCaps({ store: store(), clock }, options);
    const mail = email({ references: ['<root@x>'] });
    for (let i = 0; i < 3; i++) caps.take(mail, ann);
    expect(caps.exceeded(mail, ann)).toBe('thread-cap');
    nowMs += 86_400_001;
    expect(caps.exceeded(mail, ann)).toBeNull();
  });

  it('stop mail to one address, and to others altogether', () => {
    const caps = createReplyCaps({ store: store(), clock }, options);
    let mails = 0;
    const send = (...others: string[]) => {
      const taken = caps.take(email({ messageId: `<${mails++}@x>` }), ann, { others });
      return taken.cap ?? taken.keys.others?.length ?? 0;
    };
    expect(send('x@far.example', 'X@far.example', 'x@FAR.example')).toBe(3);
    expect(send('x@far.example', 'x@far.example')).toBe('recipient-cap');
    expect(send('x@far.example')).toBe(1);
    expect(send(...[1, 2, 3, 4, 5].map((n) => `${n}@far.example`))).toBe(5);
    expect(send('6@far.example', '7@far.example')).toBe('inbox-cap');
    expect(send()).toBe(0);
    nowMs += 86_400_001;
    expect(send('x@far.example', '7@far.example')).toBe(2);
  });

  it('take all places of a run or none, and take back those of one that sends nothing', () => {
    const caps = createReplyCaps({ store: store(), clock }, options);
    const mail = (n: number) => email({ messageId: `<${n}@x>` });
    const all = Array<string>(options.perRecipient).fill('x@far.example');
    expect(caps.take(mail(1), ann, { others: [...all, 'x@far.example'] }).cap).toBe('recipient-cap');
    const taken = caps.take(mail(2), ann, { others: all });
    expect(caps.take(mail(3), ann, { others: ['x@far.example'] }).cap).toBe('recipient-cap');
    if (taken.cap === null) taken.giveBack();
    expect(caps.take(mail(4), ann, { others: all }).cap).toBeNull();
    const left = Array.from({ length: options.perSender }, (_, n) => caps.take(mail(5 + n), ann).cap);
    expect(left.filter((cap) => cap === null)).toHaveLength(options.perSender - 1);
  });

  it('are counted again after a restart, from the journal', async () => {
    const before = createReplyCaps({ store: store(), clock }, options);
    const mail = email({ references: ['<root@x>'] });
    const others = [['x@far.example', 'x@far.example'], ['x@far.example'], ['x@far.example']];
    const counted = others.map((to) => before.take(mail, ann, { others: to }));
    await store()
      .stream('runs/reverser')
      .append(
        counted.map((taken) =>
          jsonRecord({
            kind: 'outcome',
            version: 1,
            at: new Date(nowMs).toISOString(),
            facts: { caps: taken.cap === null ? taken.keys : null },
          }),
        ),
      );
    const after = createReplyCaps({ store: store(), clock }, options);
    expect(after.exceeded(mail, ann)).toBeNull();
    await after.restore('reverser', new AbortController().signal);
    expect(after.exceeded(mail, ann)).toBe('thread-cap');
    expect(after.take(email({}), ann, { others: ['x@far.example'] }).cap).toBe('recipient-cap');
  });

  it('are counted again one by one, where a run had several', async () => {
    const mail = email({ references: ['<root@x>'] });
    const taken = createReplyCaps({ store: store(), clock }, options).take(mail, ann, { replies: 3 });
    const facts = { caps: taken.cap === null ? taken.keys : null };
    await store()
      .stream('runs/reverser')
      .append([outcomeAt(nowMs, facts)]);
    const after = createReplyCaps({ store: store(), clock }, options);
    await after.restore('reverser', new AbortController().signal);
    expect(after.exceeded(mail, ann)).toBe('thread-cap');
  });

  // On `local` the records of a stream keep the time of a clock that was ahead until it has come.
  it('count a day by the time of each reply, after a clock that was ahead', async () => {
    const mail = email({ references: ['<root@x>'] });
    const taken = createReplyCaps({ store: store(), clock }, options).take(mail, ann);
    const facts = { caps: taken.cap === null ? taken.keys : null };
    const timestampMs = nowMs + 60 * DAY_MS;
    const ages = [-60, 5, 4, 3, 2, 0].map((days) => nowMs - days * DAY_MS);
    const runs = store().stream('runs/reverser');
    await runs.append(ages.map((atMs) => ({ ...outcomeAt(atMs, facts), timestampMs })));
    const after = createReplyCaps({ store: store(), clock }, options);
    await after.restore('reverser', new AbortController().signal);
    const more = [1, 2, 3].map(() => after.take(mail, ann).cap);
    expect(more).toEqual([null, null, 'thread-cap']);
  });

  it('do not count what a clock that was ahead has counted', () => {
    const caps = createReplyCaps({ store: store(), clock }, options);
    const mail = email({ references: ['<root@x>'] });
    const takeAll = () => [1, 2, 3, 4].map(() => caps.take(mail, ann).cap);
    nowMs += 60 * DAY_MS;
    expect(takeAll()).toEqual([null, null, null, 'thread-cap']);
    // Set back by a little, a day is a day.
    nowMs -= DAY_MS / 48;
    expect(caps.exceeded(mail, ann)).toBe('thread-cap');
    nowMs -= 60 * DAY_MS;
    expect(takeAll()).toEqual([null, null, null, 'thread-cap']);
  });

  it('are counted again from the last day alone, however long the journal is', async () => {
    const mail = email({ references: ['<root@x>'] });
    const taken = createReplyCaps({ store: store(), clock }, options).take(mail, ann);
    const facts = { caps: taken.cap === null ? taken.keys : null };
    const outcome = outcomeAt(nowMs, facts);
    const timestampMs = nowMs - 25 * 3_600_000;
    const old = Array.from({ length: 1000 }, () => ({ ...outcomeAt(timestampMs, facts), timestampMs }));
    for (let batch = 0; batch < 3; batch++) await store().stream('runs/reverser').append(old);
    await store()
      .stream('runs/reverser')
      .append(Array.from({ length: options.perThread }, () => outcome));
    let read = 0;
    const counting: StreamStore = {
      ...store(),
      stream(name) {
        const whole = store().stream(name);
        return {
          ...whole,
          async read(range) {
            const batch = await whole.read(range);
            read += batch.records.length;
            return batch;
          },
        };
      },
    };
    const caps = createReplyCaps({ store: counting, clock }, options);
    await caps.restore('reverser', new AbortController().signal);
    expect(caps.exceeded(mail, ann)).toBe('thread-cap');
    expect(read).toBeLessThan(50);
  });
});
