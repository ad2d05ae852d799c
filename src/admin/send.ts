/**
 * `millrace send FILE.eml`: hands a message to the local mailbox of the running daemon on this machine, waits
 * for what becomes of it, and prints the reply.
 *
 * Exit codes: 0 for a mail that was answered, or deliberately not (and with `--no-wait`, that was taken); 1 for
 * one that was parked, is not settled in time, or could not be handed over; 2 for a file or an address that is
 * not right, or no daemon.
 */
import { readFileSync, statSync } from 'node:fs';
import { daemonFolders } from '../platform/config.ts';
import { MillraceError, errorMessage, hasCode } from '../platform/errors.ts';
import { printLine } from '../platform/terminal.ts';
import { createAdminClient } from './admin-client.ts';
import type { AdminClient } from './admin-client.ts';
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

/** The command. Prints to standard output. */
export async function sendFile(file: string, options: SendOptions): Promise<void> {
  const daemon = findDaemonFile(daemonFolders());
  await sendMessage({ daemon, print: printLine }, readMessage(file), options);
}

/**
 * @throws MillraceError `send.parked`, `send.not_settled` (permanent); `send.no_local_mailbox` (invalid); what the admin
 *   client throws
 */
export async function sendMessage(deps: SendDeps, raw: Uint8Array, options: SendOptions): Promise<void> {
  const client = createAdminClient(deps.daemon);
  const emailId = await handedOver(client, raw, options.to);
  deps.print(`emailId: ${emailId}`);
  if (!options.wait) return;
  const mail = await settled(client, emailId);
  if (!mail) throw notSettled(emailId, deps.daemon);
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

/** Gives the email's id. */
async function handedOver(client: AdminClient, raw: Uint8Array, to: string | undefined): Promise<string> {
  const query = to === undefined ? '' : `?to=${encodeURIComponent(to)}`;
  try {
    return (await client.post<{ emailId: string }>(`/api/mailbox/eml${query}`, raw)).emailId;
  } catch (error) {
    // A route that is there says a code of its own.
    if (!hasCode(error, 'admin.refused')) throw error;
    throw new MillraceError('invalid', 'send.no_local_mailbox', 'this daemon has no local mailbox', {
      hint: 'With RESEND_API_KEY set, mail comes through Resend: send it from a mail program.',
      cause: error,
    });
  }
}

/** Each request waits on the daemon's side; null where it takes too long. */
async function settled(client: AdminClient, emailId: string): Promise<LocalMailView | null> {
  for (let waits = 1; waits <= MAX_WAITS; waits++) {
    const query = { waitSeconds: WAIT_SECONDS };
    const mail = await client.get<LocalMailView>(`/api/mailbox/mails/${emailId}`, query);
    if (mail.isSettled) return mail;
  }
  return null;
}

function notSettled(emailId: string, { url }: DaemonFile): MillraceError {
  return new MillraceError('permanent', 'send.not_settled', `${emailId} is still on its way`, {
    hint: `It is not lost: look at ${url}, or wait for longer with another look there.`,
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
