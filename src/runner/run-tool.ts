/**
 * Running a tool on one inbox record: the handler of a runner's stage. Its journal is `runs/<name>`.
 *
 * Guard → caps → sandbox → frozen provider requests on `outbox` (`freeze-effects.ts`). A mail that may not be
 * answered is settled as skipped with the reason and its tool does not run; a tool that fails parks that mail
 * alone, and nothing that it stated before takes effect. What the tool keeps (`tool-state.ts`) is committed in one
 * with what it sends.
 */
import type { Authentication } from '../mail/authentication.ts';
import type { ParsedEmail } from '../mail/email.ts';
import { normaliseAddress } from '../mail/address.ts';
import { noReplyReason } from '../mail/guard.ts';
import { decodeHeaderValue } from '../mail/header-field.ts';
import type { MailWork } from '../mail/mail-work.ts';
import { attachmentAt } from '../mail/message.ts';
import { replyRecipient } from '../mail/recipient.ts';
import { threadKey } from '../mail/thread.ts';
import type { Budget } from '../platform/budget.ts';
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import { readBlob } from '../streams/blob.ts';
import { COPY_HEADERS, headerOf, inboxRecordSchema, parseJsonRecord } from '../streams/records.ts';
import type { InboxRecord } from '../streams/records.ts';
import type { Restore } from '../streams/format.ts';
import type { Attempt, Outcome, Output } from '../streams/stage.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import { createCapabilities } from './capabilities.ts';
import type { FetchBudget } from './fetch-budget.ts';
import { createFreezeEffects } from './freeze-effects.ts';
import { createSenderProofs } from './sender-proofs.ts';
import type { Proof } from './sender-proofs.ts';
import { senderRefusal } from './senders.ts';
import type { AuthenticateSender, SenderRefusal } from './senders.ts';
import type { ReplyCap, ReplyCaps, SendCap } from './reply-caps.ts';
import { causeOfRun } from './run-cause.ts';
import type { RunCause } from './run-cause.ts';
import { hidingInErrors, secretHider } from './sandbox/hide-secrets.ts';
import type { RunRequest, RunResult, SandboxPool } from './sandbox/sandbox.ts';
import type { ThreadHistory } from './thread-history.ts';
import type { Hold, RunRef, ToolBreaker } from './tool-breaker.ts';
import { runLimits, settingsFor } from './tool-settings.ts';
import type { ResolvedSettings } from './tool-settings.ts';
import type { StateSession, ToolState } from './tool-state.ts';
import type { ToolRevision } from './tool-revision.ts';
import type { ToolSet } from './tool-set.ts';
import { createTries } from './tries.ts';

export interface RunToolDeps {
  store: StreamStore;
  pool: SandboxPool;
  tools: ToolSet;
  caps: ReplyCaps;
  breaker: ToolBreaker;
  state: ToolState;
  history: ThreadHistory;
  mailWork: MailWork;
  fetchBudget: FetchBudget;
  /** Bytes of large mails that are worked on. */
  memory: Budget;
  authenticate: AuthenticateSender;
  clock: Clock;
  /** The values of the secrets that tools may be granted, by name. */
  toolSecrets: Readonly<Record<string, string>>;
  /** The restore that these streams come from, if any. */
  lastRestore: (signal: AbortSignal) => Promise<Restore | null>;
}

/** Runs of one email that another run came before; only those that were under way at once can do so. */
const MAX_REPEATS = 100;
/** A mail up to this size waits for nobody: as many as run at once are little. */
const UNCOUNTED_BYTES = 1024 * 1024;
/** A mail whose tool is held waits so often, some minutes in all; then it is parked, for somebody to see. */
const MAX_HELD = 10;

interface Run {
  readonly cause: RunCause;
  readonly mail: InboxRecord;
  /** With nothing cut. */
  readonly email: ParsedEmail;
  /** What its attachments hold. */
  readonly files: () => Promise<readonly Uint8Array[]>;
  /** As it came. */
  readonly raw: () => Promise<Uint8Array>;
  /** Whether its author is proven. */
  readonly proof: () => Promise<Proof>;
  /** Whom a reply goes to. */
  readonly recipient: string;
  readonly revision: ToolRevision;
  readonly exportName: string;
  readonly settings: ResolvedSettings;
  readonly signal: AbortSignal;
}

