/** The matrix is worth what its count is worth: each kind of fault must show. */
import { describe, expect, it } from 'vitest';
import type { AcceptedMail } from '../resend-stand-in/contract.ts';
import { tallyOf } from './tally.ts';
import type { OnRecord, SentMail } from './tally.ts';

const mail = (id: string, fields: Partial<SentMail> = {}): SentMail => ({
  id,
  emailId: `email-${id}`,
  conversation: 'c',
  isOwedAnswer: true,
  isAccepted: true,
  ...fields,
});
const keyOf = (text: string, seqNum: number): string => `key of ${text} at ${seqNum}`;
const reply = (text: string, seqNum = 0): AcceptedMail => ({
  id: 'r',
  at: '2026-11-22T00:00:00Z',
  idempotencyKey: keyOf(text, seqNum),
  payload: { from: 'echo@agents.example', to: 'person@sender.example', text },
});
const places = new Map(
  ['a', 'b'].flatMap((text) => [0, 1].map((seqNum) => [keyOf(text, seqNum), seqNum] as const)),
);
const because = (reasons: Map<string, string>): OnRecord => ({ reasons, places });
const none = because(new Map());

describe('the tally', () => {
  it('is without faults where each mail has its one answer, in order', () => {
    expect(tallyOf([mail('a'), mail('b')], [reply('a', 0), reply('b', 1)], none)).toMatchObject({
      accepted: 2,
      answeredOnce: 2,
      faults: [],
    });
  });

  it('counts a mail without an answer as lost', () => {
    expect(tallyOf([mail('a')], [], none)).toMatchObject({ lost: 1, faults: [expect.any(String)] });
  });

  it('counts a mail that was owed an answer as lost, whatever reason there is', () => {
    expect(tallyOf([mail('a')], [], because(new Map([['email-a', 'sender-cap']])))).toMatchObject({
      lost: 1,
    });
  });

  it('does not count as lost what was never accepted', () => {
    expect(tallyOf([mail('a', { isAccepted: false })], [], none)).toMatchObject({ accepted: 0, lost: 0 });
  });

  it('counts a second answer', () => {
    const tally = tallyOf([mail('a')], [reply('a'), reply('a')], none);
    expect(tally).toMatchObject({ answeredTwice: 1, answeredOnce: 0, faults: [expect.any(String)] });
  });

  it('wants a reason for silence, and silence towards a machine', () => {
    const machine = mail('a', { isOwedAnswer: false });
    expect(tallyOf([machine], [], because(new Map([['email-a', 'auto-submitted']])))).toMatchObject({
      silentWithReason: 1,
      faults: [],
    });
    expect(tallyOf([machine], [], none)).toMatchObject({ lost: 1 });
    expect(tallyOf([machine], [reply('a')], none)).toMatchObject({ answeredTwice: 1 });
  });

  it('sees a later mail of a conversation answered first', () => {
    const tally = tallyOf([mail('a'), mail('b')], [reply('b', 1), reply('a', 0)], none);
    expect(tally).toMatchObject({ outOfOrder: 1, answeredOnce: 2, faults: [expect.any(String)] });
  });
});
