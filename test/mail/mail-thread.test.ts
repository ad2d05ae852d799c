/** Large mail in a thread of its own: the same result, and whoever else has work goes on with it meanwhile. */
import { afterEach, describe, expect, it } from 'vitest';
import { createMailThread } from '../../src/mail/mail-thread.ts';
import type { MailThread } from '../../src/mail/mail-thread.ts';
import { mailWorkInPlace } from '../../src/mail/mail-work.ts';
import type { Composition } from '../../src/mail/mail-work.ts';
import { parseMessage } from '../../src/mail/message.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createManualClock } from '../streams/manual-clock.ts';

const HEAD =
  'From: ann@sender.example\r\nTo: desk@agent.example\r\nMessage-ID: <m1@x>\r\nMIME-Version: 1.0\r\n';
const SMALL = Buffer.from(`${HEAD}\r\nHello`);
/** Of base64: what takes longest to read for its kind. */
const LARGE = Buffer.from(
  `${HEAD}Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nwith a file\r\n--b\r\n` +
    'Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n' +
    `${`${'QUJD'.repeat(19)}\r\n`.repeat(12_000)}--b--`,
);

let thread: MailThread;
afterEach(() => thread.close());

/** Turns of the event loop until this is done. */
async function turnsDuring(work: Promise<unknown>): Promise<number> {
  let turns = 0;
  const count = (): void => {
    turns++;
    timer = setImmediate(count);
  };
  let timer = setImmediate(count);
  await work;
  clearImmediate(timer);
  return turns;
}

async function replyWith(html: string): Promise<Composition> {
  const email = await parseMessage(SMALL);
  const origin = { email, inbox: 'desk', inboxAddress: 'desk@agent.example', domains: ['agent.example'] };
  return { ...origin, effect: { kind: 'reply', html }, files: [] };
}

describe('a large message', { timeout: 60_000 }, () => {
  it('is read as in place, and others have their turn meanwhile', async () => {
    thread = createMailThread({ clock: systemClock });
    const reading = thread.parseMessage(LARGE, 'desk');
    expect(await turnsDuring(reading)).toBeGreaterThan(10);
    expect(await reading).toEqual(await parseMessage(LARGE));
    expect(await turnsDuring(parseMessage(LARGE))).toBeLessThan(3);
    const files = await thread.allAttachmentBytes(LARGE, 'desk');
    expect(files.map((file) => file.byteLength)).toEqual([12_000 * 57]);
    expect(Buffer.from(files[0]!.subarray(0, 3)).toString()).toBe('ABC');
  });

  it('does not hold up a small one that comes after it', async () => {
    thread = createMailThread({ clock: systemClock });
    const done: string[] = [];
    await Promise.all([
      thread.parseMessage(LARGE, 'desk').then(() => done.push('large')),
      thread.parseMessage(SMALL, 'desk').then(() => done.push('small')),
    ]);
    expect(done).toEqual(['small', 'large']);
  });

  it('that brings the thread down fails alone', async () => {
    thread = createMailThread({ clock: systemClock }, { memoryMb: 24 });
    const many = Array.from({ length: 30_000 }, (_, n) => `<p>${n} ${'text '.repeat(20)}</p>`).join('\r\n');
    const heavy = Buffer.from(`${HEAD}Content-Type: text/html\r\n\r\n${many}`);
    const light = Buffer.from(`${HEAD}\r\n${'x'.repeat(100_000)}`);
    const outcomes = await Promise.allSettled(
      [heavy, light, heavy].map((raw) => thread.parseMessage(raw, 'desk')),
    );
    expect(outcomes).toMatchObject([
      { reason: { code: 'mail.thread_ended', kind: 'permanent' } },
      { status: 'fulfilled' },
      { reason: { code: 'mail.thread_ended' } },
    ]);
  });

  it('that comes as an idle thread goes has a thread of its own, and its own answer', async () => {
    const clock = createManualClock();
    thread = createMailThread({ clock });
    const mails = ['first', 'second', 'third'].map((word) =>
      Buffer.from(`${HEAD}\r\n${word} ${'x'.repeat(100_000)}`),
    );
    for (let round = 0; round < 5; round++) {
      await thread.parseMessage(LARGE, 'desk');
      clock.advance(30_000);
      const read = await Promise.all(mails.map((raw) => thread.parseMessage(raw, 'desk')));
      expect(read.map(({ text }) => text.split(' ')[0])).toEqual(['first', 'second', 'third']);
    }
  });

  it('that finds no thread is tried again, and so are those behind it', async () => {
    thread = createMailThread({ clock: systemClock }, { memoryMb: 1 });
    const outcomes = await Promise.allSettled([LARGE, LARGE].map((raw) => thread.parseMessage(raw, 'desk')));
    const unavailable = { reason: { code: 'mail.thread_unavailable', kind: 'transient' } };
    expect(outcomes).toMatchObject([unavailable, unavailable]);
  });

  it('waits for one of each other inbox, and not for all that one inbox gets', async () => {
    thread = createMailThread({ clock: systemClock });
    const done: string[] = [];
    const read = (inbox: string): Promise<unknown> =>
      thread.parseMessage(LARGE, inbox).then(() => done.push(inbox));
    await Promise.all(['busy', 'busy', 'busy', 'busy', 'quiet', 'other'].map(read));
    // The first began before any other waited.
    expect(done).toEqual(['busy', 'busy', 'quiet', 'other', 'busy', 'busy']);
  });

  it('that takes for ever fails alone', async () => {
    const clock = createManualClock();
    thread = createMailThread({ clock });
    await thread.parseMessage(LARGE, 'desk');
    const [long, next] = [LARGE, LARGE].map((raw) => thread.parseMessage(raw, 'desk'));
    clock.advance(120_000);
    await expect(long).rejects.toMatchObject({ code: 'mail.thread_ended', kind: 'permanent' });
    expect((await next)!.attachments).toHaveLength(1);
  });

  it('that waits when the process ends is tried again by the next', async () => {
    thread = createMailThread({ clock: systemClock });
    const waiting = [LARGE, LARGE].map((raw) => thread.parseMessage(raw, 'desk'));
    const outcomes = Promise.allSettled(waiting);
    await thread.close();
    const closed = { reason: { code: 'mail.thread_closed', kind: 'transient' } };
    expect(await outcomes).toMatchObject([closed, closed]);
    await expect(thread.parseMessage(LARGE, 'desk')).rejects.toMatchObject(closed.reason);
  });
});

describe('large HTML of a reply', { timeout: 60_000 }, () => {
  it('is made safe as in place, while others have their turn', async () => {
    thread = createMailThread({ clock: systemClock });
    const composition = await replyWith(`<p>${'&amp;x'.repeat(60_000)}</p><script>x</script>`);
    const composing = thread.compose(composition);
    expect(await turnsDuring(composing)).toBeGreaterThan(10);
    expect(await composing).toEqual(await mailWorkInPlace.compose(composition));
  });

  it('is refused with the reason that is given in place', async () => {
    thread = createMailThread({ clock: systemClock });
    const composition = await replyWith('<p>'.repeat(60_000));
    const inPlace = await mailWorkInPlace.compose(composition).catch((error: unknown) => error);
    const { kind, code, message, hint } = inPlace as Record<string, unknown>;
    expect(code).toBe('mail.html_too_large');
    await expect(thread.compose(composition)).rejects.toMatchObject({ kind, code, message, hint });
  });
});