/** The handler for one inbox. */
export function createRunTool(
  deps: RunToolDeps,
  options: { inbox: string; domains: readonly string[]; maxDelayMs: number },
): (record: StreamRecord, attempt: Attempt) => Promise<Outcome> {
  const { store, pool, tools, caps, breaker, state, history, mailWork } = deps;
  const { domains } = options;
  const freeze = createFreezeEffects(deps, options);
  const holds = createTries(MAX_HELD + 1);
  const proofs = createSenderProofs();

  async function handle(record: StreamRecord, attempt: Attempt): Promise<Outcome> {
    const mail = parseJsonRecord(inboxRecordSchema, record);
    const { revision, exportName } = await toolFor(attempt.signal);
    const thread = threadKey(mail.email);
    const base = { emailId: mail.emailId, revision: revision.revision, thread };
    if (exportName === undefined) {
      const message = `no tool serves ${options.inbox} in revision ${revision.revision}`;
      const hint = 'Bring the tool back, then redrive the dead letter.';
      return parkedFor(new MillraceError('permanent', 'tool.missing', message, { hint }), base);
    }
    // Before the run has a turn or a sandbox: who waits for room with either would keep it from those who have room.
    const size = mail.raw.bytes > UNCOUNTED_BYTES ? mail.raw.bytes : 0;
    using _room = await deps.memory.take(size, attempt.signal);
    const email = mail.complete
      ? mail.email
      : await mailWork.parseMessage(await rawMessage(mail, attempt.signal), options.inbox);
    const recipient = replyRecipient(email, domains);
    const guarded = noReplyReason(email, { domains, address: mail.address });
    if (guarded !== null || recipient === null)
      return { kind: 'skipped', reason: guarded ?? 'no-recipient', facts: base };
    const capped = caps.exceeded(email, recipient);
    if (capped !== null) return { kind: 'skipped', reason: capped, facts: base };

    const { signal } = attempt;
    const { seqNum } = record;
    const proof = once(() => proofs.prove({ seqNum, email }, () => authenticated(mail, email, signal)));
    const settings = settingsFor(revision.bundle.settings, exportName);
    const refusal = await senderRefusal(settings, email, proof);
    if (refusal) return refusedOutcome(refusal, base);
    // Its tool has asked before, in vain: it gets no sandbox until there is something to say.
    if (proofs.isLookedFor(seqNum)) await proof();
    const raw = (): Promise<Uint8Array> => rawMessage(mail, signal);
    const files = once(async () => mailWork.allAttachmentBytes(await raw(), options.inbox));
    const { inbox } = options;
    const cause = causeOfRun(record, mail, { inbox, lost: await deps.lastRestore(signal) });
    const tool = { revision, exportName, settings };
    const run: Run = { cause, mail, email, files, raw, proof, recipient, ...tool, signal };
    for (let repeats = 0; repeats < MAX_REPEATS; repeats++) {
      const session = await state.begin(thread, attempt.signal);
      try {
        const outcome = await runOnce(run, { session, base });
        if (outcome) return outcome;
      } finally {
        session.end();
      }
    }
    throw new MillraceError(
      'transient',
      'state.contended',
      `other runs keep changing ${options.inbox}'s state`,
    );
  }

  /** Null where it must be run again, because another run changed the state that it has seen. */
  async function runOnce(
    run: Run,
    { session, base }: { session: StateSession; base: Record<string, unknown> },
  ): Promise<Outcome | null> {
    const { cause, mail, email, files, raw, recipient, signal } = run;
    const { exportName, revision } = run;
    const ref: RunRef = {
      exportName,
      revision: revision.revision,
      sender: normaliseAddress(recipient) ?? recipient,
    };
    const held = breaker.enter(ref);
    if (held?.of === 'tool' && holds.mayTryAgain(cause.seqNum))
      return { kind: 'deferred', untilMs: held.untilMs, reason: 'tool.held', holdsLane: true };
    holds.end(cause.seqNum);
    if (held) return parkedFor(heldError(exportName, held), base);
    const request = runRequest(run, session);
    const hide = secretHider(request.secrets);
    const result = await runCounted(request, ref);
    const facts = { ...base, logs: result.logs, toolMs: result.durationMs };
    if (result.status === 'failed') {
      return parkedFor(new MillraceError('permanent', `tool.${result.reason}`, result.message), facts);
    }
    const isAtomic = Object.keys(result.state).length > 0;
    const frozen = await hidingInErrors(hide, () =>
      freeze(result.effects, { cause, mail, email, isAtomic, files, raw }),
    );
    const { skipped, replies, recipients } = frozen;
    const effects = frozen.outputs.length;
    const taken = effects === 0 ? null : caps.take(email, recipient, { replies, others: recipients });
    if (taken && taken.cap !== null) return cappedOutcome(taken.cap, recipients.map(hide), facts);
    let kept: Output[] | null = null;
    try {
      kept = await hidingInErrors(hide, () => session.commit(result.state, signal));
    } finally {
      if (kept === null) taken?.giveBack();
    }
    if (kept === null) return null;
    const all = { outputs: [...frozen.outputs, ...kept], isAtomic: kept.length > 0 };
    if (taken === null) return { kind: 'skipped', reason: skipped ?? 'no-reply-from-tool', ...all, facts };
    return { kind: 'done', ...all, facts: { ...facts, to: recipient, effects, caps: taken.keys } };
  }

  /** Runs it, and tells the breaker how it ended. */
  async function runCounted(request: RunRequest, ref: RunRef): Promise<RunResult> {
    try {
      const result = await pool.run(request);
      breaker.settle(ref, result.status === 'failed' ? result.reason : 'returned');
      return result;
    } catch (error) {
      breaker.settle(ref, 'given-up');
      throw error;
    }
  }

  async function toolFor(
    signal: AbortSignal,
  ): Promise<{ revision: ToolRevision; exportName: string | undefined }> {
    const live = await tools.live(signal);
    // Whoever routed the mail here may have seen a newer revision than we have by now.
    const revision = live.toolOf.has(options.inbox) ? live : await tools.upToDate(signal);
    return { revision, exportName: revision.toolOf.get(options.inbox) };
  }

  const rawMessage = (mail: InboxRecord, signal: AbortSignal): Promise<Uint8Array> =>
    readBlob(store, mail.raw, signal);

  async function authenticated(
    mail: InboxRecord,
    email: ParsedEmail,
    signal: AbortSignal,
  ): Promise<Authentication> {
    return deps.authenticate(email, {
      raw: await rawMessage(mail, signal),
      receivedMs: Date.parse(mail.arrivedAt ?? mail.receivedAt),
      inbox: options.inbox,
    });
  }

  function runRequest(run: Run, session: StateSession): RunRequest {
    const { cause, mail, email, files, proof, recipient, revision, signal } = run;
    const { exportName, settings } = run;
    const { emailId } = mail;
    const { seqNum } = cause;
    const thread = threadKey(mail.email);
    return {
      bundle: revision.bundle,
      exportName,
      email: {
        ...email,
        headers: email.headers.map(decoded),
        id: emailId,
        inbox: mail.inbox,
        tag: mail.tag,
      },
      limits: runLimits(settings),
      ...createCapabilities({
        settings,
        secrets: deps.toolSecrets,
        fetchBudget: deps.fetchBudget,
        attachmentBytes: async (index) => attachmentAt(await files(), index),
        readState: (scope) => session.read(scope),
        authenticate: async () => (await proof()).authentication,
        readThread: once(() => history.earlier({ thread, seqNum, emailId, person: recipient }, signal)),
      }),
      randomSeed: cause.seed,
      fairnessKey: options.inbox,
      signal,
    };
  }

  return handle;
}

