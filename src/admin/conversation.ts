/**
 * What became of each mail, told from its traces: pure functions, from what the streams say to what a
 * person reads. A mail is settled when every inbox that it reached has answered, declined or parked it.
 */
import type { OutcomeRecord } from '../streams/journal-records.ts';
import { settlementPrefix, streamNames } from '../streams/records.ts';
import type { ArrivedMail } from './arrival.ts';
import type {
  DeliveredReply,
  FrozenRequest,
  InboxedMail,
  MailTraces,
  ShownAttachment,
} from './mail-traces.ts';

/** Where a mail stands, or its copy in one inbox. */
export interface Standing {
  /**
   * `underway`; `retrying` and `scheduled`, set aside until `until`; and the settled ones: `answered`,
   * `not-answered`, `parked`.
   */
  readonly state: 'underway' | 'retrying' | 'scheduled' | 'answered' | 'not-answered' | 'parked';
  /** The stage that has it now, or that settled it. */
  readonly stage: 'receive' | 'runner' | 'outbox';
  /** Why, as a stable word; null for `underway` and `answered`. */
  readonly reason: string | null;
  readonly error: OutcomeRecord['error'];
  readonly until: string | null;
  /** Of a parked one: what puts it back (`POST /api/admin/redrive`). */
  readonly deadLetter: DeadLetterName | null;
}

/** An inbox, or the stage that it stands at otherwise; and the number on what that reads. */
export type DeadLetterName = ({ readonly inbox: string } | { readonly stage: 'receive' | 'outbox' }) & {
  readonly seqNum: number;
};

/** A mail in one inbox. */
export interface InboxCopy extends Standing {
  readonly inbox: string;
  readonly address: string;
  /** In `inbox/<name>`. */
  readonly seqNum: number;
  readonly revision: string | null;
  readonly toolMs: number | null;
  readonly logs: readonly string[];
  readonly outboxSeqNums: readonly number[];
  readonly replies: readonly ShownReply[];
}

/** What went out, and what the provider has said of it since; null for nothing. */
export interface ShownReply extends DeliveredReply {
  readonly delivery: string | null;
}

/** A mail that came. */
export interface LocalMailView extends Standing {
  readonly emailId: string;
  readonly isLocal: boolean;
  /** In `events`. */
  readonly seqNum: number;
  readonly sentAt: string;
  readonly from: string;
  readonly fromName: string;
  readonly to: readonly string[];
  readonly subject: string;
  readonly messageId: string | null;
  readonly references: readonly string[];
  /** Null until receive has parsed it. */
  readonly text: string | null;
  readonly isTextCut: boolean;
  readonly attachments: readonly ShownAttachment[];
  readonly isSettled: boolean;
  readonly inboxes: readonly InboxCopy[];
}

export interface Conversation {
  /** The `emailId` of its first mail. */
  readonly id: string;
  readonly subject: string;
  readonly latestAt: string;
  /** Oldest first. */
  readonly mails: readonly LocalMailView[];
}

const UNDERWAY = { reason: null, error: null, until: null, deadLetter: null } as const;

/** All of them, the latest first. */
export function conversationsOf(traces: MailTraces): Conversation[] {
  const threads = new Map<string, LocalMailView[]>();
  for (const { emailId } of traces.mails.values()) {
    const [inboxed] = traces.inboxed.get(emailId)?.values() ?? [];
    const thread = inboxed?.thread ?? emailId;
    const mails = threads.get(thread) ?? [];
    mails.push(mailView(traces, emailId)!);
    threads.set(thread, mails);
  }
  return [...threads.values()].map(conversation).toSorted((a, b) => latest(b.mails) - latest(a.mails));
}

/** One mail, or undefined where it is unknown or too long ago. */
export function mailView(traces: MailTraces, emailId: string): LocalMailView | undefined {
  const mail = traces.mails.get(emailId);
  if (!mail) return undefined;
  const inboxed = copiesOf(traces, mail);
  const [first] = inboxed;
  const inboxes = inboxed.map((copy) => inboxCopy(traces, { emailId, copy }));
  const standing = mailStanding(traces.received.get(mail.seqNum), { mail, inboxes });
  return {
    ...standing,
    emailId,
    isLocal: mail.isLocal,
    seqNum: mail.seqNum,
    sentAt: mail.at,
    from: mail.from,
    fromName: first?.fromName ?? '',
    to: mail.to,
    subject: mail.subject,
    messageId: mail.messageId,
    references: first?.references ?? [],
    text: first?.text ?? null,
    isTextCut: first?.isTextCut ?? false,
    attachments: first?.attachments ?? [],
    isSettled: isSettled(standing),
    inboxes,
  };
}

function conversation(mails: LocalMailView[]): Conversation {
  const first = mails[0]!;
  const times = mails.flatMap((mail) => [
    mail.sentAt,
    ...mail.inboxes.flatMap(({ replies }) => replies.map(({ at }) => at)),
  ]);
  return { id: first.emailId, subject: first.subject, latestAt: times.toSorted().at(-1)!, mails };
}

/** Newest by the order of its last mail on `events`, which no clock can disturb. */
function latest(mails: readonly LocalMailView[]): number {
  return mails.at(-1)!.seqNum;
}

/** The newest copy for each inbox and address: one that was put back takes the place of the one before. */
function copiesOf(traces: MailTraces, mail: ArrivedMail): InboxedMail[] {
  const copies = new Map<string, InboxedMail>();
  for (const copy of traces.inboxed.get(mail.emailId)?.values() ?? [])
    copies.set(`${copy.stream} ${copy.address}`, copy);
  return [...copies.values()];
}

