/**
 * What the far end has to say: for every mail that was sent to the daemon, how often it was answered, and
 * where it was not, for which reason on record. Pure: mails, replies and reasons in, numbers out.
 */
import type { AcceptedMail } from '../resend-stand-in/contract.ts';

/** A mail that went to the daemon. */
export interface SentMail {
  /** Unique; the local part of its Message-ID and its text. */
  readonly id: string;
  readonly emailId: string;
  /** Mails of one conversation were sent one after another, each when the one before was accepted. */
  readonly conversation: string;
  /** True where a person wrote it, who is owed an answer; a machine gets none. */
  readonly isOwedAnswer: boolean;
  /** A webhook of it was answered 2xx. */
  readonly isAccepted: boolean;
}

export interface Tally {
  accepted: number;
  answeredOnce: number;
  /** Accepted, not answered, and no reason on record; or owed an answer and parked all the same. */
  lost: number;
  answeredTwice: number;
  /** Rightly not answered, with the reason on record. */
  silentWithReason: number;
  /** Replies of one conversation that left before a reply to an earlier mail of the inbox stream. */
  outOfOrder: number;
  /** Mails and what is wrong with them, for the report. */
  faults: string[];
}

/** What the streams say. */
export interface OnRecord {
  /** By email id: why a mail was not answered. */
  readonly reasons: ReadonlyMap<string, string>;
  /** By the idempotency key of a reply: the number of its mail in the inbox. */
  readonly places: ReadonlyMap<string, number>;
}

export function emptyTally(): Tally {
  return {
    accepted: 0,
    answeredOnce: 0,
    lost: 0,
    answeredTwice: 0,
    silentWithReason: 0,
    outOfOrder: 0,
    faults: [],
  };
}

export function tallyOf(
  mails: readonly SentMail[],
  replies: readonly AcceptedMail[],
  { reasons, places }: OnRecord,
): Tally {
  const tally = emptyTally();
  const answers = new Map<string, AcceptedMail[]>();
  for (const reply of replies) answers.set(textOf(reply), [...(answers.get(textOf(reply)) ?? []), reply]);
  for (const mail of mails) count(tally, mail, { answers: answers.get(mail.id)?.length ?? 0, reasons });
  const ids = new Set(mails.map(({ id }) => id));
  const ours = replies.filter((reply) => ids.has(textOf(reply)));
  for (const [lane, seqNums] of seqNumsByConversation(mails, ours, places))
    for (const [i, seqNum] of seqNums.entries())
      if (i > 0 && seqNum < seqNums[i - 1]!) {
        tally.outOfOrder++;
        tally.faults.push(
          `conversation ${lane}: inbox record ${seqNum} was answered after ${seqNums[i - 1]}`,
        );
      }
  return tally;
}

function count(
  tally: Tally,
  mail: SentMail,
  { answers, reasons }: { answers: number; reasons: ReadonlyMap<string, string> },
): void {
  const reason = reasons.get(mail.emailId);
  if (mail.isAccepted) tally.accepted++;
  if (answers > 1 || (answers === 1 && !mail.isOwedAnswer)) {
    tally.answeredTwice++;
    tally.faults.push(`${mail.id}: ${answers} answers${mail.isOwedAnswer ? '' : ' to a machine'}`);
  } else if (answers === 1) {
    tally.answeredOnce++;
  } else if (!mail.isOwedAnswer && reason !== undefined) {
    tally.silentWithReason++;
  } else if (mail.isAccepted) {
    tally.lost++;
    tally.faults.push(`${mail.id} (${mail.emailId}): no answer${reason === undefined ? '' : `, ${reason}`}`);
  }
}

/** The tools of the matrix answer with the text of the mail, which is its id. */
export function textOf(reply: AcceptedMail): string {
  return reply.payload.text?.trim() ?? '';
}

/** The inbox records of a conversation, in the order in which they were answered. */
function seqNumsByConversation(
  mails: readonly SentMail[],
  replies: readonly AcceptedMail[],
  places: OnRecord['places'],
): Map<string, number[]> {
  const conversationOf = new Map(mails.map(({ id, conversation }) => [id, conversation]));
  const seqNums = new Map<string, number[]>();
  for (const reply of replies) {
    const conversation = conversationOf.get(textOf(reply))!;
    // One of which nothing is on record is out of order wherever it stands.
    const seqNum = places.get(reply.idempotencyKey ?? '') ?? -1;
    seqNums.set(conversation, [...(seqNums.get(conversation) ?? []), seqNum]);
  }
  return seqNums;
}

export function addTally(sum: Tally, more: Tally): void {
  for (const name of [
    'accepted',
    'answeredOnce',
    'lost',
    'answeredTwice',
    'silentWithReason',
    'outOfOrder',
  ] as const)
    sum[name] += more[name];
  sum.faults.push(...more.faults);
}
