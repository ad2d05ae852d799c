/**
 * Makes of the effects that a run stated the frozen provider requests on `outbox`: each complete, each with keys
 * that are derived from its cause (`run-cause.ts`), so that a repeated run names the same. All of them or none: what is wrong with one parks the mail before anything is sent.
 */
import { allRecipients } from '../mail/email.ts';
import type { ProviderRequest } from '../mail/email.ts';
import type { Composed, MailWork } from '../mail/mail-work.ts';
import { RECIPIENTS_TAG } from '../mail/send.ts';
import { threadKey } from '../mail/thread.ts';
import type { Clock } from '../platform/clock.ts';
import { MillraceError, hasCode } from '../platform/errors.ts';
import { writeBlob } from '../streams/blob.ts';
import { CAUSED_AT_HEADER, COPY_HEADERS, jsonRecord, streamNames } from '../streams/records.ts';
import type { InboxRecord, OutboxRecord } from '../streams/records.ts';
import { fingerprint } from '../streams/settled-keys.ts';
import type { Output } from '../streams/stage.ts';
import type { RecordHeader, StreamStore } from '../streams/stream-store.ts';
import { forwardedFiles } from './forwarded-files.ts';
import type { ForwardedMail } from './forwarded-files.ts';
import type { RunCause } from './run-cause.ts';
import type { PlainEffect } from './sandbox/sandbox.ts';

/** A request above this goes into a stream of its own. */
const MAX_INLINE_REQUEST_BYTES = 700 * 1024;
/** Of all together, where they have to fit into one record with the state and the outcome of the run. */
const MAX_ATOMIC_BYTES = 128 * 1024;
/** Of all requests of a run: a tool that forwards a big mail to many must not fill the disk. */
const MAX_REQUESTS_BYTES = 128 * 1024 * 1024;
/** The tag under which the provider can be asked for a request: see `outbox.ts`. */
const KEY_TAG = 'millrace_key';

export interface FrozenFor extends ForwardedMail {
  readonly cause: RunCause;
  readonly mail: InboxRecord;
  /** The run changes state, and the outputs are committed in one record with it. */
  readonly isAtomic: boolean;
}

export interface FrozenEffects {
  readonly outputs: readonly Output[];
  /** Why an effect became nothing; null where all became something. */
  readonly skipped: string | null;
  readonly replies: number;
  /** Others who get mail by this, apart from whom a reply goes to. */
  readonly recipients: readonly string[];
}

/**
 * @returns a function that freezes the effects of a run; it throws MillraceError (permanent)
 *   `effect.too_far_ahead`, `effect.too_large`, and what composing and `writeBlob` throw
 */