function inboxCopy(traces: MailTraces, { emailId, copy }: { emailId: string; copy: InboxedMail }): InboxCopy {
  const inbox = copy.stream.slice(streamNames.inboxPrefix.length);
  const run = traces.runs.get(`${copy.stream} ${copy.key}`);
  // Of a copy that was put back: also those of what it stands for.
  const prefix = settlementPrefix(inbox, copy.origin);
  const requests = [...(traces.requests.get(emailId)?.values() ?? [])].filter(({ key }) =>
    key.startsWith(prefix),
  );
  const replies = requests.flatMap((request) => replyTo(traces, request) ?? []);
  const { revision, toolMs, logs } = run?.facts ?? {};
  return {
    ...copyStanding(traces, { copy, run, requests }),
    inbox,
    address: copy.address,
    seqNum: copy.seqNum,
    revision: typeof revision === 'string' ? revision : null,
    toolMs: typeof toolMs === 'number' ? toolMs : null,
    logs: Array.isArray(logs) ? (logs as string[]) : [],
    outboxSeqNums: requests.map(({ seqNum }) => seqNum),
    replies,
  };
}

/** What a request led to, or null while it is not out. */
function replyTo(traces: MailTraces, { key, idempotencyKey, shown }: FrozenRequest): ShownReply | null {
  const local = traces.replies.get(idempotencyKey);
  if (local) return { ...local, delivery: null };
  const sent = traces.sent.get(key);
  if (!shown || sent?.outcome !== 'done') return null;
  const providerId = sent.facts['providerId'];
  const delivery = typeof providerId === 'string' ? traces.deliveries.get(providerId) : undefined;
  return { ...shown, at: sent.at, delivery: delivery ?? null };
}

function copyStanding(
  traces: MailTraces,
  seen: { copy: InboxedMail; run: OutcomeRecord | undefined; requests: readonly FrozenRequest[] },
): Standing {
  const { copy, run, requests } = seen;
  if (copy.stream === streamNames.unrouted)
    return { ...UNDERWAY, state: 'not-answered', stage: 'receive', reason: 'no-tool' };
  if (!run) return { ...UNDERWAY, state: 'underway', stage: 'runner' };
  const inbox = copy.stream.slice(streamNames.inboxPrefix.length);
  if (run.outcome !== 'done') return outcomeStanding(run, { inbox, seqNum: copy.seqNum });
  // Requests from before what the view reads are not known, but that there were some.
  const { effects } = run.facts;
  const hasMade = requests.length > 0 || (typeof effects === 'number' && effects > 0);
  const open = requests.filter(({ idempotencyKey }) => !traces.replies.has(idempotencyKey));
  const standings = open.map((request) => requestStanding(traces, request));
  return (
    standings.find(({ state }) => state === 'parked') ??
    standings.find(({ state }) => state !== 'answered') ?? {
      ...UNDERWAY,
      state: hasMade ? 'answered' : 'not-answered',
      stage: 'outbox',
      reason: hasMade ? null : 'no-reply-from-tool',
    }
  );
}

function requestStanding(traces: MailTraces, { key, seqNum, notBefore }: FrozenRequest): Standing {
  const sent = traces.sent.get(key);
  if (!sent) return { ...UNDERWAY, state: 'underway', stage: 'outbox' };
  const standing = outcomeStanding(sent, { stage: 'outbox', seqNum });
  return standing.state === 'retrying' && sent.reason === 'outbox.scheduled'
    ? { ...standing, state: 'scheduled', until: notBefore }
    : standing;
}

/** How a stage's outcome reads where nothing comes after it. */
function outcomeStanding(outcome: OutcomeRecord, at: DeadLetterName): Standing {
  const states = {
    done: 'answered',
    skipped: 'not-answered',
    duplicate: 'not-answered',
    'dead-letter': 'parked',
    deferred: 'retrying',
  } as const;
  const untilMs = outcome.aside?.untilMs ?? 0;
  return {
    state: states[outcome.outcome],
    stage: 'inbox' in at ? 'runner' : at.stage,
    reason: outcome.reason,
    error: outcome.error,
    until: untilMs > 0 ? new Date(untilMs).toISOString() : null,
    deadLetter: outcome.outcome === 'dead-letter' ? at : null,
  };
}

const SETTLED: readonly Standing['state'][] = ['answered', 'not-answered', 'parked'];

function isSettled({ state }: Standing): boolean {
  return SETTLED.includes(state);
}

/** Of a mail to several inboxes: what still moves comes first, then what a person has to look at. */
function mailStanding(
  received: OutcomeRecord | undefined,
  { mail, inboxes }: { mail: ArrivedMail; inboxes: readonly InboxCopy[] },
): Standing {
  if (!received) return { ...UNDERWAY, state: 'underway', stage: 'receive' };
  if (received.outcome !== 'done')
    return outcomeStanding(received, { stage: 'receive', seqNum: mail.seqNum });
  const order: readonly Standing['state'][] = ['parked', 'answered', 'not-answered'];
  const decisive =
    inboxes.find((copy) => !isSettled(copy)) ??
    order.flatMap((state) => inboxes.filter((copy) => copy.state === state))[0];
  if (!decisive) return { ...UNDERWAY, state: 'underway', stage: 'runner' };
  const { state, stage, reason, error, until, deadLetter } = decisive;
  return { state, stage, reason, error, until, deadLetter };
}