/** Reads once for a run, however often a tool asks and how much at the same time. */
function once<T>(read: () => Promise<T>): () => Promise<T> {
  let found: Promise<T> | undefined;
  return () => (found ??= read());
}

function refusedOutcome(refusal: SenderRefusal, facts: Record<string, unknown>): Outcome {
  if (refusal.kind === 'skip') return { kind: 'skipped', reason: refusal.reason, facts };
  const { reason } = refusal.authentication;
  const message = `nobody has proven who wrote this email: ${reason}`;
  return parkedFor(
    new MillraceError('permanent', 'sender.unauthenticated', message, {
      hint: 'Its tool has not run (settings: from, unauthenticated). To run it all the same, change that and redrive it; where the DNS did not answer, redrive it when it does.',
    }),
    facts,
  );
}

function cappedOutcome(
  cap: ReplyCap | SendCap,
  recipients: readonly string[],
  facts: Record<string, unknown>,
): Outcome {
  if (cap === 'sender-cap' || cap === 'thread-cap') return { kind: 'skipped', reason: cap, facts };
  const error = tooMuchMail(cap, recipients);
  return { kind: 'dead-letter', reason: error.code, error, facts };
}

function tooMuchMail(cap: string, recipients: readonly string[]): MillraceError {
  const message = `this inbox has sent too much mail to others today (${cap}): ${recipients.join(', ')}`;
  return new MillraceError('permanent', 'effect.capped', message.slice(0, 1000), {
    hint: 'Nothing was sent for this email. Redrive it tomorrow.',
  });
}

function parkedFor(error: MillraceError, facts: Record<string, unknown>): Outcome {
  return { kind: 'dead-letter', reason: error.code, error, facts };
}

function heldError(exportName: string, { of, kills, reason, untilMs }: Hold): MillraceError {
  const until = new Date(untilMs).toISOString();
  const held = of === 'tool' ? 'it' : "this sender's mail";
  const message = `the tool ${exportName} brought its sandbox process down ${kills} times in a row (the last time: ${reason}), and ${held} is held until ${until}`;
  const hint = 'Mend the tool and bring it, or wait; then redrive the dead letter.';
  return new MillraceError('permanent', 'tool.held', message, { hint });
}

/** Records keep header fields as they were sent; a tool reads them as a person would. */
function decoded([name, value]: [string, string]): [string, string] {
  return [name, decodeHeaderValue(value)];
}

/** A receive that was cut off days ago may have brought the mail already. A copy that a person asked for has its own key. */
export function mailCausedAtMs(record: StreamRecord): number | null {
  if (headerOf(record, COPY_HEADERS.of) !== undefined) return null;
  const { receivedAt, arrivedAt = receivedAt } = parseJsonRecord(inboxRecordSchema, record);
  return Date.parse(arrivedAt);
}

/** Mail of one conversation is handled in order. */
export function inboxLane(record: StreamRecord): string | null {
  return threadKey(parseJsonRecord(inboxRecordSchema, record).email);
}