export function createFreezeEffects(
  { store, clock, mailWork }: { store: StreamStore; clock: Clock; mailWork: Pick<MailWork, 'compose'> },
  options: { inbox: string; domains: readonly string[]; maxDelayMs: number },
): (effects: readonly PlainEffect[], of: FrozenFor) => Promise<FrozenEffects> {
  const { inbox, domains, maxDelayMs } = options;

  async function compose(effect: PlainEffect, run: FrozenFor): Promise<Composed> {
    const { mail, email } = run;
    const of = { effect, email, inbox: mail.inbox, inboxAddress: mail.address, domains };
    if (effect.kind !== 'forward') return mailWork.compose({ ...of, files: [] });
    try {
      return await mailWork.compose({ ...of, files: await forwardedFiles(run, { isWithMessage: false }) });
    } catch (error) {
      if (!hasCode(error, 'mail.html_too_large')) throw error;
      const files = await forwardedFiles(run, { isWithMessage: true });
      return mailWork.compose({ ...of, email: { ...email, html: null }, files });
    }
  }

  /** Null for at once. */
  function notBefore(at: string | undefined): string | null {
    if (at === undefined || Date.parse(at) <= clock.nowMs()) return null;
    if (Date.parse(at) - clock.nowMs() <= maxDelayMs) return at;
    const days = Math.floor(maxDelayMs / 86_400_000);
    throw new MillraceError('permanent', 'effect.too_far_ahead', `\`at\` is more than ${days} days ahead`, {
      hint: 'A mail that waits must not outlive RETENTION_DAYS: two thirds of it are the most.',
    });
  }

  async function requestOrBlob(
    request: ProviderRequest,
    { key, maxInlineBytes }: { key: string; maxInlineBytes: number },
  ): Promise<OutboxRecord['request']> {
    const bytes = Buffer.from(JSON.stringify(request).toWellFormed());
    if (bytes.length <= maxInlineBytes) return request;
    // A run cut off long ago may have written the same: what waits from now on needs bytes that last as long.
    const stream = store.stream(streamNames.request(key));
    return { blob: await writeBlob(stream, bytes, { nowMs: clock.nowMs() }) };
  }

  async function outboxOutput(
    request: ProviderRequest,
    of: { effect: number; at: string | undefined; run: FrozenFor; maxInlineBytes: number },
  ): Promise<Output> {
    const { effect, at, run, maxInlineBytes } = of;
    const { mail, cause } = run;
    const idempotencyKey = cause.idempotencyKey(effect);
    const tagged = { ...request, tags: tagsOf(request, idempotencyKey) };
    const frozen: OutboxRecord = {
      kind: 'request',
      version: 1,
      idempotencyKey,
      cause: { inbox, seqNum: cause.seqNum, effect, emailId: mail.emailId },
      // As the runner's own lane has it: what was cut of a mail may be what tells its conversation.
      thread: `${inbox}/${threadKey(mail.email)}`,
      notBefore: notBefore(at),
      request: await requestOrBlob(tagged, { key: idempotencyKey, maxInlineBytes }),
    };
    const { headers = [], body } = jsonRecord(frozen, cause.settlementKey(effect));
    const causedAt: RecordHeader = [CAUSED_AT_HEADER, String(cause.atMs)];
    const doubt: RecordHeader[] =
      cause.doubtSinceMs === null ? [] : [[COPY_HEADERS.doubtSince, String(cause.doubtSinceMs)]];
    return { stream: streamNames.outbox, record: { headers: [...headers, causedAt, ...doubt], body } };
  }

  return async (effects, run) => {
    const outputs: Output[] = [];
    const recipients: string[] = [];
    let replies = 0;
    let skipped: string | null = null;
    let bytes = 0;
    let inlineBytes = 0;
    for (const [index, effect] of effects.entries()) {
      // To make large HTML safe takes half a second and more: others have their turn in between.
      if (index > 0) await clock.sleep(0);
      const composed = await naming(effect, () => compose(effect, run));
      skipped = composed.skipped ?? skipped;
      if (composed.request === null) continue;
      if (effect.kind === 'reply') replies += 1;
      else recipients.push(...allRecipients(composed.request));
      bytes += sizeOf(composed.request);
      if (bytes > MAX_REQUESTS_BYTES) throw tooLarge(bytes);
      const { request } = composed;
      const maxInlineBytes = run.isAtomic ? MAX_ATOMIC_BYTES - inlineBytes : MAX_INLINE_REQUEST_BYTES;
      const output = () => outboxOutput(request, { effect: index, at: effect.at, run, maxInlineBytes });
      const made = await naming(effect, output);
      inlineBytes += Buffer.byteLength(made.record.body);
      outputs.push(made);
    }
    return { outputs, skipped, replies, recipients };
  };
}

function tagsOf(request: ProviderRequest, idempotencyKey: string): { name: string; value: string }[] {
  const key = { name: KEY_TAG, value: fingerprint(idempotencyKey) };
  const recipients = allRecipients(request).length;
  return recipients === 1 ? [key] : [key, { name: RECIPIENTS_TAG, value: String(recipients) }];
}

/** What is refused for its content, not for what the streams are. */
const OF_EFFECT = /^(?:effect|reply|mail)\./;

/** So that who reads of a refusal knows which of several effects is meant, and where it is stated. */
async function naming<T>({ place = '' }: PlainEffect, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const isOurs = error instanceof MillraceError && error.kind === 'permanent';
    if (!isOurs || !OF_EFFECT.test(error.code) || place === '') throw error;
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    throw new MillraceError(error.kind, error.code, placed(error.message, place), { ...hint, cause: error });
  }
}

/** A message about one key begins with it. */
function placed(message: string, place: string): string {
  return message.startsWith('`')
    ? `\`${place}${message.slice(1)}`
    : `\`${place.replace(/\.$/, '')}\`: ${message}`;
}

/** Near enough: text and files, not what is around them. */
function sizeOf({ text, html = '', attachments = [] }: ProviderRequest): number {
  return text.length + html.length + attachments.reduce((sum, { content }) => sum + content.length, 0);
}

function tooLarge(bytes: number): MillraceError {
  return new MillraceError(
    'permanent',
    'effect.too_large',
    `the mails of one run would be ${bytes} bytes; at most ${MAX_REQUESTS_BYTES} are taken`,
    { hint: 'Change what the tool returns, then redrive this email.' },
  );
}
