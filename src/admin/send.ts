/**
 * `millrace send FILE.eml`: hands a message to the local mailbox of the running daemon on this machine, waits
 * for what becomes of it, and prints the reply.
 *
 * Exit codes: 0 for a mail that was answered, or deliberately not (and with `--no-wait`, that was taken); 1 for
 * one that was parked, is not settled in time, or could not be handed over; 2 for a file or an address that is
 * not right, or no daemon.
 */
import { readFileSync, statSync } from 'node:fs';
import { z } from 'zod';
import { systemClock } from '../platform/clock.ts';
import { daemonFolders } from '../platform/config.ts';
import { createDeadline } from '../platform/deadline.ts';
import { MillraceError, errorMessage } from '../platform/errors.ts';
import { refusalIn } from './admin-client.ts';
import type { InboxCopy, LocalMailView } from './conversation.ts';
import { findDaemonFile } from './daemon-file.ts';
import type { DaemonFile } from './daemon-file.ts';
import { MAX_MESSAGE_BYTES } from './local-mail.ts';

export interface SendOptions {
  /** The inbox that it is for; default: the addresses of ours in its To and Cc. */
  to?: string;
  /** False only hands it over. */
  wait: boolean;
}

export interface SendDeps {
  daemon: DaemonFile;
  /** Takes one line, or several. */
  print: (text: string) => void;
}

/** One request waits for so long; the daemon caps it at a minute. */
const WAIT_SECONDS = 20;
/** With the line above: three minutes, within which a tool has run for certain. */
const MAX_WAITS = 9;
const REQUEST_TIMEOUT_MS = (WAIT_SECONDS + 20) * 1000;

const toStdout = (text: string): void => void process.stdout.write(`${text}\n`);

/** The command. Prints to standard output. */
export async function sendFile(file: string, options: SendOptions): Promise<void> {
  const daemon = findDaemonFile(daemonFolders());
  await sendMessage({ daemon, print: toStdout }, readMessage(file), options);
}

/**
 * @throws MillraceError `send.parked`, `send.not_settled` (permanent); `admin.daemon_not_running` and whatever
 *   the daemon refuses (invalid); `send.failed` (transient) where the daemon could not take it
 */
export async function sendMessage(deps: SendDeps, raw: Uint8Array, options: SendOptions): Promise<void> {
  const to = options.to === undefined ? '' : `?to=${encodeURIComponent(options.to)}`;
  const accepted = await call(deps.daemon, `/api/mailbox/eml${to}`, raw);
  const { emailId } = z.object({ emailId: z.string() }).parse(accepted);
  deps.print(`emailId: ${emailId}`);
  if (!options.wait) return;
  const mail = await settled(deps.daemon, emailId);
  for (const copy of mail.inboxes) printCopy(copy, deps.print);
  if (mail.state === 'parked') {
    throw new MillraceError('permanent', 'send.parked', `parked: ${mail.error?.message ?? mail.reason}`, {
      hint: mail.error?.hint ?? 'No other mail is held up. Mend the tool, then send it again.',
    });
  }
  if (mail.state === 'not-answered') deps.print(`\nDeliberately not answered: ${mail.reason}`);
}

/** @throws MillraceError `send.unreadable_file` (invalid) */
function readMessage(file: string): Uint8Array {
  try {
    const { size } = statSync(file);
    if (size > MAX_MESSAGE_BYTES)
      throw new Error(`it has ${size} bytes, at most ${MAX_MESSAGE_BYTES} are taken`);
    return readFileSync(file);
  } catch (cause) {
    throw new MillraceError('invalid', 'send.unreadable_file', `${file}: ${errorMessage(cause)}`, {
      hint: 'Give a message as a mail program saves it (.eml).',
      cause,
    });
  }
}

/** Until it is; each request waits on the daemon's side. */
async function settled(daemon: DaemonFile, emailId: string): Promise<LocalMailView> {
  for (let waits = 1; waits <= MAX_WAITS; waits++) {
    // What the daemon of the same release answers needs no schema of its own.
    const mail = (await call(
      daemon,
      `/api/mailbox/mails/${emailId}?waitSeconds=${WAIT_SECONDS}`,
    )) as LocalMailView;
    if (mail.isSettled) return mail;
  }
  throw new MillraceError('permanent', 'send.not_settled', `${emailId} is still on its way`, {
    hint: `It is not lost: look at ${daemon.url}, or wait for longer with another look there.`,
  });
}

function printCopy({ inbox, replies, logs }: InboxCopy, print: SendDeps['print']): void {
  for (const reply of replies) {
    const headers = { From: reply.from, To: reply.to, Subject: reply.subject, ...reply.headers };
    const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
    const files = reply.attachments.map(({ filename, size }) => `[${filename}, ${size} bytes]`);
    print(['', ...head, '', reply.text, ...files].join('\n'));
  }
  if (logs.length > 0) print(['', `${inbox} logged:`, ...logs.map((line) => `  ${line}`)].join('\n'));
}

/** A GET, or a POST of the raw message where there is one. */
async function call(daemon: DaemonFile, path: string, raw?: Uint8Array): Promise<unknown> {
  using deadline = createDeadline(systemClock, REQUEST_TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(`${daemon.url}${path}`, {
      headers: { Authorization: `Bearer ${daemon.token}`, 'Content-Type': 'message/rfc822' },
      ...(raw && { method: 'POST', body: new Uint8Array(raw) }),
      signal: deadline.signal,
    });
  } catch (cause) {
    throw new MillraceError('invalid', 'admin.daemon_not_running', `nothing answers at ${daemon.url}`, {
      hint: 'The daemon has stopped. Start it with `npm start`.',
      cause,
    });
  }
  const body: unknown = await response.json().catch(() => null);
  if (response.ok) return body;
  if (raw && response.status === 404) {
    throw new MillraceError('invalid', 'send.no_local_mailbox', 'this daemon has no local mailbox', {
      hint: 'With RESEND_API_KEY set, mail comes through Resend: send it from a mail program.',
    });
  }
  const { code, message, details } = refusalIn(response.status, body);
  if (response.status < 500) throw new MillraceError('invalid', code ?? 'send.refused', message, details);
  throw new MillraceError('transient', 'send.failed', message, details);
}
